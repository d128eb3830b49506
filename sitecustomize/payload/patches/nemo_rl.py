"""NeMo-RL: every checkpoint that `CheckpointManager` completes becomes an artifact, once, however it is finalized.

Wraps the one method of `nemo_rl.utils.checkpoint.CheckpointManager` through which each checkpoint passes once:

* `_rename_checkpoint(checkpoint_path)` where there is one (main since 718ee57fc, July 2026): `finalize_checkpoint` and
  the background thread of `begin_finalization` both go through it, and every algorithm calls the latter;
* else `finalize_checkpoint(checkpoint_path)` (v0.2.1 to v0.7.0).

Both rename `tmp_step_N` to `step_N`; a checkpoint that fails to be written is never renamed, and never seen here.
`__init__` and `remove_old_checkpoints` are wrapped beside it: the first for `ft_save_period`, which the manager does
not keep, the second to mark in the store what it has deleted.

Why: NeMo-RL logs no checkpoint anywhere. An exception here would surface as "Background checkpoint finalization
failed" in training: none leaves.

Can go when NeMo-RL logs its checkpoints by itself. Where it begins to (a method that calls `log_artifact`, a logger as
an argument of `__init__`), W&B is left to it, and only the manifest is written.
"""

from __future__ import annotations

import functools
import inspect
import os
import weakref

from .. import checkpoint, notice, pruning, training_info
from ..status import INSTALLED, STOOD_DOWN, Status

NAME = "nemo-rl"
MODULE = "nemo_rl.utils.checkpoint"
CLASS = "CheckpointManager"
STEPS = ("_rename_checkpoint", "finalize_checkpoint")  # the first that there is

_MARK = "_nemotron_exec_original"
_ft_save_period: weakref.WeakKeyDictionary[object, int | None] = weakref.WeakKeyDictionary()
_best: dict[str, dict[int, dict[str, float]]] = {}  # checkpoint directory: {step: info}, filled as checkpoints come


def apply(module):
    """Wrap the class in `module`. Idempotent.

    Returns:
        A `Status`.
    """
    manager = getattr(module, CLASS, None)
    if not inspect.isclass(manager):
        return Status(NAME, STOOD_DOWN, "%s has no class %s" % (module.__name__, CLASS))
    step = next((name for name in STEPS if callable(vars(manager).get(name))), None)
    if step is None:
        return Status(NAME, STOOD_DOWN, "%s has neither %s" % (CLASS, " nor ".join(STEPS)))
    original = vars(manager)[step]
    if hasattr(original, _MARK):
        return Status(NAME, INSTALLED, "")
    parameters = tuple(inspect.signature(original).parameters)
    if parameters[:2] != ("self", "checkpoint_path"):
        return Status(NAME, STOOD_DOWN, "%s takes (%s)" % (step, ", ".join(parameters)))
    native = _logs_by_itself(manager)
    _set(manager, step, original, _completing(original, native is None))
    for name, wrap in (("__init__", _remembering), ("remove_old_checkpoints", _pruning)):
        if callable(vars(manager).get(name)):
            _set(manager, name, vars(manager)[name], wrap(vars(manager)[name]))
    if native is not None:
        return Status(NAME, INSTALLED, "W&B is left to NeMo-RL (%s); the manifest is written" % native)
    return Status(NAME, INSTALLED, "")


def _set(manager, name, original, wrapper):
    functools.update_wrapper(wrapper, original)
    setattr(wrapper, _MARK, original)
    setattr(manager, name, wrapper)


def _logs_by_itself(manager):
    for name, value in vars(manager).items():
        if "log_artifact" in getattr(getattr(value, "__code__", None), "co_names", ()):
            return "%s calls log_artifact" % name
    for name in inspect.signature(manager.__init__).parameters:
        if name in ("logger", "tracker"):
            return "%s takes a %s" % (CLASS, name)
    return None


def _remembering(original):
    def __init__(self, *args, **kwargs):  # noqa: N807
        original(self, *args, **kwargs)
        try:
            config = args[0] if args else kwargs["config"]
            _ft_save_period[self] = config.get("ft_save_period")
        except Exception as error:
            notice.debug("ft_save_period unknown: %r" % (error,))

    return __init__


def _completing(original, to_wandb):
    def complete(self, checkpoint_path, *args, **kwargs):
        result = original(self, checkpoint_path, *args, **kwargs)
        try:
            _completed(self, os.fspath(checkpoint_path), to_wandb)
        except Exception as error:
            if notice.strict():
                raise
            notice.warning("checkpoint %s is not recorded as an artifact: %r" % (checkpoint_path, error))
        return result

    return complete


def _pruning(original):
    def remove_old_checkpoints(self, *args, **kwargs):
        try:
            return original(self, *args, **kwargs)
        finally:
            try:
                pruning.look_soon(str(self.checkpoint_dir))
            except Exception as error:
                notice.debug("pruning not looked for: %r" % (error,))

    return remove_old_checkpoints


def _completed(manager, temporary, to_wandb):
    name = os.path.basename(temporary.rstrip("/")).replace("tmp_", "", 1)
    path = os.path.join(os.path.dirname(temporary.rstrip("/")), name)
    step = checkpoint.number_in(path)
    info = training_info.read(path)
    metric_name = getattr(manager, "metric_name", None)
    metrics = training_info.metrics(info, metric_name)
    extra = {"metrics." + key: value for key, value in metrics.items()}
    if metric_name:
        extra.update(metric_name=metric_name, higher_is_better=bool(getattr(manager, "higher_is_better", True)))
        if metric_name in info:
            extra["metric"] = info[metric_name]
    recorded = checkpoint.record(
        checkpoint.Completed(
            framework="nemo-rl",
            versions=_versions(),
            save_dir=os.path.dirname(path),
            checkpoint_path=path,
            number=step,
            alias=name,
            path_is_checkpoint=True,
            transient=_is_transient(manager, step),
            best=_is_best(manager, os.path.dirname(path), step, info),
            extra=extra,
        ),
        to_wandb=to_wandb,
    )
    if recorded is not None:
        checkpoint.deliver(recorded)


def _is_transient(manager, step):
    """Whether only `ft_save_period` asked for this checkpoint: it goes when a later one is there.

    The last step of a run is saved whatever its number; one on `ft_save_period` cannot be told from the others.
    """
    ft = _ft_save_period.get(manager)
    period = getattr(manager, "save_period", None)
    return bool(ft and period and step is not None and step % period != 0 and step % ft == 0)


def _is_best(manager, checkpoint_dir, step, info):
    metric_name = getattr(manager, "metric_name", None)
    if not metric_name:
        return None
    known = _best.setdefault(checkpoint_dir, {})
    there = training_info.steps(checkpoint_dir)
    for other in [other for other in known if other not in there]:
        del known[other]  # pruned: what is gone is not the best
    for other, directory in there.items():
        if other not in known and other != step:
            known[other] = training_info.read(directory)
    known[step] = info
    return training_info.best_step(known, metric_name, bool(getattr(manager, "higher_is_better", True))) == step


@functools.lru_cache(maxsize=None)
def _versions():
    return checkpoint.versions("nemo-rl", {"nemo-rl": "nemo_rl", "torch": "torch", "wandb": "wandb"})
