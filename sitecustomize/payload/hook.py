"""The half of the import hook that a start does not need: loaded by the finder when a framework is imported."""

from __future__ import annotations

import os
import sys

_asked = set()


def find_spec(ours, name, path, target):
    """A framework's module: the spec that the other finders give, patched right after it has been executed.

    A module that is reloaded, or imported anew, is found anew, and patched again.

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
            # A zipimporter is one instance for all modules of its archive.
            return execute(module_or_name)
        # From here on the loader looks as without the injector: to reload, to inspect, to the next tool that wraps it.
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
    """The Python API, under a name that the job's own environment does not have.

    A folder of that name on sys.path, a namespace package, does not hide the API: its modules are found first, and the
    injector's after them.
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
    """Run the patch of `module`, which leaves alone what it has wrapped. Report each fault, and raise none."""
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
        # Another hook of this kind asks all finders in turn, this one included: without this check they never end.
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
