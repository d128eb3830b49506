"""Megatron-Bridge: a saved checkpoint becomes an artifact that the next job can find.

Wraps `megatron.bridge.training.utils.wandb_utils.on_save_checkpoint_success`, which Megatron-Bridge calls when a
checkpoint is complete on disk, after synchronous and asynchronous saves. It calls it on the last rank, in the training
thread.

Why: the function logs a W&B artifact whose metadata has no path that the next job could use. For asynchronous saves up
to 0.6.2, the iteration is wrong, too. The function does not wait for the commit, so a preempted job loses the artifact.
Without a W&B project it does nothing.

Known: 0.1.0rc4 to 0.6.2 and main of August 2026: (checkpoint_path, save_dir, iteration, wandb_writer), called as an
attribute of the module. Stands down where these four are not the first parameters.

Can go when Megatron-Bridge records `absolute_path` and waits for the commit. If a call logs an artifact through its W&B
writer, the patch completes that artifact and logs no second one.
"""

from __future__ import annotations

import functools
import re
import sys

from .. import notice
from ..checkpoints import deliver, describe, record
from . import megatron_export, other_hands
from .saved_callback import FUNCTION, failed, install, is_last_rank, record_once
from .wandb_writer import Writer

__all__ = ["FUNCTION", "MODULE", "NAME", "PARAMETERS", "apply"]

NAME = "megatron-bridge"
MODULE = "megatron.bridge.training.utils.wandb_utils"
PARAMETERS = ("checkpoint_path", "save_dir", "iteration", "wandb_writer")


def apply(module):
    """Wrap the function in `module` and wherever its name has been imported already. Idempotent.

    Args:
        module: MODULE, or one of those that megatron_export.py wraps.

    Returns:
        A `Status`.
    """
    if module.__name__ in (megatron_export.EXPORTS, megatron_export.MANAGERS):
        return megatron_export.apply(NAME, module)
    return install(NAME, module, PARAMETERS, _wrap, _wrap_theirs)


def _wrap(original, signature):
    @functools.wraps(original)
    def on_save_checkpoint_success(*args, **kwargs):
        if other_hands.inside():
            return original(*args, **kwargs)  # a script's function calls the function that it has replaced
        try:
            call = signature.bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # the function raises its own error for the wrong arguments
        recorded = None
        writer = call.arguments["wandb_writer"]
        proxy = None
        try:
            recorded = _record(call.arguments, sys._getframe(1))
            if recorded is not None and writer:
                proxy = call.arguments["wandb_writer"] = Writer(writer, recorded.entry)
        except Exception as error:
            failed(call.arguments.get("checkpoint_path"), error)
        try:
            return original(*call.args, **call.kwargs)
        finally:
            if recorded is not None:
                try:
                    deliver.deliver(recorded, handle=proxy and proxy.nemotron_exec_handle())
                except Exception as error:
                    failed(call.arguments.get("checkpoint_path"), error)

    return on_save_checkpoint_success


def _wrap_theirs(theirs):
    """Wrap a script's replacement of the framework's function: call it, and record the checkpoint once."""

    @functools.wraps(theirs)
    def on_save_checkpoint_success(*args, **kwargs):
        if other_hands.inside():
            return theirs(*args, **kwargs)
        arguments = dict(zip(PARAMETERS, args), **kwargs)
        return other_hands.recorded_once(
            arguments.get("checkpoint_path"),
            lambda: theirs(*args, **kwargs),
            functools.partial(_record, arguments, sys._getframe(1), record.announce),
        )

    return on_save_checkpoint_success


def _record(arguments, frame, how=record.record):
    checkpoint_path = str(arguments["checkpoint_path"])
    save_dir = str(arguments["save_dir"])
    if any(part.startswith("tmp_step_") for part in re.split(r"[/\\]", checkpoint_path)):
        return None  # a part of NeMo-RL's checkpoint, which is complete only after its rename
    if not arguments["wandb_writer"] and describe.active_run() is None and not is_last_rank():
        return None
    converted = _is_conversion(frame)
    if converted and _is_a_training():
        return None  # the training has converted weights for itself, into a cache that jobs share
    extra = {"converted": True} if converted else {}
    transient = _is_transient(save_dir, frame)
    return record_once(NAME, checkpoint_path, save_dir, arguments["iteration"], transient, how=how, extra=extra)


def _is_conversion(frame):
    """Whether `AutoBridge.save_megatron_model` has saved converted weights: then the configuration has no `train`."""
    try:
        return frame.f_locals["state"].cfg.train is None
    except Exception as error:
        notice.debug("not called by save_checkpoint, and so no conversion: %r" % (error,))
        return False


def _is_a_training():
    """Whether this process trains. Then a conversion is an intermediate step, and not the job's result."""
    return any(
        module in sys.modules
        for module in ("nemo_rl", "megatron.bridge.training.pretrain", "megatron.bridge.training.finetune")
    )


def _is_transient(save_dir, frame):
    """Whether this is a non-persistent checkpoint, which the framework deletes after the next one."""
    # The caller is a closure of `save_checkpoint`. Its variable `state` has the configuration.
    try:
        config = frame.f_locals["state"].cfg.checkpoint
        named = config.non_persistent_global_ckpt_dir
        if named and config.save and str(named) == save_dir and str(config.save) != save_dir:
            return True
    except Exception as error:
        notice.debug("not called by save_checkpoint, the directory's name decides: %r" % (error,))
    return save_dir.rstrip("/").rsplit("/", 1)[-1] == "non_persistent"
