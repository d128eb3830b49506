"""The common part of the patches of Megatron-Bridge and Megatron-LM.

Both frameworks call a function `on_save_checkpoint_success` when a checkpoint is complete on disk, after synchronous
and asynchronous saves. They call it on the last rank, in the training thread. With a W&B writer it logs an artifact.
"""

from __future__ import annotations

import inspect
import sys
import types

from .. import job, notice
from ..checkpoints import describe, record
from ..status import INSTALLED, STOOD_DOWN, Status
from . import kit, other_hands

FUNCTION = "on_save_checkpoint_success"
MARK = other_hands.MARK


class _Last:
    """For each save directory, its newest checkpoint and the record of it."""

    def __init__(self):
        self.saved: dict[str, tuple[str, int, record.Recorded | None]] = {}

    def inherit(self, parents):
        """A forked child may save from now on, so it takes over its parent's record."""
        self.saved.update(parents.saved)


def install(name, module, parameters, wrap, wrap_theirs=None):
    """Wrap the function in `module`, and wherever its name has been imported already. Idempotent.

    Args:
        name: Name of the patch.
        module: The module that has been imported.
        parameters: Names of the function's first parameters in every known version.
        wrap: `wrap(original, signature)` gives the wrapper.
        wrap_theirs: `wrap_theirs(function)` wraps a function that a script assigns to the name later; None to leave it
            alone.

    Returns:
        A `Status`.
    """
    original = getattr(module, FUNCTION, None)
    if original is None:
        return Status(name, STOOD_DOWN, "%s has no %s" % (module.__name__, FUNCTION))
    if other_hands.is_wrapper(original):
        return Status(name, INSTALLED, "")
    try:
        signature = inspect.signature(original)
    except (TypeError, ValueError) as error:
        return Status(name, STOOD_DOWN, "%s has no signature: %s" % (FUNCTION, error))
    if tuple(signature.parameters)[: len(parameters)] != parameters:
        return Status(name, STOOD_DOWN, "%s takes %s, known is (%s)" % (FUNCTION, signature, ", ".join(parameters)))
    wrapper = wrap(original, signature)
    other_hands.mark(wrapper, original)
    setattr(module, FUNCTION, wrapper)
    _replace_imported(original, wrapper)
    if wrap_theirs is not None:
        # The kit's function would do the same as the wrapper, and is dropped. Another function of a script is wrapped.
        ours = lambda theirs: theirs is original or kit.is_from_kit(theirs)  # noqa: E731
        other_hands.keep(module, FUNCTION, lambda theirs: wrapper if ours(theirs) else wrap_theirs(theirs))
    return Status(name, INSTALLED, "")


def record_once(framework, checkpoint_path, save_dir, number, transient, how=record.record, extra=None):
    """Record a checkpoint of the Megatron format, unless it was the last one recorded.

    Both frameworks save the last iteration once more at the end of training. No step lies in between, so it is the same
    checkpoint. With the first event, W&B recognises it.

    Args:
        framework: Name of a row of frameworks.py.
        checkpoint_path: The checkpoint, as the job names it; a URI, or a directory.
        save_dir: The directory that the framework saves to.
        number: The iteration that the framework reports; the number in the path wins.
        transient: Whether the framework will delete it after the next one.
        how: `record.record`, or `record.announce` where the caller completes it.
        extra: Further metadata.

    Returns:
        The result of `how`.
    """
    in_path = describe.number_in(checkpoint_path)
    number = number if in_path is None else in_path
    last = job.part(_Last).saved.get(save_dir)
    if last is not None and last[:2] == (checkpoint_path, number):
        if how is not record.record:
            return None
        return last[2] and last[2]._replace(path=None, settle=record.nothing_to_settle)
    recorded = how(
        describe.Completed(
            framework=framework,
            versions=describe.versions_of(framework),
            save_dir=save_dir,
            checkpoint_path=checkpoint_path,
            number=number,
            alias=checkpoint_path.rstrip("/").rsplit("/", 1)[-1],
            path_is_checkpoint=False,
            transient=transient,
            best=None,
            extra=extra or {},
        )
    )
    job.part(_Last).saved[save_dir] = (checkpoint_path, number, recorded if how is record.record else None)
    return recorded


def failed(checkpoint_path, error):
    """Warn that a checkpoint is not recorded; under `NEMOTRON_EXEC_STRICT=1`, raise the error."""
    if notice.strict():
        raise error
    notice.warning("checkpoint %s is not recorded as an artifact: %r" % (checkpoint_path, error))


def is_last_rank():
    """Whether this process has the last rank; True where that is not known.

    All known versions call the function on the last rank only. The check is for a version that does not.
    """
    distributed = sys.modules.get("torch.distributed")
    try:
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank() == distributed.get_world_size() - 1
    except Exception as error:
        notice.debug("rank unknown: %r" % (error,))
    return True


def _replace_imported(original, wrapper):
    for module in [one for one in list(sys.modules.values()) if isinstance(one, types.ModuleType)]:
        # Bypass the module's own attribute access: a lazy module would load itself.
        try:
            names = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue  # a library of cffi calls itself a module, but has no dictionary
        own = str(names.get("__name__", ""))
        if not (FUNCTION in names or own.startswith("megatron") or own == "__main__"):
            continue
        for name, value in list(names.items()):
            if value is original:
                names[name] = wrapper
