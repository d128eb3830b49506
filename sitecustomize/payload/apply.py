"""Runs the patch of a module that has just been imported; called by sitecustomize.py."""

from __future__ import annotations

import importlib

STATUS = {}
"""What has become of each patch in this process, by its name."""


def apply(name, module):
    """Apply the patch `name` (as in NEMOTRON_EXEC_DISABLED_PATCHES) to `module`."""
    patch = importlib.import_module("." + name.replace("-", "_"), __package__ + ".patches")
    STATUS[name] = patch.apply(module)
