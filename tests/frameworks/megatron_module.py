"""Imports Megatron-Bridge's own `wandb_utils` module without the packages of a GPU image.

`install()`  the installed package (requirements/frameworks.txt): everything is real but `megatron/bridge/__init__.py`,
             which imports far more than this module needs, and is replaced by an empty one. Needs torch, takes seconds.
`light()`    the same file of the installed package, with its one import (a print that knows ranks) replaced: no
             torch, milliseconds. For tests that start many processes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types

MODULE = "megatron.bridge.training.utils.wandb_utils"


def _folder() -> str:
    spec = importlib.util.find_spec("megatron")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if os.path.isdir(os.path.join(place, "bridge")):
            return os.path.join(place, "bridge")
    raise ModuleNotFoundError("megatron.bridge: pip install --no-deps -r requirements/frameworks.txt")


def install() -> types.ModuleType:
    """The module with its real dependencies."""
    if "megatron.bridge" not in sys.modules:
        package = types.ModuleType("megatron.bridge")
        package.__path__ = [_folder()]
        sys.modules["megatron.bridge"] = package
    return importlib.import_module(MODULE)


def light() -> types.ModuleType:
    """The module's own file, without torch."""
    folder = _folder()
    for name, path in (
        ("megatron.bridge", folder),
        ("megatron.bridge.utils", os.path.join(folder, "utils")),
        ("megatron.bridge.training", os.path.join(folder, "training")),
        ("megatron.bridge.training.utils", os.path.join(folder, "training", "utils")),
    ):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules.setdefault(name, package)
    common = types.ModuleType("megatron.bridge.utils.common_utils")
    common.print_rank_last = lambda message: print(message, flush=True)
    sys.modules.setdefault(common.__name__, common)
    return importlib.import_module(MODULE)
