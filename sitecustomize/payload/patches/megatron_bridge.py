"""Megatron-Bridge: a saved checkpoint becomes an artifact that the next job can find.

Wraps `megatron.bridge.training.utils.wandb_utils.on_save_checkpoint_success`, which Megatron-Bridge calls on the last
rank, in the training thread, when a checkpoint is complete on disk, for synchronous and asynchronous saves.

Why: the function logs a W&B artifact whose metadata has neither a path that the next job could use nor, for
asynchronous saves up to 0.6.2, the right iteration; it does not wait for the commit, so that preemption loses it; and
without a W&B project it does nothing.

Known: 0.1.0rc4 to 0.6.2 and main of August 2026: (checkpoint_path, save_dir, iteration, wandb_writer), called as an
attribute of the module. Stands down where these four are not the first parameters.

Can go when Megatron-Bridge records `absolute_path` and waits by itself; what it does by itself already is seen for each
call, from what it does with its W&B writer, and not done again.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import types

from .. import checkpoint, delivery, notice
from ..status import INSTALLED, STOOD_DOWN, Status

NAME = "megatron-bridge"
MODULE = "megatron.bridge.training.utils.wandb_utils"
FUNCTION = "on_save_checkpoint_success"
PARAMETERS = ("checkpoint_path", "save_dir", "iteration", "wandb_writer")

_MARK = "_nemotron_exec_original"
_last: dict[str, tuple[str, int, checkpoint.Recorded | None]] = {}  # save directory: its newest checkpoint


def apply(module):
    """Wrap the function in `module` and wherever its name has been imported already. Idempotent.

    Returns:
        A `Status`.
    """
    original = getattr(module, FUNCTION, None)
    if original is None:
        return Status(NAME, STOOD_DOWN, "%s has no %s" % (module.__name__, FUNCTION))
    if hasattr(original, _MARK):
        return Status(NAME, INSTALLED, "")
    try:
        signature = inspect.signature(original)
    except (TypeError, ValueError) as error:
        return Status(NAME, STOOD_DOWN, "%s has no signature: %s" % (FUNCTION, error))
    if tuple(signature.parameters)[: len(PARAMETERS)] != PARAMETERS:
        return Status(NAME, STOOD_DOWN, "%s takes %s, known is (%s)" % (FUNCTION, signature, ", ".join(PARAMETERS)))
    wrapper = _wrap(original, signature)
    setattr(module, FUNCTION, wrapper)
    _replace_imported(original, wrapper)
    return Status(NAME, INSTALLED, "")


def _wrap(original, signature):
    @functools.wraps(original)
    def on_save_checkpoint_success(*args, **kwargs):
        try:
            call = signature.bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # its own error, to its own caller
        recorded = None
        writer = call.arguments["wandb_writer"]
        proxy = None
        try:
            recorded = _record(call.arguments, sys._getframe(1))
            if recorded is not None and writer:
                proxy = call.arguments["wandb_writer"] = Writer(writer, recorded.entry)
        except Exception as error:
            _failed(call.arguments, error)
        try:
            return original(*call.args, **call.kwargs)
        finally:
            if recorded is not None:
                try:
                    checkpoint.deliver(recorded, handle=proxy and proxy.nemotron_exec_handle())
                except Exception as error:
                    _failed(call.arguments, error)

    setattr(on_save_checkpoint_success, _MARK, original)
    return on_save_checkpoint_success


def _record(arguments, frame):
    checkpoint_path = str(arguments["checkpoint_path"])
    save_dir = str(arguments["save_dir"])
    if any(part.startswith("tmp_step_") for part in re.split(r"[/\\]", checkpoint_path)):
        return None  # a part of NeMo-RL's checkpoint, which is complete only when it is renamed
    if not arguments["wandb_writer"] and checkpoint.active_run() is None and not _is_last_rank():
        return None
    number = checkpoint.number_in(checkpoint_path)
    if number is None:
        number = arguments["iteration"]
    last = _last.get(save_dir)
    if last is not None and last[:2] == (checkpoint_path, number):
        # pretrain() saves the last iteration once more at its end. No step lies in between: it is the same checkpoint,
        # and under its first event W&B takes it for what it has.
        return last[2] and last[2]._replace(path=None, settle=checkpoint.nothing_to_settle)
    recorded = checkpoint.record(
        checkpoint.Completed(
            framework="megatron-bridge",
            versions=_versions(),
            save_dir=save_dir,
            checkpoint_path=checkpoint_path,
            number=number,
            alias=checkpoint_path.rstrip("/").rsplit("/", 1)[-1],
            path_is_checkpoint=False,
            transient=_is_transient(save_dir, frame),
            best=None,
            extra={},
        )
    )
    _last[save_dir] = (checkpoint_path, number, recorded)
    return recorded


def _failed(arguments, error):
    if notice.strict():
        raise error
    notice.warning("checkpoint %s is not recorded as an artifact: %r" % (arguments.get("checkpoint_path"), error))


def _is_last_rank():
    # Every version calls the function on the last rank only; the rule is kept here for one that would not.
    distributed = sys.modules.get("torch.distributed")
    try:
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank() == distributed.get_world_size() - 1
    except Exception as error:
        notice.debug("rank unknown: %r" % (error,))
    return True


def _is_transient(save_dir, frame):
    """Whether this is a non-persistent checkpoint: the framework deletes it when the next one is there."""
    # The caller is a closure of `save_checkpoint` that holds the training state, and with it the configuration.
    try:
        config = frame.f_locals["state"].cfg.checkpoint
        named = config.non_persistent_global_ckpt_dir
        if named and config.save and str(named) == save_dir and str(config.save) != save_dir:
            return True
    except Exception as error:
        notice.debug("not called by save_checkpoint, the directory's name decides: %r" % (error,))
    return save_dir.rstrip("/").rsplit("/", 1)[-1] == "non_persistent"


@functools.lru_cache(maxsize=None)
def _versions():
    modules = {
        "megatron-bridge": "megatron.bridge",
        "megatron-core": "megatron.core",
        "torch": "torch",
        "wandb": "wandb",
    }
    return checkpoint.versions("megatron-bridge", modules)


def _replace_imported(original, wrapper):
    for module in [one for one in list(sys.modules.values()) if isinstance(one, types.ModuleType)]:
        # A lazy module would load itself if it were asked in the ordinary way.
        try:
            names = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue  # only says that it is a module: a library of cffi
        own = str(names.get("__name__", ""))
        if not (FUNCTION in names or own.startswith("megatron") or own == "__main__"):
            continue
        for name, value in list(names.items()):
            if value is original:
                names[name] = wrapper


class Writer:
    """Stands in for the `wandb` module that Megatron-Bridge keeps as its writer; everything passes through.

    What is made with its `Artifact` is completed: metadata that the framework does not set, the right iteration, our
    metadata.json. What is logged through its `run` is remembered.
    """

    def __init__(self, wandb, entry):
        object.__setattr__(self, "_wandb", wandb)
        object.__setattr__(self, "_entry", entry)
        object.__setattr__(self, "_logged", [])

    def __getattr__(self, name):
        value = getattr(self._wandb, name)
        if name == "run" and value is not None:
            return Run(value, self._entry, self._logged)
        return value

    def __setattr__(self, name, value):
        setattr(self._wandb, name, value)

    def __bool__(self):
        return bool(self._wandb)

    def Artifact(self, name, type, *args, **kwargs):  # noqa: N802, A002
        """As wandb.Artifact, with the metadata completed."""
        entry = self._entry
        if entry["wandb"] is not None and entry["wandb"]["published"]:
            name = entry["wandb"]["name"]  # `run.publish`; else the framework's own
        if not args:
            kwargs["metadata"] = completed_metadata(kwargs.get("metadata"), entry)
        return self._wandb.Artifact(name, type, *args, **kwargs)

    def log_artifact(self, *args, **kwargs):
        """As the run's, and the artifact is remembered."""
        return _log(self._wandb.log_artifact, self._entry, self._logged, args, kwargs)

    def nemotron_exec_handle(self):
        """The artifact that has been logged, or None."""
        return self._logged[-1] if self._logged else None


class Run:
    """Stands in for the run of a `Writer`."""

    def __init__(self, run, entry, logged):
        object.__setattr__(self, "_run", run)
        object.__setattr__(self, "_entry", entry)
        object.__setattr__(self, "_logged", logged)

    def __getattr__(self, name):
        return getattr(self._run, name)

    def __setattr__(self, name, value):
        setattr(self._run, name, value)

    def __bool__(self):
        return bool(self._run)

    def log_artifact(self, *args, **kwargs):
        """As the run's, and the artifact is remembered."""
        return _log(self._run.log_artifact, self._entry, self._logged, args, kwargs)


def completed_metadata(metadata, entry):
    """The framework's metadata with ours: what it sets stays, but for an iteration that is not the path's."""
    ours = delivery.wandb_metadata(entry)
    merged = dict(ours)
    merged.update(metadata or {})
    merged["iteration"] = ours.get("iteration", merged.get("iteration"))
    return merged


def _log(log_artifact, entry, logged, args, kwargs):
    # wandb asks its server before it takes an artifact, for minutes if the server does not answer, while all other
    # ranks wait for this one: that is the commit thread's to do. Who looks at the result has it done at once.
    def log():
        artifact = args[0] if args else None
        if hasattr(artifact, "add_reference"):
            try:
                # Before the call, which seals the artifact; after the framework's references, whose files come first.
                delivery.translate_references(artifact, os.path.realpath(entry["local_path"]), entry["checkpoint_path"])
                delivery.add_metadata_file(artifact, entry)
            except Exception as error:
                notice.warning("checkpoint %s is in W&B without metadata.json: %r" % (entry["checkpoint_path"], error))
        return log_artifact(*args, **kwargs)

    handle = delivery.Deferred(log)
    logged.append(handle)
    return handle
