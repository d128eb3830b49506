"""The part of sitecustomize.py that only a job needs, run in its namespace: the import hook, and what installs it.

Every process of every rank pays for this file, too. What is done to a module that has been found lies in hook.py, which
is loaded when a framework is.
"""

import sys

# No global may lead to os: what a finder holds on to lives until the very end, and the interpreter then takes that
# module apart item by item, which costs more than all the rest of this file.

# Module that a patch hooks: name of the patch, which is a module of payload/patches (dashes for underscores).
_PATCHES = {
    "wandb.sdk.wandb_init": "lineage",
    "megatron.bridge.training.utils.wandb_utils": "megatron-bridge",
    "nemo_rl.utils.checkpoint": "nemo-rl",
    "omegaconf": "resolvers",
    "nemotron.kit.wandb_kit": "kit",
}

# What the finder answers for; empty where it is not installed.
hooks = {}

# By this a second copy of this file, of a launcher inside a launcher, knows that the hooks are there already.
nemotron_exec = True

_this = sys.modules[__name__]


def find_spec(name, path=None, target=None):
    """This module is itself the finder, first on sys.meta_path. A miss is one look-up: no lock, no import."""
    if name not in hooks:
        return None
    if name == "_nemotron_exec":
        # The package in which the patches lie; its modules are found on its own path.
        payload = sys.modules["os"].path.abspath(__file__).rpartition("/")[0] + "/payload"
        return sys.modules["_frozen_importlib_external"].spec_from_file_location(
            name, payload + "/__init__.py", submodule_search_locations=[payload]
        )
    try:
        __import__("_nemotron_exec.hook")
        return sys.modules["_nemotron_exec.hook"].find_spec(_this, name, path, target)
    except BaseException as error:
        failed("hook the import of " + name, error)
        return None


def failed(what, error):
    """Whatever goes wrong in us is ours to report, and never the job's to suffer."""
    if isinstance(error, KeyboardInterrupt) or sys.modules["os"].environ.get("NEMOTRON_EXEC_STRICT") == "1":
        raise error
    try:
        sys.stderr.write("nemotron-exec: warning: could not %s: %s: %s\n" % (what, type(error).__name__, error))
    except Exception:  # no stderr, no warning
        pass


def _install(os):
    for finder in sys.meta_path:
        if getattr(finder, "nemotron_exec", False):
            return
    disabled = os.environ.get("NEMOTRON_EXEC_DISABLED_PATCHES")
    disabled = disabled.replace(" ", "").split(",") if disabled else ()
    # Served where the job's own environment has none of that name: the patches, and the Python API.
    hooks["_nemotron_exec"] = hooks["nemotron_exec"] = hooks["nemotron"] = None
    for name, patch in _PATCHES.items():
        if patch not in disabled:
            hooks[name] = patch
    sys.meta_path.insert(0, _this)
    for name in _PATCHES:
        # A .pth file may have imported it before us.
        if name in sys.modules:
            __import__("_nemotron_exec.hook")
            sys.modules["_nemotron_exec.hook"].patch(_this, name, sys.modules[name])
    if "NEMO_RUN_DIR" in os.environ and "nemo-run" not in disabled and not os.path.lexists("/nemo_run"):
        __import__("_nemotron_exec.nemo_run")
        sys.modules["_nemotron_exec.nemo_run"].translate_process()


try:
    _install(sys.modules["os"])
except BaseException as error:
    try:
        failed("install its import hooks", error)
    except Exception:
        # site would print any other exception and go on.
        sys.stderr.write("nemotron-exec: could not install its import hooks: %r\n" % (error,))
        raise SystemExit(1) from None
