"""What nemotron-exec runs in every Python of a job, at interpreter start. The only importable name on our PYTHONPATH.

Three things, in this order: an import hook for the frameworks that we patch, the translation of `/nemo_run` where the
job runs outside the container that has it, and the `sitecustomize` that this one hides. Nothing is imported that the
interpreter has not loaded already, and nothing is defined that a start does not need: every process of every rank pays
for this file. The rest, and what is to be patched and how, lies in payload/, which is loaded when a framework is.
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


def find_spec(name, path=None, target=None):
    """This module is itself the finder, first on sys.meta_path. A miss is one look-up: no lock, no import."""
    if name not in hooks:
        return None
    if name == "_nemotron_exec":
        return _payload(name)
    try:
        return _hook().find_spec(_this, name, path, target)
    except BaseException as error:
        failed("hook the import of " + name, error)
        return None


def _payload(name):
    """The package in which the patches lie; its modules are found on its own path."""
    payload = sys.modules["os"].path.abspath(__file__).rpartition("/")[0] + "/payload"
    return sys.modules["_frozen_importlib_external"].spec_from_file_location(
        name, payload + "/__init__.py", submodule_search_locations=[payload]
    )


def _find_in_our_directory(name, target=None):
    """Nothing, but for a launcher inside the job: our directory is a package of its own package."""
    return _payload(name) if name == "nemotron_exec.sitecustomize.payload" else None


def failed(what, error):
    """Whatever goes wrong in us is ours to report, and never the job's to suffer."""
    if isinstance(error, KeyboardInterrupt) or sys.modules["os"].environ.get("NEMOTRON_EXEC_STRICT") == "1":
        raise error
    try:
        sys.stderr.write("nemotron-exec: warning: could not %s: %s: %s\n" % (what, type(error).__name__, error))
    except Exception:  # no stderr, no warning
        pass


def _hook():
    __import__("_nemotron_exec.hook")
    return sys.modules["_nemotron_exec.hook"]


def _install(os):
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
            _hook().patch(_this, name, sys.modules[name])
    if "NEMO_RUN_DIR" in os.environ and "nemo-run" not in disabled and not os.path.lexists("/nemo_run"):
        __import__("_nemotron_exec.nemo_run")
        sys.modules["_nemotron_exec.nemo_run"].translate_process()


def _hides_one(here, exists):
    """Whether there may be another sitecustomize. "No" is certain: these are the files that an import looks for.

    An import that fails lists every directory of sys.path, which a start pays for and a short process never needs.
    """
    if len(sys.meta_path) > (4 if _this in sys.meta_path else 3) or len(sys.path_hooks) > 2:
        # Finders of others may find one anywhere.
        return True
    names = ["/sitecustomize" + suffix for suffix in sys.modules["_imp"].extension_suffixes()]
    names += ["/sitecustomize.py", "/sitecustomize.pyc", "/sitecustomize"]
    for entry in sys.path:
        if entry == here:
            continue
        if entry[:1] != "/":
            return True
        if not exists(entry + "/.", 0):
            # No directory: an archive, a part of one, or nothing at all, as the standard library's.
            if exists(entry, 0) or not exists(entry.rpartition("/")[0] + "/.", 0):
                return True
            continue
        for name in names:
            if exists(entry + name, 0):
                return True
    return False


def _chain(here):
    """Run the sitecustomize that we hide, as the interpreter would have run it; its errors are its own."""
    ours = sys.modules.pop("sitecustomize", None)
    path = sys.path
    at = [index for index, entry in enumerate(path) if entry == here]
    path[:] = [entry for entry in path if entry != here]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        # Python 2 has only the message.
        if getattr(error, "name", str(error).rpartition(" ")[2]) != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        for index in at:
            path.insert(index, here)


def _start(os):
    supported = sys.version_info >= (3, 8)
    if supported and "NEMOTRON_EXEC_ACTIVE" in os.environ and os.environ.get("NEMOTRON_EXEC_DISABLE") != "1":
        try:
            for finder in sys.meta_path:
                if getattr(finder, "nemotron_exec", False):
                    break
            else:
                _install(os)
        except BaseException as error:
            try:
                failed("install its import hooks", error)
            except Exception:
                # site would print any other exception and go on.
                sys.stderr.write("nemotron-exec: could not install its import hooks: %r\n" % (error,))
                raise SystemExit(1)  # noqa: B904 (this file also parses under Python 2)
    # As it stands on sys.path, so that it can be found there.
    here = os.path.dirname(__file__)
    try:
        if not supported or _hides_one(here, os.access):
            _chain(here)
    finally:
        # The entry stays on sys.path, for those who hand that on to a child; but it offers no name once this file has
        # been loaded, and costs no stat(2) for each import of each process, on what may be a shared file system. The
        # type is types.SimpleNamespace, which nothing has imported yet.
        if supported:
            sys.path_importer_cache[here] = type(sys.implementation)(  # type: ignore[call-arg]
                find_spec=_find_in_our_directory
            )


_this = sys.modules[__name__]
# site has imported os before it imports us.
_start(sys.modules["os"])
