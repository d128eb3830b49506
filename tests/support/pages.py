"""The tools of docs/tools/ as modules, loaded once in a process: some read the whole source tree."""

from __future__ import annotations

import importlib.util
import sys

from places import ROOT


def tool(name):
    """The module `docs/tools/NAME.py`."""
    key = f"docs_tools_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, ROOT / "docs/tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]
