"""Runs the patch of a module that has just been imported; called by sitecustomize.py."""

from __future__ import annotations

import importlib

from . import noted, notice
from .status import INSTALLED, STOOD_DOWN, WAITING, Status

STATUS: dict[str, Status] = {}
"""The state of each patch in this process, by the patch's name."""


def apply(name, module):
    """Apply the patch `name` (as in NEMOTRON_EXEC_DISABLED_PATCHES) to `module`."""
    patch = importlib.import_module("." + name.replace("-", "_"), __package__ + ".patches")
    status = patch.apply(module)
    # A patch may wait for several modules. Its first application decides its status; a later one may still warn.
    if name not in STATUS or status.state == STOOD_DOWN:
        STATUS[name] = status
        noted.note("patch", patch=name, state=status.state, reason=status.reason)
    if status.state == STOOD_DOWN:
        notice.warning("patch %s stands down: %s" % (name, status.reason))
    elif status.state == INSTALLED and status.reason:
        notice.info("patch %s: %s" % (name, status.reason))


def report(patches):
    """The state of each patch in this process, for `--doctor`.

    Args:
        patches: `{module: name of the patch}`, as sitecustomize.py hooks them.

    Returns:
        A `Status` for each, in that order; "waiting" where the job has not imported the module.
    """
    waiting = {}
    for module, name in patches.items():
        waiting.setdefault(name, module)
    return [STATUS.get(name) or Status(name, WAITING, "for %s" % module) for name, module in waiting.items()]
