"""One table of the training frameworks whose checkpoints become artifacts.

A framework is one row here, and one file in patches/, which has the same name. start.py's `_PATCHES` repeats the
modules, because every interpreter would pay for importing this file. A test holds the two equal.

The launcher imports this file, too: it needs the standard library only, and is cheap to import.
"""

from __future__ import annotations

__all__ = ["FRAMEWORKS", "SAVE_KEYS", "Framework", "named", "saved_by"]


_DEFAULTS = {
    "save_key": None,
    "save_option": None,
    "own_options": (),
    "complete_files": (),
    "complete_directory": None,
    "exports": {},
    "prunes": None,
    "metric": None,
    "unseen": None,
}


class Framework:
    """One row. By default the distribution, the package and the format have the framework's name.

    Attributes:
        name: Name of the patch, and value of metadata's `framework`.
        title: The name as people write it.
        distribution: The distribution whose version is metadata's `framework_version`.
        modules: The modules that the patch waits for; the first of them that the job imports is enough.
        save_key: Path of the key of a config that names the save directory; None where an option of the command does.
        save_option: The option of the command that names the save directory; None where a key of a config does.
        own_options: A command of this framework has at least one of these options: other programs have a `save_option`,
            too.
        complete_files: A save directory with one of these files has a completed checkpoint.
        complete_directory: A directory whose name matches this regular expression shows the same; None where there is
            none.
        format: metadata's `format`.
        exports: Further formats in the same checkpoint: `{suffix of the format: (file that shows that it is complete,
            key of the metadata)}`. The file's directory is the key's value.
        packages: `{distribution: module}`. Their versions are recorded with a checkpoint.
        prunes: The setting by which the framework deletes old checkpoints; None where it has none.
        metric: Path of the key of a config that names the metric of the best checkpoint; None where no checkpoint is
            the best.
        unseen: The framework's ways to save that are not recorded, for people; None where all are.
    """

    name: str
    title: str
    distribution: str
    modules: tuple[str, ...]
    save_key: tuple[str, ...] | None
    save_option: str | None
    own_options: tuple[str, ...]
    complete_files: tuple[str, ...]
    complete_directory: str | None
    format: str
    exports: dict[str, tuple[str, str]]
    packages: dict[str, str]
    prunes: str | None
    metric: tuple[str, ...] | None
    unseen: str | None

    def __init__(self, name, title, modules, **columns):
        self.name, self.title, self.modules = name, title, modules
        self.distribution = columns.pop("distribution", name)
        self.format = columns.pop("format", name)
        self.packages = columns.pop("packages", None) or {self.distribution: modules[0].partition(".")[0]}
        for column, default in _DEFAULTS.items():
            setattr(self, column, columns.pop(column, default))
        if columns:
            raise TypeError("a framework has no %s" % ", ".join(columns))


FRAMEWORKS = (
    Framework(
        name="megatron-bridge",
        title="Megatron-Bridge",
        modules=(
            "megatron.bridge.training.utils.wandb_utils",
            "megatron.bridge.models.conversion.auto_bridge",
            "megatron.bridge.training.checkpointing",
        ),
        save_key=("checkpoint", "save"),
        # Megatron-Bridge writes both files last. It writes the first one for Megatron-LM's readers.
        complete_files=("latest_checkpointed_iteration.txt", "latest_train_state.pt"),
        format="megatron",
        exports={
            "hf": ("hf/config.json", "hf_path"),
            "peft": ("hf/adapter_config.json", "adapter_path"),
            "modelopt": ("modelopt_state/metadata.json", "modelopt_path"),
        },
        packages={"megatron-bridge": "megatron.bridge", "megatron-core": "megatron.core"},
        prunes="most_recent_k",
        unseen="a custom_manager_class without save_checkpoint, AutoBridge's save_hf_weights, exports of MegatronMIMO",
    ),
    Framework(
        name="megatron-lm",
        title="Megatron-LM",
        distribution="megatron-core",
        modules=("megatron.training.wandb_utils",),
        save_option="--save",
        own_options=("--save-interval", "--micro-batch-size", "--num-layers", "--use-checkpoint-args"),
        complete_files=("latest_checkpointed_iteration.txt",),
        format="megatron",
        packages={"megatron-core": "megatron.core"},
        prunes="--save-retain-interval",
        unseen="local checkpoints",
    ),
    Framework(
        name="nemo-rl",
        title="NeMo-RL",
        modules=("nemo_rl.utils.checkpoint",),
        save_key=("checkpointing", "checkpoint_dir"),
        complete_directory=r"step_\d+",  # the framework's last act is to rename tmp_step_N
        exports={"hf": ("hf/config.json", "hf_path")},
        prunes="keep_top_k",
        metric=("checkpointing", "metric_name"),
    ),
    Framework(
        name="automodel",
        title="NeMo Automodel",
        distribution="nemo-automodel",
        modules=("nemo_automodel.components.checkpoint.lifecycle", "nemo_automodel.recipes.base_recipe"),
        save_key=("checkpoint", "checkpoint_dir"),
        complete_files=("LATEST.txt",),  # Automodel writes it in place of the link on a file system without links
        complete_directory=r"LATEST",
        exports={
            "hf": ("model/consolidated/config.json", "hf_path"),
            "peft": ("model/adapter_config.json", "adapter_path"),
        },
        packages={"nemo-automodel": "nemo_automodel", "transformers": "transformers"},
        prunes="max_recent_checkpoints",
        metric=("validation_dataset",),
    ),
    Framework(
        name="modelopt",
        title="ModelOpt",
        distribution="nvidia-modelopt",
        modules=("modelopt.torch.export.unified_export_hf", "modelopt.torch.export.unified_export_megatron"),
        format="hf",
        packages={"nvidia-modelopt": "modelopt", "transformers": "transformers"},
        unseen="exports for TensorRT-LLM and ONNX, mto.save",
    ),
)
SAVE_KEYS = tuple(framework.save_key for framework in FRAMEWORKS if framework.save_key is not None)
"""The keys for the save directory, in the order in which a config is searched for them."""


def saved_by(words):
    """The save directory that a command's options name; None without one, or if its value has a `$` for the shell.

    Args:
        words: The words after the script.
    """
    options = [word.partition("=") for word in words]
    for framework in FRAMEWORKS:
        if framework.save_option is None or not any(name in framework.own_options for name, _, _ in options):
            continue
        found = None
        for index, (name, equals, value) in enumerate(options):
            if name == framework.save_option:  # argparse takes the last one
                found = value if equals else words[index + 1] if index + 1 < len(words) else ""
        if found and not found.startswith("-") and "$" not in found:
            return found
    return None


def named(name):
    """The row of that name, or None."""
    return next((framework for framework in FRAMEWORKS if framework.name == name), None)
