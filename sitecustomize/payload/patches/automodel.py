"""NeMo Automodel: a published checkpoint becomes an artifact.

Wraps the method that publishes a checkpoint, on the rank that calls it, for synchronous and asynchronous saves:

* 0.6 and later: `CheckpointLifecycle._publish_checkpoint(path)`, which moves `LATEST` and takes `.incomplete` away. The
  patch also wraps `publish`, for the validation loss by which `LOWEST_VAL` moves, and `_prune_old_checkpoints`, to mark
  deleted checkpoints in the store.
* 0.3 to 0.5: `BaseRecipe._update_latest_symlink(target_dir)`. These versions move `LATEST` to an asynchronous save when
the next save begins, and so never to the last save. For that one, the patch wraps `Checkpointer.close`.

Why: Automodel logs no checkpoint anywhere, whatever the recipe (LLM, VLM, embedding, reranking, diffusion).

Known: 0.3.0 to 0.7.0. Stands down where neither method exists. Can go when Automodel registers its checkpoints itself.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import re
import sys
import weakref

from .. import frameworks, notice
from ..checkpoints import deliver, describe, pruning, record
from ..status import INSTALLED, STOOD_DOWN, Status
from . import other_hands

NAME = "automodel"
MODULES = frameworks.named(NAME).modules
LIFECYCLE = ("CheckpointLifecycle", "_publish_checkpoint", ("self", "path"))
RECIPE = ("BaseRecipe", "_update_latest_symlink", ("self", "target_dir"))

_MARK = "_nemotron_exec_original"
_LOSSES = "losses.json"
_MAX_LOSSES = 1 << 20  # bytes; the file of losses holds a few numbers
_validated: weakref.WeakKeyDictionary[object, tuple[str, float | None, str | None]] = weakref.WeakKeyDictionary()
# Checkpointer: its last save, not yet published.
_saved: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()


def apply(module):
    """Wrap the class in `module`, which is one of `MODULES`. Idempotent.

    Returns:
        A `Status`.
    """
    if module.__name__ == MODULES[0]:
        return _apply(module, LIFECYCLE, _publishing, {"publish": _validating, "_prune_old_checkpoints": _pruning})
    if callable(getattr(getattr(module, RECIPE[0], None), RECIPE[1], None)):
        checkpointing = sys.modules.get("nemo_automodel.components.checkpoint.checkpointing")
        checkpointer = getattr(checkpointing, "Checkpointer", None)
        if inspect.isclass(checkpointer):
            _wrap_beside(checkpointer, {"save_model": _saving, "save_optimizer": _saving, "close": _closing})
        return _apply(module, RECIPE, _linking, {})
    if MODULES[0] in sys.modules:
        return Status(NAME, INSTALLED, "")  # this version has the lifecycle module, which is wrapped instead
    return Status(NAME, STOOD_DOWN, "%s has no %s.%s" % (module.__name__, RECIPE[0], RECIPE[1]))


def _apply(module, known, wrap, beside):
    name, step, parameters = known
    owner = getattr(module, name, None)
    original = vars(owner).get(step) if inspect.isclass(owner) else None
    if not callable(original):
        return Status(NAME, STOOD_DOWN, "%s has no %s.%s" % (module.__name__, name, step))
    if hasattr(original, _MARK):
        return Status(NAME, INSTALLED, "")
    found = tuple(inspect.signature(original).parameters)
    if found[: len(parameters)] != parameters:
        return Status(
            NAME, STOOD_DOWN, "%s takes (%s), known is (%s)" % (step, ", ".join(found), ", ".join(parameters))
        )
    _set(owner, step, original, wrap(original))
    _wrap_beside(owner, beside)
    return Status(NAME, INSTALLED, "")


def _wrap_beside(owner, beside):
    for name, wrap in beside.items():
        original = vars(owner).get(name)
        if callable(original) and not hasattr(original, _MARK):
            _set(owner, name, original, wrap(original))


def _set(owner, name, original, wrapper):
    functools.update_wrapper(wrapper, original)
    setattr(wrapper, _MARK, original)
    setattr(owner, name, wrapper)


# 0.6 and later


def _publishing(original):
    def _publish_checkpoint(self, path, *args, **kwargs):
        result = original(self, path, *args, **kwargs)
        other_hands.trying(path, _record_published, self, os.fspath(path))
        return result

    return _publish_checkpoint


def _validating(original):
    signature = inspect.signature(original)

    def publish(self, *args, **kwargs):
        try:
            given = signature.bind(self, *args, **kwargs).arguments
            _validated[self] = (os.fspath(given["path"]), given.get("best_val_metric"), given.get("metric_key"))
        except Exception as error:
            notice.debug("whether a checkpoint is the best is unknown: %r" % (error,))
        try:
            return original(self, *args, **kwargs)
        finally:
            _validated.pop(self, None)

    return publish


def _pruning(original):
    def _prune_old_checkpoints(self, *args, **kwargs):
        try:
            return original(self, *args, **kwargs)
        finally:
            other_hands.trying(self.config.checkpoint_dir, pruning.look_soon, os.fspath(self.config.checkpoint_dir))

    return _prune_old_checkpoints


def _record_published(lifecycle, path):
    _record(os.fspath(lifecycle.config.checkpoint_dir), path, _moves_lowest(lifecycle, path))


def _moves_lowest(lifecycle, path):
    """Whether Automodel will move `LOWEST_VAL` to this checkpoint; None where nothing was validated."""
    pending = getattr(lifecycle, "_pending_best_checkpoint", None)
    asynchronous = (pending.path, pending.value, pending.metric_key) if pending is not None else None
    for validated in (_validated.get(lifecycle), asynchronous):
        if validated is not None and os.fspath(validated[0]) == path:
            _, value, key = validated
            if value is None:
                return None
            if not math.isfinite(value):
                return False
            # Automodel does the same a moment later: it reads the loss of the best checkpoint so far.
            lifecycle._initialize_best_val_loss_from_pointer(key)
            return bool(value < lifecycle._best_val_loss)
    return None


# 0.3 to 0.5


def _linking(original):
    def _update_latest_symlink(self, target_dir, *args, **kwargs):
        result = original(self, target_dir, *args, **kwargs)
        other_hands.trying(target_dir, _record_linked, self, os.fspath(target_dir))
        return result

    return _update_latest_symlink


def _record_linked(recipe, path):
    if _saved.get(recipe.checkpointer) == path:
        del _saved[recipe.checkpointer]
    value = _losses(path).get("val_loss")
    best = None if value is None else bool(value < getattr(recipe, "_best_val_loss", math.inf))
    _record(os.fspath(recipe.checkpointer.config.checkpoint_dir), path, best)


def _saving(original):
    signature = inspect.signature(original)

    def save(self, *args, **kwargs):
        try:
            path = signature.bind(self, *args, **kwargs).arguments.get("weights_path")
            if path is not None:
                _saved[self] = os.fspath(path)
        except Exception as error:
            notice.debug("the last asynchronous checkpoint will not be recorded: %r" % (error,))
        return original(self, *args, **kwargs)

    return save


def _closing(original):
    def close(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        path = _saved.pop(self, None)
        if path is not None:
            other_hands.trying(path, _record_last, self, path)
        return result

    return close


def _record_last(checkpointer, path):
    """Record the last asynchronous checkpoint. It is complete, because its writers have ended."""
    # Rank 0 writes config.yaml last, before an asynchronous save returns. A failed save has none.
    if getattr(checkpointer.config, "is_async", False) and _is_rank_0() and os.path.isfile(path + "/config.yaml"):
        _record(os.fspath(checkpointer.config.checkpoint_dir), path, None)


def _is_rank_0():
    distributed = sys.modules.get("torch.distributed")
    return distributed is None or not distributed.is_initialized() or distributed.get_rank() == 0


# All versions


def _record(save_dir, path, best):
    path = path.rstrip("/")
    name = os.path.basename(path)
    losses = _losses(path)
    extra = {"metrics." + key: value for key, value in losses.items()}
    epoch = re.match(r"epoch_(\d+)_step_\d+\Z", name)
    if epoch:
        extra["epoch"] = int(epoch.group(1))
    recorded = record.record(
        describe.Completed(
            framework=NAME,
            versions=describe.versions_of(NAME),
            save_dir=save_dir,
            checkpoint_path=path,
            number=describe.number_in(path),
            alias=name,
            path_is_checkpoint=True,
            transient=False,
            best=best,
            extra=extra,
        )
    )
    if recorded is not None:
        deliver.deliver(recorded)


def _losses(path):
    """The losses of a checkpoint, as `{name: number}`; {} where there is no file of them."""
    try:
        with open(os.path.join(path, _LOSSES), encoding="utf-8") as stream:
            losses = json.loads(stream.read(_MAX_LOSSES))
    except (OSError, ValueError):
        return {}
    if not isinstance(losses, dict):
        return {}
    return {str(key): value for key, value in losses.items() if isinstance(value, (int, float)) and value == value}
