"""Runs the sitecustomize that the injector's sitecustomize.py hides. The file parses under Python 2, too."""

import sys


def _chain(here):
    """Run the hidden sitecustomize as the interpreter would have run it. Its errors are not caught."""
    path, modules = sys.path, sys.modules
    running = modules.pop("sitecustomize", None)
    ours = (getattr(running, "__file__", None) or "").rpartition("/")[0] == here
    at = [index for index, entry in enumerate(path) if entry == here]
    try:
        spec = _behind(path, at) if "_frozen_importlib" in modules else None
        path[:] = [entry for entry in path if entry != here]
        if spec is not None:
            modules["_frozen_importlib"]._load(spec)
        elif "_frozen_importlib" not in modules:
            _import()
    finally:
        # Another tool's sitecustomize may have run this one. Its import is not over, and needs its entry in
        # sys.modules.
        if running is not None and not (ours and "sitecustomize" in modules):
            modules["sitecustomize"] = running
        for index in at:
            path.insert(index, here)


def _behind(path, at):
    """The spec of the sitecustomize behind the injector's entry of sys.path; None where there is none.

    A sitecustomize before that entry belongs to a tool that runs the injector, or that tool has passed over it.
    """
    whole = path[:]
    path[:] = path[at[0] + 1 :] if at else path
    try:
        spec = sys.modules["_frozen_importlib"]._find_spec("sitecustomize", None)
    finally:
        path[:] = whole
    frame = sys._getframe() if spec is not None else None
    while frame is not None:
        if frame.f_code.co_filename == spec.origin:
            return None  # it is the tool that runs the injector
        frame = frame.f_back
    return spec


def _import():
    # Python 2 has no importlib: a plain import finds the next sitecustomize.
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if str(error).rpartition(" ")[2] != "sitecustomize":
            raise


_chain(__file__.rpartition("/payload/")[0])
