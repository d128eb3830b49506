"""What nemotron-exec runs in every Python of a job, at interpreter start. The only importable name on our PYTHONPATH.

Three things, in this order: an import hook for the frameworks that we patch, the translation of `/nemo_run` where the
job runs outside the container that has it, and the `sitecustomize` that this one hides. Nothing is imported that the
interpreter has not loaded already: every process of every rank pays for this file. What is to be patched, and how, lies
in payload/, which is loaded when a framework is.
"""

import sys

# site has imported os before it imports us.
os = sys.modules["os"]

# As it stands on sys.path, so that it can be found there.
_HERE = os.path.dirname(__file__)
_PAYLOAD = os.path.join(os.path.abspath(_HERE), "payload")

# Module that a patch hooks: name of the patch, which is a module of payload/patches (dashes for underscores).
_PATCHES = {
    "wandb.sdk.wandb_init": "lineage",
    "megatron.bridge.training.utils.wandb_utils": "megatron-bridge",
    "nemo_rl.utils.checkpoint": "nemo-rl",
}


class _Finder:
    """First on sys.meta_path: a miss is one look-up in a dictionary. No lock, no import."""

    # By this a second copy of this file, of a launcher inside a launcher, knows that the hooks are there already.
    nemotron_exec = True

    def __init__(self, hooks):
        self.hooks = hooks
        self.asked = set()

    def find_spec(self, name, path=None, target=None):
        """The spec that the other finders give, its loader told to call us when the module has been executed."""
        if name in self.hooks:
            return self.hooks[name](self, name, path, target)
        return None

    def ask_others(self, name, path, target):
        """What the import system would find without us."""
        if name in self.asked:
            # Another hook of our kind asks all finders in turn, and so asks us what we are asking it.
            return None
        self.asked.add(name)
        try:
            for finder in sys.meta_path:
                find_spec = getattr(finder, "find_spec", None) if finder is not self else None
                spec = find_spec(name, path, target) if find_spec is not None else None
                if spec is not None:
                    return spec
        finally:
            self.asked.discard(name)
        return None


def _patched(finder, name, path, target):
    """A framework's module: its own spec, patched right after it has been executed, once."""
    spec = finder.ask_others(name, path, target)
    loader = getattr(spec, "loader", None)
    execute = getattr(loader, "exec_module", None)
    if execute is None or isinstance(loader, type):
        return spec

    def exec_module(module):
        if module.__name__ != name:
            # A zipimporter is one instance for all modules of its archive.
            return execute(module)
        # The loader looks as without us from here on: to reload, to inspect, to whoever wraps it next.
        if loader.__dict__.get("exec_module") is exec_module:
            del loader.exec_module
        execute(module)
        finder.hooks.pop(name, None)
        _apply(name, module)
        return None

    try:
        loader.exec_module = exec_module
    except AttributeError:
        pass
    return spec


def _apply(name, module):
    """Run the patch of a module. Whatever goes wrong in it is ours to report, and never the job's to suffer."""
    try:
        __import__("_nemotron_exec.apply")
        sys.modules["_nemotron_exec.apply"].apply(_PATCHES[name], module)
    except BaseException as error:
        _failed("patch " + name, error)


def _failed(what, error):
    if isinstance(error, KeyboardInterrupt) or os.environ.get("NEMOTRON_EXEC_STRICT") == "1":
        raise error
    try:
        sys.stderr.write("nemotron-exec: warning: could not %s: %s: %s\n" % (what, type(error).__name__, error))
    except Exception:  # no stderr, no warning
        pass


def _payload(finder, name, path, target):
    """The private package in which the patches lie; its modules are found on its own path."""
    bootstrap = sys.modules["_frozen_importlib_external"]
    return bootstrap.spec_from_file_location(
        name, os.path.join(_PAYLOAD, "__init__.py"), submodule_search_locations=[_PAYLOAD]
    )


class _Nothing:
    """Finds nothing in our directory, whatever lies in it.

    The entry stays on sys.path, for those who hand that on to a child; but it offers no name once this file has been
    loaded, and costs no stat(2) for each import of each process, on what may be a shared file system.
    """

    def find_spec(self, name, target=None):
        """Not here."""
        return None


def _install():
    disabled = os.environ.get("NEMOTRON_EXEC_DISABLED_PATCHES")
    disabled = disabled.replace(" ", "").split(",") if disabled else ()
    hooks = {"_nemotron_exec": _payload}
    for name, patch in _PATCHES.items():
        if patch not in disabled:
            hooks[name] = _patched
    sys.meta_path.insert(0, _Finder(hooks))
    for name in _PATCHES:
        # A .pth file may have imported it before us.
        if name in hooks and name in sys.modules:
            del hooks[name]
            _apply(name, sys.modules[name])
    if "NEMO_RUN_DIR" in os.environ and "nemo-run" not in disabled and not os.path.lexists("/nemo_run"):
        __import__("_nemotron_exec.nemo_run")
        sys.modules["_nemotron_exec.nemo_run"].translate_process()


def _chain():
    """Run the sitecustomize that we hide, as the interpreter would have run it; its errors are its own."""
    ours = sys.modules.pop("sitecustomize", None)
    path = sys.path
    at = [index for index, entry in enumerate(path) if entry == _HERE]
    path[:] = [entry for entry in path if entry != _HERE]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        for index in at:
            path.insert(index, _HERE)
        sys.path_importer_cache[_HERE] = _Nothing()


if "NEMOTRON_EXEC_ACTIVE" in os.environ and os.environ.get("NEMOTRON_EXEC_DISABLE") != "1":
    try:
        if not any(getattr(finder, "nemotron_exec", False) for finder in sys.meta_path):
            _install()
    except BaseException as error:
        _failed("install its import hooks", error)
_chain()
