"""Megatron-LM's own training loop: a saved checkpoint becomes an artifact that the next job can find.

Wraps `megatron.training.wandb_utils.on_save_checkpoint_success`, which `save_checkpoint` calls on the last rank, in the
training thread, when a checkpoint is complete on disk, for synchronous and asynchronous saves.

Why: the function logs a W&B artifact without a path that the next job could use, and does not wait for the commit. An
error of W&B ends the training. Without a W&B project the function does nothing.

Known: the package `megatron.training` of megatron-core 0.19 and of Megatron-LM since core 0.9: (checkpoint_path,
tracker_filename, save_dir, iteration), with the writer from `get_wandb_writer`. Stands down where these four are not
the first parameters.

Not recorded: local checkpoints (`--non-persistent-ckpt-type local`), for which the function is called as well. They lie
on one node's disk, in another layout, so no other job could use a path to them.

Can go when Megatron-LM records `absolute_path` and waits by itself.
"""

from __future__ import annotations

import functools
import os
import sys

from .. import notice
from ..checkpoints import deliver, describe
from ..paths.absolute import absolute
from .saved_callback import FUNCTION, failed, install, is_last_rank, record_once
from .wandb_writer import Writer

__all__ = ["FUNCTION", "MODULE", "NAME", "PARAMETERS", "apply"]

NAME = "megatron-lm"
MODULE = "megatron.training.wandb_utils"
PARAMETERS = ("checkpoint_path", "tracker_filename", "save_dir", "iteration")

_NON_PERSISTENT = "non_persistent"


def apply(module):
    """Wrap the function in `module` and wherever its name has been imported already. Idempotent.

    Returns:
        A `Status`.
    """
    return install(NAME, module, PARAMETERS, functools.partial(_wrap, module))


def _wrap(module, original, signature):
    @functools.wraps(original)
    def on_save_checkpoint_success(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return original(*args, **kwargs)  # the function raises its own error for the wrong arguments
        recorded, proxy = None, None
        get_writer = getattr(module, "get_wandb_writer", None)
        try:
            writer = get_writer() if get_writer is not None else None
            recorded = _record(given, writer)
            if recorded is not None and writer:
                proxy = Writer(writer, recorded.entry)
        except Exception as error:
            failed(given.get("checkpoint_path"), error)
        if proxy is not None:
            # The function looks this name up when it runs. Only the training thread calls it, so replacing it meanwhile
            # is safe.
            module.get_wandb_writer = lambda: proxy
        try:
            return original(*args, **kwargs)
        finally:
            if proxy is not None:
                module.get_wandb_writer = get_writer
            if recorded is not None:
                try:
                    deliver.deliver(recorded, handle=proxy and proxy.nemotron_exec_handle())
                except Exception as error:
                    failed(given.get("checkpoint_path"), error)

    return on_save_checkpoint_success


def _record(given, writer):
    save_dir = str(given["save_dir"])
    arguments = _arguments()
    if _is_local(save_dir, arguments):
        notice.debug("%s: a local checkpoint of Megatron-LM is no artifact" % given["checkpoint_path"])
        return None
    if not writer and describe.active_run() is None and not is_last_rank():
        return None
    path = _directory(str(given["checkpoint_path"]), save_dir)
    return record_once(NAME, path, save_dir, given["iteration"], _is_transient(save_dir, arguments))


def _directory(checkpoint_path, save_dir):
    """`SAVE_DIR/iter_0000010`, also for the path of one rank's file inside it, as the format `torch` gives it."""
    prefix = save_dir.rstrip("/") + "/"
    if not checkpoint_path.startswith(prefix):
        return checkpoint_path
    return prefix + checkpoint_path[len(prefix) :].lstrip("/").split("/", 1)[0]


def _arguments():
    """Megatron-LM's global arguments, or None."""
    try:
        return sys.modules["megatron.training.global_vars"].get_args()
    except Exception as error:
        notice.debug("the arguments of Megatron-LM are unknown: %r" % (error,))
        return None


def _is_local(save_dir, arguments):
    if arguments is None or getattr(arguments, "non_persistent_ckpt_type", None) != "local":
        return False
    return not _is_same(save_dir, getattr(arguments, "save", None))


def _is_transient(save_dir, arguments):
    """Whether this is a non-persistent checkpoint, which the framework deletes after the next one."""
    if _is_same(save_dir, getattr(arguments, "non_persistent_global_ckpt_dir", None)):
        return not _is_same(save_dir, getattr(arguments, "save", None))
    return os.path.basename(save_dir.rstrip("/")) == _NON_PERSISTENT


def _is_same(save_dir, named):
    if not named:
        return False
    if describe.is_uri(save_dir) or describe.is_uri(str(named)):
        return save_dir.rstrip("/") == str(named).rstrip("/")
    return absolute(save_dir) == absolute(str(named))
