"""Handles scripts that replace a function which a patch has wrapped: the script's function is wrapped, too.

Scripts replace a framework's callbacks with functions of their own, and know nothing of nemotron-exec:

    wandb_utils.on_save_checkpoint_success = mine
    CheckpointManager.finalize_checkpoint = mine

The framework calls the script's function from then on. The checkpoint must be recorded all the same, once. `keep` wraps
whatever a module's attribute holds when it is read. `logged_meanwhile` watches for an artifact that the script itself
logs to W&B for the same checkpoint. That artifact and its name are taken over, and no second one is logged.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading

from .. import notice
from ..checkpoints import deliver, delivery, record

__all__ = [
    "MARK",
    "Watch",
    "inside",
    "is_wrapper",
    "keep",
    "logged_meanwhile",
    "mark",
    "recorded_once",
    "trying",
    "watch_run",
]

MARK = "_nemotron_exec_original"
_SELF = "_nemotron_exec_wrapper"
_open = threading.local()


def mark(wrapper, original):
    """Note that `wrapper` wraps `original`. A function to which `functools.wraps` copies the note is no wrapper."""
    setattr(wrapper, MARK, original)
    setattr(wrapper, _SELF, wrapper)


def is_wrapper(function):
    """Whether `mark` was told of `function`."""
    return getattr(function, _SELF, None) is function


def keep(module, name, wrap):
    """Keep `module.name` a wrapper: after an assignment by a script, and after a reload.

    Args:
        module: The module; it gets a class of its own, with a property of that name.
        name: The attribute.
        wrap: `wrap(function)` gives the wrapper, marked.
    """

    def get(self):
        try:
            value = self.__dict__[name]
        except KeyError:
            raise AttributeError("module %r has no attribute %r" % (self.__name__, name)) from None
        if callable(value) and not is_wrapper(value):
            try:
                value = self.__dict__[name] = wrap(value)
            except Exception as error:
                notice.warning("%s.%s, which something has replaced, is not wrapped: %r" % (self.__name__, name, error))
        return value

    def put(self, value):
        self.__dict__[name] = value

    def delete(self):
        del self.__dict__[name]

    kind = type(module)
    try:
        module.__class__ = type(kind.__name__, (kind,), {name: property(get, put, delete)})
    except TypeError as error:
        notice.debug("an assignment over %s.%s will not be seen: %r" % (module.__name__, name, error))


class Watch:
    """Watches for the artifact that a script logs to W&B while its own function runs for one checkpoint.

    Args:
        entry: The checkpoint's outbox entry.
        renamed_from: Its directory before the framework renames it; None without a rename.
    """

    def __init__(self, entry, renamed_from=None):
        self.entry = entry
        self.handle = None
        self.name = None
        paths = [entry["checkpoint_path"], entry["local_path"], renamed_from]
        self._below = [path for path in map(_plain, paths) if path]
        self._named = self._below + [path for path in map(_plain, (entry["path"], entry["save_dir"])) if path]

    def concerns(self, artifact):
        """Whether an artifact that is about to be logged is of this checkpoint, by its references or metadata."""
        metadata = dict(getattr(artifact, "metadata", None) or {})
        number = metadata.get("iteration", metadata.get("step"))
        if number is not None and number != self.entry["iteration"]:
            return False
        entries = getattr(getattr(artifact, "manifest", None), "entries", None) or {}
        for one in entries.values():
            path = _plain(getattr(one, "ref", None) or getattr(one, "local_path", None))
            if path and any(path == below or path.startswith(below + "/") for below in self._below):
                return True
        told = [_plain(metadata.get(key)) for key in ("checkpoint_path", "absolute_path", "path")]
        return any(path in self._named for path in told if path)

    def complete(self, artifact):
        """Add the fields that the next job needs to the script's artifact. The script's own values stay."""
        merged = delivery.wandb_metadata(self.entry)
        merged.update(artifact.metadata or {})
        artifact.metadata = merged
        delivery.add_metadata_file(artifact, self.entry)

    def adopt(self, artifact, handle):
        """Take over the artifact that the script has logged."""
        self.handle, self.name = handle, str(artifact.name).partition(":")[0]


def _plain(path):
    if not isinstance(path, (str, os.PathLike)):
        return None
    path = os.fspath(path)
    return os.path.realpath(path[len("file://") :] if path.startswith("file://") else path)


def inside():
    """Whether a script's function is running on this thread inside `recorded_once`."""
    return bool(getattr(_open, "watches", None))


def recorded_once(checkpoint_path, call, announce, failed=None, renamed_from=None):
    """Call a script's function for a completed checkpoint, and record the checkpoint once, as the script names it.

    Args:
        checkpoint_path: For messages.
        call: The script's function, without arguments. What it raises is raised.
        announce: `announce()` gives a `record.Announced`, or None where the checkpoint is not to be recorded.
        failed: `failed()` tells, after `call` has raised, whether there is no checkpoint; None if there always is one.
        renamed_from: The checkpoint's directory before `call` renames it.

    Returns:
        What `call` returns.
    """
    announced = trying(checkpoint_path, announce)
    if announced is None:
        return call()
    watch = Watch(announced.entry, renamed_from)
    before = trying(checkpoint_path, record.highest, announced.entry)
    lost = False
    try:
        with logged_meanwhile(watch):
            return call()
    except BaseException:
        lost = failed is not None and failed()
        raise
    finally:
        if lost:
            trying(checkpoint_path, record.withdraw, announced)
        else:
            trying(checkpoint_path, _finish, announced, watch, before)


def _finish(announced, watch, before):
    if watch.name is not None:
        announced = record.take_over(announced, watch.name)
    recorded = record.complete(announced, before)
    deliver.deliver(recorded, handle=watch.handle)


def trying(checkpoint_path, function, *args):
    """The result of a function. If it raises: None and a warning, so that the framework's save goes on."""
    try:
        return function(*args)
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("checkpoint %s is not recorded as an artifact: %r" % (checkpoint_path, error))
        return None


@contextlib.contextmanager
def logged_meanwhile(watch):
    """A context in which artifacts that this thread logs are compared with the checkpoint of `watch`."""
    stack = _open.__dict__.setdefault("watches", [])
    stack.append(watch)
    try:
        yield watch
    finally:
        stack.remove(watch)


def watch_run(run_class):
    """Wrap the method that all methods of `wandb.Run` for logging an artifact call. Idempotent.

    Known: `_log_artifact(artifact_or_path, …)` of wandb 0.22 to 0.31.
    """
    name = "_log_artifact" if "_log_artifact" in vars(run_class) else "log_artifact"
    original = vars(run_class).get(name)
    if original is None or hasattr(original, MARK):
        return

    @functools.wraps(original)
    def log(self, *args, **kwargs):
        artifact = args[0] if args else None
        watches = [one for one in getattr(_open, "watches", ()) if _asks(one, artifact)]
        for one in watches:
            try:
                one.complete(artifact)
            except Exception as error:
                notice.debug("the script's artifact stays as it is: %r" % (error,))
        handle = original(self, *args, **kwargs)
        for one in watches:
            one.adopt(artifact, handle)
        return handle

    setattr(log, MARK, original)
    setattr(run_class, name, log)


def _asks(watch, artifact):
    try:
        return hasattr(artifact, "add_reference") and watch.concerns(artifact)
    except Exception as error:
        notice.debug("not compared with the checkpoint: %r" % (error,))
        return False
