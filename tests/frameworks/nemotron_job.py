"""Run an unchanged training recipe of NVIDIA's Nemotron without a GPU, with its script as this process's main.

Usage: nemotron_job.py [--without-kit] [--nemo-rl CHECKOUT | --no-framework] --record FILE SCRIPT [ARGUMENT ...]
       nemotron_job.py --nemo-rl CHECKOUT --record FILE --save DIRECTORY

The script gets other recipe functions, which give a tiny GPT. It also gets another `pretrain()` and `finetune()`, which
record their arguments and train with a model and a data set of a few bytes. The rest is real: the script, the kit,
Megatron-Bridge, W&B's client, NeMo-RL's CheckpointManager. This program does not use nemotron-exec.

The second form stands in for a training that a recipe starts by a shell script and that reads its values from the
environment. `--without-kit` gives the script a kit whose functions do nothing, as if its calls were deleted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing.spawn
import os
import runpy
import sys
import types
from pathlib import Path
from unittest import mock

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")

if __name__ == "__mp_main__":
    # Megatron-Core spawns its checkpoint writers. They import this file in place of the script, and need a GPU, too.
    sys.path.insert(0, str(Path(__file__).parent))
    import cuda_is_cpu

    cuda_is_cpu.install()

_RECIPES = "megatron.bridge.recipes"
_FAKE = (
    _RECIPES,
    f"{_RECIPES}.nemotronh",
    f"{_RECIPES}.nemotronh.nemotron_3_nano",
    f"{_RECIPES}.nemotronh.nemotron_3_super",
    f"{_RECIPES}.nemotronh.nemotron_3_ultra",
    f"{_RECIPES}.utils",
    f"{_RECIPES}.utils.dataset_utils",
    "megatron.bridge.training.nemotron_omni_step",
)
_KIT = ("nemotron.kit.wandb_kit", "nemo_runspec.config", "nemo_runspec.config.resolvers", "nemo_runspec.artifacts")


class _Recorded:
    """Records the script's values in a file for the comparison."""

    def __init__(self, path):
        self.path, self.values = Path(path), {}

    def write(self, **values):
        self.values.update(values)
        self.path.write_text(json.dumps(self.values, default=str))


def _tiny(iterations, save):
    import pretrain_tiny_gpt

    wanted = argparse.Namespace(iterations=iterations, every=2, keep=-1, wandb=False)
    return pretrain_tiny_gpt.configured(wanted, save)


def _iterations():
    return int(os.environ.get("TRY_ITERATIONS", "4"))


def _megatron(recorded):
    """Replace the recipe functions and the trainings."""
    import cuda_is_cpu

    cuda_is_cpu.install()
    prepared = multiprocessing.spawn.get_preparation_data
    multiprocessing.spawn.get_preparation_data = lambda name: {**prepared(name), "init_main_from_path": __file__}
    import megatron.core.datasets.utils

    megatron.core.datasets.utils.compile_helpers = lambda: None
    import megatron.bridge.training.finetune as finetune
    import megatron.bridge.training.initialize as initialize
    import megatron.bridge.training.pretrain as pretrain
    from megatron.bridge.training.gpt_step import forward_step

    if hasattr(initialize, "compile_helpers"):
        initialize.compile_helpers = lambda: None

    with contextlib.suppress(ImportError):
        # The recipes need a branch of Megatron-Bridge in which packed data may be a directory of parquet files.
        from megatron.bridge.data.datasets.packed_sequence import PackedSequenceSpecs

        PackedSequenceSpecs.__post_init__ = lambda self: None

    def recipe(**kwargs):
        recorded.write(recipe=kwargs)
        return _tiny(_iterations(), "/nowhere")

    def blend(**kwargs):
        recorded.write(blend=kwargs)
        return None, None, None

    for name in _FAKE:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__getattr__ = lambda attribute: recipe if attribute.endswith("_config") else _raise(attribute)
        module.apply_dataset_override = lambda cfg, **_: cfg
        module.get_blend_fields_from_data_paths = blend
        module.forward_step = forward_step
        sys.modules[name] = module
    megatron.bridge.AutoBridge = _Bridge
    for module, name in ((pretrain, "pretrain"), (finetune, "finetune")):
        setattr(module, name, _training(getattr(module, name), recorded))


class _Bridge:
    """Converts a checkpoint without the Hugging Face model that the recipe names."""

    @classmethod
    def from_hf_pretrained(cls, _model, **_options):
        return cls()

    def export_ckpt(self, megatron_path, hf_path):
        Path(hf_path).mkdir(parents=True)
        (Path(hf_path) / "config.json").write_text(json.dumps({"from": megatron_path}))


def _raise(attribute):
    raise AttributeError(attribute)


def _training(original, recorded):
    def train(config, forward_step_func, **options):
        specs = getattr(config.dataset, "packed_sequence_specs", None)
        recorded.write(
            pretrained_checkpoint=config.checkpoint.pretrained_checkpoint,
            save=config.checkpoint.save,
            packed=getattr(specs, "packed_train_data_path", None),
            packed_size=getattr(specs, "packed_sequence_size", None),
            wandb_project=config.logger.wandb_project,
            wandb_entity=config.logger.wandb_entity,
        )
        tiny = _tiny(_iterations(), config.checkpoint.save)
        tiny.scheduler.override_opt_param_scheduler = True  # the requeued job trains longer
        tiny.checkpoint.load = config.checkpoint.save
        tiny.checkpoint.pretrained_checkpoint = config.checkpoint.pretrained_checkpoint
        for name in ("wandb_project", "wandb_entity"):
            setattr(tiny.logger, name, getattr(config.logger, name))
        tiny.logger.wandb_exp_name = config.logger.wandb_exp_name or "recipe"
        return original(config=tiny, forward_step_func=forward_step_func, **options)

    return train


def _without_kit():
    """Install a kit that does nothing, under the names of the real kit."""
    nothing = types.SimpleNamespace(manifest=False, wandb=False, qualified_names=[])
    answers = {"register_resolvers_from_config": [], "setup_artifact_tracking": nothing}
    for name in _KIT:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__getattr__ = lambda name: _raise(name) if name[:2] == "__" else lambda *_, **__: answers.get(name)
        sys.modules[name] = module


def _nemo_rl(checkout, recorded):
    """Install NeMo-RL with its real configuration and checkpoints, and a training that only saves."""
    for name in ("nemo_rl", "nemo_rl.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    names = "algorithms algorithms.grpo algorithms.utils distributed distributed.ray_actor_environment_registry "
    names += "distributed.virtual_cluster environments environments.nemo_gym models models.generation utils.logger "
    names += "data data.datasets data.interfaces"
    for name in ["ray", *(f"nemo_rl.{one}" for one in names.split())]:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__getattr__ = lambda attribute: _raise(attribute) if attribute[:2] == "__" else mock.MagicMock()
        sys.modules[name] = module
    sys.modules["nemo_rl.utils.logger"].get_next_experiment_dir = lambda directory: directory
    sys.modules["nemo_rl.data.datasets"].AllTaskProcessedDataset = lambda data, *_: data
    sys.modules["nemo_rl.models.generation"].configure_generation_config = lambda config, _: config
    grpo = sys.modules["nemo_rl.algorithms.grpo"]
    grpo.setup = lambda config, *_: (*[mock.MagicMock()] * 7, None, None, _set_up(config, recorded))
    grpo.grpo_train = lambda *arguments: _save(arguments[-1])


def _set_up(config, recorded):
    recorded.write(
        initial_checkpoint=config.get("initial_checkpoint"),
        train=config["data"].get("train_jsonl_fpath") or config["data"]["train"]["data_path"],
        validation=config["data"].get("validation_jsonl_fpath") or config["data"]["validation"]["data_path"],
        checkpoint_dir=config["checkpointing"]["checkpoint_dir"],
        wandb=config["logger"].get("wandb"),
    )
    if config["logger"].get("wandb_enabled"):
        import wandb

        wandb.init(**{key: value for key, value in config["logger"]["wandb"].items() if key in ("project", "entity")})
    return config


def _train_by_environment(save, recorded):
    names = ["MODEL_NAME", "DATA_PATH", "TRAIN_DATA_PATH", "VALIDATION_DATA_PATH", "CACHE_DIR"]
    recorded.write(**{name: os.environ[name] for name in names if name in os.environ})
    if os.environ["TRY_STORE"] == "wandb":
        import wandb

        wandb.init()
    _save({"checkpointing": {"enabled": True, "checkpoint_dir": save, "save_period": 2, "higher_is_better": True}})


def _save(config):
    checkpoints = importlib.import_module("nemo_rl.utils.checkpoint")
    given = {"save_optimizer": True, **config["checkpointing"], "metric_name": None, "keep_top_k": None}
    manager = checkpoints.CheckpointManager(given)
    done = int(Path(manager.get_latest_checkpoint_path() or "step_0").name.partition("_")[2])
    for step in range(done + 2, _iterations() + 1, 2):
        path = manager.init_tmp_checkpoint(step, {"step": step})
        (Path(path) / "weights.bin").write_bytes(b"w%d" % step)
        finish = getattr(manager, "begin_finalization", manager.finalize_checkpoint)
        finish(path)
    if hasattr(manager, "shutdown"):
        manager.shutdown()
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def main(arguments):
    """Make the replacements, and run the script."""
    sys.path.insert(0, str(Path(__file__).parent))
    recorded = _Recorded(arguments.record)
    if arguments.without_kit:
        _without_kit()
    if arguments.nemo_rl:
        _nemo_rl(Path(arguments.nemo_rl).resolve(), recorded)
    elif not arguments.no_framework:
        _megatron(recorded)
    if arguments.save:
        _train_by_environment(arguments.save, recorded)
        return
    sys.argv = [arguments.script, *arguments.arguments]
    runpy.run_path(arguments.script, run_name="__main__")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--without-kit", action="store_true")
    parser.add_argument("--nemo-rl")
    parser.add_argument("--record", required=True)
    parser.add_argument("--no-framework", action="store_true")
    parser.add_argument("--save")
    parser.add_argument("script", nargs="?")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    main(parser.parse_args())
