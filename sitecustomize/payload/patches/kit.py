"""NVIDIA's kit: while our patches are active, its own stand back, so that nothing is logged twice.

Its functions replace `wandb.init` and the frameworks' callbacks with ones of their own. Called in a job that we have
started, they say so once and do nothing; what `patch_wandb_init_for_lineage` is given is recorded by us.

Known: nemotron.kit.wandb_kit of August 2026.
"""

from __future__ import annotations

import functools

from .. import notice
from ..status import INSTALLED, Status
from . import lineage

NAME = "kit"
MODULE = "nemotron.kit.wandb_kit"

_CHECKPOINTS = (
    "patch_wandb_checkpoint_logging",
    "patch_nemo_rl_checkpoint_logging",
    "patch_manifest_checkpoint_logging",
    "patch_checkpoint_logging_both",
    "patch_manifest_nemo_rl_checkpoint_logging",
    "patch_nemo_rl_checkpoint_logging_both",
)
_said = set()


def apply(module):
    """Replace the functions that `module` has. Returns a `Status`."""
    for name in _CHECKPOINTS:
        if callable(getattr(module, name, None)):
            setattr(module, name, _stands_back(getattr(module, name), _nothing))
    if callable(getattr(module, "patch_wandb_init_for_lineage", None)):
        original = module.patch_wandb_init_for_lineage
        module.patch_wandb_init_for_lineage = _stands_back(original, _record)
    return Status(NAME, INSTALLED, "")


def _nothing(*_args, **_kwargs):
    return None


def _record(artifact_qualified_names=(), tags=None):
    lineage.add(artifact_qualified_names, tags)


def _stands_back(original, instead):
    @functools.wraps(original)
    def function(*args, **kwargs):
        if original.__name__ not in _said:
            _said.add(original.__name__)
            notice.info("%s does nothing here: nemotron-exec's own patch is active" % original.__name__)
        return instead(*args, **kwargs)

    return function
