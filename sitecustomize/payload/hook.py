"""The part of the import hook that the interpreter's start does not need. The finder loads it with a framework."""

from __future__ import annotations

import os
import sys

_asked = set()


def find_spec(ours, name, path, target):
    """The spec of a framework's module, from the other finders. Its loader patches the module right after execution.

    A reload, or a new import, comes through here again, and patches the module again.

    Args:
        ours: The injector's finder.
        name: As for every finder's `find_spec`.
        path: As for every finder's `find_spec`.
        target: As for every finder's `find_spec`.
    """
    spec = _ask_others(ours, name, path, target)
    if ours.hooks.get(name) is None:
        return _served(name, spec)
    loader = getattr(spec, "loader", None)
    # zipimport's loaders have exec_module from Python 3.10 on.
    method = next((one for one in ("exec_module", "load_module") if hasattr(loader, one)), None)
    if method is None or isinstance(loader, type):
        return spec
    execute = getattr(loader, method)

    def once(module_or_name):
        if getattr(module_or_name, "__name__", module_or_name) != name:
            # One zipimporter loads all modules of its archive: the others are not patched here.
            return execute(module_or_name)
        # Restore the loader: reload, inspect and other tools that wrap it see it as without the injector.
        if loader.__dict__.get(method) is once:
            delattr(loader, method)
        result = execute(module_or_name)
        patch(ours, name, module_or_name if method == "exec_module" else result)
        return result

    try:
        setattr(loader, method, once)
    except AttributeError as error:
        ours.failed("patch %s" % name, error)
    return spec


def _served(name, theirs):
    """The spec of the Python API, for a name that the job's environment does not have.

    A namespace package (a folder of that name on sys.path) does not hide the API: its modules are found first, then the
    injector's.
    """
    portions = []
    if theirs is not None:
        if theirs.origin is not None or theirs.submodule_search_locations is None:
            return theirs
        portions = list(theirs.submodule_search_locations)
    directory = os.path.join(os.path.dirname(__file__), "public", name)
    return sys.modules["_frozen_importlib_external"].spec_from_file_location(
        name, os.path.join(directory, "__init__.py"), submodule_search_locations=[*portions, directory]
    )


def patch(ours, name, module):
    """Run the patch of `module`. A patch wraps a function only once. A fault is reported, and not raised."""
    which = ours.hooks.get(name)
    if which is None:
        return
    try:
        from . import apply

        apply.apply(which, module)
    except BaseException as error:
        ours.failed("patch " + name, error)


def _ask_others(ours, name, path, target):
    """The spec that the import system would find without the injector."""
    if name in _asked:
        # Another tool's hook may ask all finders in turn, this one included. Without this check the two would call each
        # other for ever.
        return None
    _asked.add(name)
    try:
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None) if finder is not ours else None
            spec = find_spec(name, path, target) if find_spec is not None else None
            if spec is not None:
                return spec
    finally:
        _asked.discard(name)
    return None
