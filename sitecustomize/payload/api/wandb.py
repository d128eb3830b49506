"""`nemotron_exec.wandb`: the patches by hand, for scripts that call them. The launcher's jobs have them already."""

from __future__ import annotations

import importlib
import sys

from ..checkpoints import script_name
from ..patches import lineage, megatron_bridge, nemo_rl

__all__ = ["patch_nemo_rl_checkpoint_logging", "patch_wandb_checkpoint_logging", "patch_wandb_init_for_lineage"]


def patch_wandb_init_for_lineage(*, artifact_qualified_names, tags=None):
    """Let every W&B run that this process starts use these artifacts, once each.

    Args:
        artifact_qualified_names: `entity/project/name:v3`, as `register_resolvers_from_config` returns them.
        tags: Tags for the run.
    """
    lineage.apply(importlib.import_module(lineage.MODULE))
    lineage.add(artifact_qualified_names, tags)


def patch_wandb_checkpoint_logging():
    """Make artifacts of Megatron-Bridge's checkpoints, with the fields that the next job needs."""
    _patch(megatron_bridge)


def patch_nemo_rl_checkpoint_logging(artifact_name=None):
    """Make artifacts of NeMo-RL's checkpoints, in the same form.

    Args:
        artifact_name: The artifacts' name. `run.publish` wins; without both, the checkpoint directory's name is used.
    """
    script_name.hand_over(artifact_name)
    _patch(nemo_rl)


def _patch(patch):
    """Apply a patch at once, importing its framework: the script that calls this is about to train with it."""
    module = sys.modules.get(patch.MODULE)
    patch.apply(module if module is not None else importlib.import_module(patch.MODULE))
