"""patches/nemo_rl.py on doubles of both generations of NeMo-RL's CheckpointManager (tests/doubles/README.md)."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import threading
import types
from pathlib import Path

import pytest

from checkpoint_job import TESTS, job, writer  # noqa: F401
from nemotron_exec.sitecustomize.payload.checkpoints import pruning, record
from nemotron_exec.sitecustomize.payload.manifest import listing
from nemotron_exec.sitecustomize.payload.patches import nemo_rl as patch
from nemotron_exec.sitecustomize.payload.status import INSTALLED, STOOD_DOWN


def fresh(generation):
    """A fresh copy of a double: the patch changes the class itself."""
    path = TESTS / "doubles" / f"nemo_rl_{generation}" / "nemo_rl" / "utils" / "checkpoint.py"
    spec = importlib.util.spec_from_file_location("nemo_rl.utils.checkpoint", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["released", "main"])
def generation(request):
    return request.param


@pytest.fixture
def module(generation, monkeypatch):
    monkeypatch.setattr(patch, "_best", {})
    module = fresh(generation)
    assert patch.apply(module) == (patch.NAME, INSTALLED, "")
    return module


class Algorithm:
    """Saves checkpoints as an algorithm of NeMo-RL of that generation does."""

    def __init__(self, module, directory, **config):
        defaults = {
            "checkpoint_dir": str(directory),
            "metric_name": None,
            "higher_is_better": True,
            "keep_top_k": None,
            "save_period": 10,
            "save_optimizer": True,
        }
        self.manager = module.CheckpointManager({**defaults, **config})

    def save(self, step, info=None, wait_fn=None, run_config=None):
        path = self.manager.init_tmp_checkpoint(step, {"step": step, **(info or {})}, run_config)
        (Path(path) / "policy").mkdir()
        if hasattr(self.manager, "begin_finalization"):
            self.manager.begin_finalization(path, wait_fn)
            self.manager.shutdown()
        else:
            if wait_fn is not None:
                wait_fn()
            self.manager.finalize_checkpoint(path)


@pytest.fixture
def grpo(job, tmp_path):
    job.save_dir = tmp_path / "results" / "grpo"
    return job.save_dir


def test_every_completed_checkpoint_is_recorded_once(module, job, grpo):
    algorithm = Algorithm(module, grpo)
    for step in (10, 20, 30):
        algorithm.save(step)
    job.settle()
    assert job.numbers("grpo") == [10, 20, 30]
    assert listing.read_latest(str(job.store), "grpo") == 3


def test_the_format_is_that_of_megatron_bridge(module, job, grpo):
    job.handoff["artifacts"] = [{"qualified_name": "team/nemotron/sft:v3"}]
    Algorithm(module, grpo).save(10)
    found = job.manifest("v1", "grpo")
    step = str(grpo / "step_10")
    assert (found["type"], found["path"], found["used_artifacts"]) == ("model", step, ["team/nemotron/sft:v3"])
    assert found["aliases"] == ["step_10"]
    metadata = found["metadata"]
    assert (metadata["iteration"], metadata["step"]) == (10, 10)
    assert (metadata["absolute_path"], metadata["checkpoint_path"]) == (step, step)
    assert metadata["framework"] == "nemo-rl"
    assert metadata["run_record"].startswith(str(grpo))


def test_a_checkpoint_is_seen_only_after_its_rename(module, job, grpo):
    seen = []

    def wait_fn():
        seen.append(job.numbers("grpo"))
        assert not (grpo / "step_10").exists()

    Algorithm(module, grpo).save(10, wait_fn=wait_fn)
    assert seen == [[]]
    assert job.numbers("grpo") == [10]


def test_a_checkpoint_that_fails_to_finalize_is_none(module, job, grpo):
    def wait_fn():
        raise OSError("writer died")

    with pytest.raises((OSError, RuntimeError)):
        Algorithm(module, grpo).save(10, wait_fn=wait_fn)
    job.settle()
    assert (grpo / "tmp_step_10").is_dir()
    assert job.numbers("grpo") == []


def test_on_main_the_old_way_of_finalizing_counts_once_too(job, grpo):
    module = fresh("main")
    patch.apply(module)
    manager = Algorithm(module, grpo).manager
    manager.finalize_checkpoint(manager.init_tmp_checkpoint(10, {}))
    assert job.numbers("grpo") == [10]


def test_a_replaced_checkpoint_is_a_new_version_and_the_old_one_is_gone(module, job, grpo):
    algorithm = Algorithm(module, grpo)
    algorithm.save(10)
    algorithm.save(10)
    job.settle()
    assert job.numbers("grpo") == [10, 10]
    assert (job.store / "grpo" / "v1" / "pruned").exists()
    assert not (job.store / "grpo" / "v2" / "pruned").exists()


def test_what_keep_top_k_deletes_is_marked_as_pruned(module, job, grpo):
    algorithm = Algorithm(module, grpo, keep_top_k=2)
    for step in (10, 20, 30, 40):
        algorithm.save(step)
    job.settle()
    assert job.numbers("grpo") == [10, 20, 30, 40]
    assert job.pruned("grpo") == [10, 20]


def test_a_checkpoint_that_is_pruned_at_once_is_recorded_and_marked(module, job, grpo):
    # With a stale higher step and keep_top_k=1, the step that was just finalized is deleted.
    stale = grpo / "step_90"
    stale.mkdir(parents=True)
    (stale / "training_info.json").write_text("{}")
    Algorithm(module, grpo, keep_top_k=1).save(10)
    job.settle()
    assert not (grpo / "step_10").exists()
    assert job.pruned("grpo") == [10]


@pytest.mark.parametrize(
    ("higher", "rewards", "best"),
    [
        (True, {10: 0.1, 20: 0.7, 30: 0.4}, 20),
        (False, {10: 0.1, 20: 0.7, 30: 0.4}, 10),
        (True, {10: 0.7, 20: 0.7, 30: 0.4}, 20),
        (False, {10: 0.1, 20: 0.1, 30: 0.4}, 20),
        (True, {10: 0.1, 20: None, 30: None}, 10),
    ],
    ids=["highest", "lowest", "tie goes to the later", "tie of the lowest too", "without the metric"],
)
def test_best_is_what_the_framework_calls_best(module, job, grpo, higher, rewards, best):
    algorithm = Algorithm(module, grpo, metric_name="val:reward", higher_is_better=higher)
    for step, reward in rewards.items():
        algorithm.save(step, {} if reward is None else {"val:reward": reward})
    assert job.manifest("best", "grpo")["metadata"]["iteration"] == best


def test_metrics_come_from_training_info(module, job, grpo):
    algorithm = Algorithm(module, grpo, metric_name="val_reward")
    algorithm.save(10, {"val_reward": 0.5, "train:loss": 1.25, "consumed_samples": 640, "note": "text"})
    metadata = job.manifest("v1", "grpo")["metadata"]
    assert metadata["metric_name"] == "val_reward"
    assert (metadata["metric"], metadata["higher_is_better"]) == (0.5, True)
    found = {name: value for name, value in metadata.items() if name.startswith("metrics.")}
    assert found == {"metrics.val_reward": 0.5, "metrics.train:loss": 1.25}


def test_checkpoints_for_fault_tolerance_are_marked_and_never_latest(job, grpo):
    module = fresh("main")
    patch.apply(module)
    algorithm = Algorithm(module, grpo, save_period=10, ft_save_period=2, ft_keep_latest_k=1)
    for step in (8, 10, 12):
        algorithm.save(step)
    found = {job.manifest(v, "grpo")["metadata"]["step"]: v for v in listing.versions(str(job.store), "grpo")}
    assert [job.manifest(found[step], "grpo")["metadata"]["transient"] for step in (8, 10, 12)] == [True, False, True]
    assert job.manifest("latest", "grpo")["metadata"]["step"] == 10


def test_a_last_step_off_every_period_is_not_transient(job, grpo):
    module = fresh("main")
    patch.apply(module)
    Algorithm(module, grpo, save_period=10, ft_save_period=2, ft_keep_latest_k=1).save(17)
    assert job.manifest("latest", "grpo")["metadata"]["transient"] is False


@pytest.mark.parametrize(
    "run_config",
    [
        {"grpo": {"max_num_steps": 12}, "checkpointing": {"save_period": 10}},
        types.SimpleNamespace(sft=types.SimpleNamespace(max_num_steps=12), checkpointing={"save_period": 10}),
    ],
    ids=["a dictionary", "a model"],
)
def test_the_last_step_of_the_run_is_not_transient_whatever_its_number(job, grpo, run_config):
    module = fresh("main")
    patch.apply(module)
    algorithm = Algorithm(module, grpo, save_period=10, ft_save_period=2, ft_keep_latest_k=1)
    algorithm.save(8, run_config=run_config)
    algorithm.save(12, run_config=run_config)
    found = [job.manifest(version, "grpo")["metadata"]["transient"] for version in (1, 2)]
    assert found == [True, False]
    assert job.manifest("latest", "grpo")["metadata"]["step"] == 12


@pytest.mark.parametrize("variables", [{"is_last_step": True}, {"early_stop_message": "reward reached"}])
def test_the_end_of_the_data_is_known_from_the_algorithms_variables_where_python_lets_us_look(job, grpo, variables):
    module = fresh("main")
    patch.apply(module)
    manager = Algorithm(module, grpo, save_period=10, ft_save_period=2, ft_keep_latest_k=1).manager
    algorithm = (
        "def train(manager):\n"
        + "".join(f"    {name} = {value!r}\n" for name, value in variables.items())
        + "    return manager.init_tmp_checkpoint(12, {}, {'grpo': {'max_num_steps': 100}})\n"
    )
    names = {}
    exec(algorithm, names)
    manager.finalize_checkpoint(names["train"](manager))
    assert job.manifest("v1", "grpo")["metadata"]["transient"] is (sys.version_info < (3, 13))


@pytest.mark.parametrize(
    ("policy", "kept"), [("all", [8, 10, 20]), ("periodic", [10, 20]), ("best", [8, 20]), ("none", [])]
)
def test_run_checkpoints_says_which_are_recorded(job, grpo, monkeypatch, policy, kept):
    monkeypatch.setattr(patch, "_best", {})
    job.handoff["checkpoints"] = policy
    module = fresh("main")
    patch.apply(module)
    algorithm = Algorithm(module, grpo, metric_name="val:reward", ft_save_period=2, ft_keep_latest_k=9)
    for step, reward in ((8, 0.5), (10, 0.1), (20, 0.9)):
        algorithm.save(step, {"val:reward": reward})
    job.settle()
    assert job.numbers("grpo") == kept


def test_with_a_run_in_the_process_it_goes_to_wandb_in_the_background(module, job, grpo, writer):
    caller = threading.get_ident()
    threads = []
    log = writer.run.log_artifact

    def logging(*args, **kwargs):
        threads.append(threading.get_ident())
        return log(*args, **kwargs)

    writer.run.log_artifact = logging
    Algorithm(module, grpo).save(10)
    job.settle()
    (artifact, aliases), *others = writer.logged
    assert not others
    assert (artifact.name, artifact.type, aliases) == ("grpo", "model", ["step_10", "latest"])
    assert artifact.metadata["absolute_path"] == str(grpo / "step_10")
    assert artifact.files["metadata.json"]["path"] == str(grpo / "step_10")
    assert threads != [caller]
    assert job.outbox(grpo) == []


def test_a_transient_checkpoint_does_not_go_to_wandb(job, grpo, writer):
    module = fresh("main")
    patch.apply(module)
    Algorithm(module, grpo, ft_save_period=2, ft_keep_latest_k=1).save(8)
    job.settle()
    assert writer.logged == []
    assert job.numbers("grpo") == [8]


def test_nothing_of_ours_reaches_training(module, job, grpo, monkeypatch, capfd):
    monkeypatch.setattr(record, "record", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(pruning, "look_soon", lambda *_: 1 / 0)
    Algorithm(module, grpo, keep_top_k=1).save(10)
    assert (grpo / "step_10").is_dir()
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("nemotron-exec: warning")]
    assert len(warnings) == 1
    assert "ZeroDivisionError" in warnings[0]


def test_applying_twice_records_once(module, job, grpo):
    assert patch.apply(module).state == INSTALLED
    Algorithm(module, grpo).save(10)
    assert job.numbers("grpo") == [10]


def test_signatures_look_as_before(generation):
    before = {name: str(inspect.signature(value)) for name, value in functions(fresh(generation))}
    module = fresh(generation)
    patch.apply(module)
    assert {name: str(inspect.signature(value)) for name, value in functions(module)} == before


def functions(module):
    return inspect.getmembers(module.CheckpointManager, inspect.isfunction)


def changed(source):
    module = types.ModuleType("changed")
    exec(source, vars(module))
    return module


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "no class CheckpointManager"),
        ("class CheckpointManager:\n  def complete(self): pass", "neither _rename_checkpoint nor finalize_checkpoint"),
        ("class CheckpointManager:\n  def finalize_checkpoint(self, step, path): pass", "takes (self, step, path)"),
    ],
    ids=["no class", "no step", "other parameters"],
)
def test_a_changed_class_makes_the_patch_stand_down(source, reason):
    status = patch.apply(changed(source))
    assert status.state == STOOD_DOWN
    assert reason in status.reason


NATIVE = """
import os
class CheckpointManager:
    metric_name = None
    def __init__(self, config, logger=None):
        self.checkpoint_dir = config["checkpoint_dir"]
    def finalize_checkpoint(self, checkpoint_path):
        os.rename(checkpoint_path, checkpoint_path.replace("tmp_", ""))
"""


def test_where_nemo_rl_logs_by_itself_only_the_manifest_is_written(job, grpo, writer):
    module = changed(NATIVE)
    status = patch.apply(module)
    assert status.state == INSTALLED
    assert "W&B is left to NeMo-RL" in status.reason
    (grpo / "tmp_step_10").mkdir(parents=True)
    module.CheckpointManager({"checkpoint_dir": str(grpo)}).finalize_checkpoint(str(grpo / "tmp_step_10"))
    job.settle()
    assert writer.logged == []
    assert job.numbers("grpo") == [10]
    assert json.loads((job.store / "grpo" / "v1" / "metadata.json").read_text())["iteration"] == 10


def test_what_was_renamed_is_complete_whatever_failed_then(job, grpo, monkeypatch):
    monkeypatch.setattr(patch, "_best", {})
    module = fresh("released")

    def full(self, *_args, **_kwargs):
        raise OSError("no space to prune")

    module.CheckpointManager.remove_old_checkpoints = full
    patch.apply(module)
    with pytest.raises(OSError, match="no space to prune"):
        Algorithm(module, grpo).save(10)
    job.settle()
    assert job.numbers("grpo") == [10]
    assert job.outbox(grpo) == []


def test_what_failed_before_its_rename_is_none_and_leaves_no_entry(job, grpo, monkeypatch):
    monkeypatch.setattr(patch, "_best", {})
    module = fresh("released")
    finalize = module.CheckpointManager.finalize_checkpoint

    def refused(self, checkpoint_path):
        with monkeypatch.context() as patched:
            patched.setattr(module.os, "rename", lambda *_: (_ for _ in ()).throw(OSError("a dead server")))
            finalize(self, checkpoint_path)

    module.CheckpointManager.finalize_checkpoint = refused
    patch.apply(module)
    with pytest.raises(OSError, match="a dead server"):
        Algorithm(module, grpo).save(10)
    job.settle()
    assert job.numbers("grpo") == []


def test_a_step_that_was_pruned_is_not_the_best(module, job, grpo):
    import shutil

    algorithm = Algorithm(module, grpo, metric_name="val:accuracy")
    algorithm.save(10, {"val:accuracy": 0.9})
    shutil.rmtree(grpo / "step_10")
    algorithm.save(20, {"val:accuracy": 0.5})
    job.settle()
    assert "best" in job.manifest("v2", "grpo")["aliases"]
