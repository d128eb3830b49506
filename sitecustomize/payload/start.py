"""The part of sitecustomize.py that only a job needs: the import hook and its installation.

Every process of every rank pays for this file, too. The code that handles a found module lies in hook.py, which is
loaded when a framework is.
"""

import sys

# No global may refer to os. A finder's references live until the interpreter ends, and then it would clear os item by
# item, which costs more than the rest of this file.

# Maps a hooked module to the name of its patch, a module of payload/patches (dashes for underscores).
_PATCHES = {
    "wandb.sdk.wandb_init": "lineage",
    "megatron.bridge.training.utils.wandb_utils": "megatron-bridge",
    "megatron.bridge.models.conversion.auto_bridge": "megatron-bridge",
    "megatron.bridge.training.checkpointing": "megatron-bridge",
    "modelopt.torch.export.unified_export_hf": "modelopt",
    "modelopt.torch.export.unified_export_megatron": "modelopt",
    "megatron.training.wandb_utils": "megatron-lm",
    "nemo_rl.utils.checkpoint": "nemo-rl",
    "nemo_automodel.components.checkpoint.lifecycle": "automodel",
    "nemo_automodel.recipes.base_recipe": "automodel",
    "omegaconf": "resolvers",
    "nemotron.kit.wandb_kit": "kit",
    "ray._private.utils": "ray",
    "ray.util.client": "ray",
    "ray._private.worker": "ray",
    "nemo_runspec.config.resolvers": "kit",
}


def _finder(name, path=None, target=None):
    """The finder, first on sys.meta_path. For a name without a hook it costs one look-up, without lock or import.

    A class would cost each start more than this function with attributes.
    """
    if name not in _finder.hooks:
        return None
    if name == "_nemotron_exec":
        # This package has the patches. Its modules are found on its `__path__`.
        payload = __file__.rpartition("/")[0]
        return sys.modules["_frozen_importlib_external"].spec_from_file_location(
            name, payload + "/__init__.py", submodule_search_locations=[payload]
        )
    try:
        __import__("_nemotron_exec.hook")
        return sys.modules["_nemotron_exec.hook"].find_spec(_finder, name, path, target)
    except BaseException as error:
        _failed("hook the import of " + name, error)
        return None


# Names that the finder handles: the package of the patches, the Python API if the job's environment does not have it,
# and the modules that patches hook.
_finder.hooks = dict.fromkeys(("_nemotron_exec", "nemotron_exec", "nemotron"))
_finder.find_spec = _finder
# With a launcher inside a launcher, a second copy of this file sees by this attribute that the hooks are installed.
_finder.nemotron_exec = True


def _failed(what, error):
    """Report a fault of the injector without breaking the job."""
    text = sys.modules["os"].environ.get("NEMOTRON_EXEC_STRICT", "")
    try:
        from _nemotron_exec.flags import is_on

        strict = is_on(text)
    except Exception:  # this import itself may be broken
        strict = text == "1"
    if isinstance(error, KeyboardInterrupt) or strict:
        raise error
    try:
        sys.stderr.write("nemotron-exec: warning: could not %s: %s: %s\n" % (what, type(error).__name__, error))
    except Exception:  # without stderr there is no warning
        pass


_finder.failed = _failed


def _install(os):
    for finder in sys.meta_path:
        if getattr(finder, "nemotron_exec", False):
            return
    disabled = os.environ.get("NEMOTRON_EXEC_DISABLED_PATCHES")
    disabled = disabled.replace(" ", "").split(",") if disabled else ()
    for name, patch in _PATCHES.items():
        if patch not in disabled:
            _finder.hooks[name] = patch
    sys.meta_path.insert(0, _finder)  # type: ignore[arg-type]
    for name in _PATCHES:
        # A .pth file may have imported the module before this file ran.
        if name in sys.modules:
            __import__("_nemotron_exec.hook")
            sys.modules["_nemotron_exec.hook"].patch(_finder, name, sys.modules[name])
    if "NEMOTRON_EXEC_OUTPUTS" in os.environ and os.environ["NEMOTRON_EXEC_OUTPUTS"] == str(os.getpid()):
        __import__("_nemotron_exec.checkpoints.outputs")
        sys.modules["_nemotron_exec.checkpoints.outputs"].arm()
    if "NEMO_RUN_DIR" in os.environ and "nemo-run" not in disabled and not os.path.lexists("/nemo_run"):
        __import__("_nemotron_exec.paths.nemo_run")
        sys.modules["_nemotron_exec.paths.nemo_run"].translate_process()


try:
    _install(sys.modules["os"])
except BaseException as error:
    try:
        _failed("install its import hooks", error)
    except Exception:
        # Only SystemExit ends the process here: site prints any other exception and goes on.
        if sys.stderr is not None:
            sys.stderr.write("nemotron-exec: could not install its import hooks: %r\n" % (error,))
        raise SystemExit(1) from None
