"""NeMo-RL: every checkpoint that `CheckpointManager` completes becomes an artifact, once, however it is finalized.

Wraps the one method of `nemo_rl.utils.checkpoint.CheckpointManager` that is called once for each checkpoint:

* `_rename_checkpoint(checkpoint_path)` where there is one (main since 718ee57fc, July 2026): `finalize_checkpoint` and
  the background thread of `begin_finalization` both go through it, and every algorithm calls the latter;
* else `finalize_checkpoint(checkpoint_path)` (v0.2.1 to v0.7.0).

Both rename `tmp_step_N` to `step_N`. A checkpoint whose write fails is never renamed, and never comes here. The outbox
entry is written before the rename: if the process dies in between, the next start sees whether the rename has happened.

The patch also wraps four other methods. From `__init__` it gets `ft_save_period`, which the manager does not store, and
from `init_tmp_checkpoint` the configuration, which tells the last step. After `begin_finalization`, the process waits
for its thread on SIGTERM. After `remove_old_checkpoints`, deleted checkpoints are marked in the store.

Why: NeMo-RL logs no checkpoint anywhere. An exception here would surface as "Background checkpoint finalization failed"
in training, so the patch raises none.

Can go when NeMo-RL logs its checkpoints by itself. If a version has a method that calls `log_artifact`, or a logger as
an argument of `__init__`, the patch leaves W&B to NeMo-RL and writes only the manifest.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import weakref

from .. import notice
from ..checkpoints import commit, deliver, describe, pruning, record, script_name
from ..status import INSTALLED, STOOD_DOWN, Status
from . import kit, other_hands, training_info

NAME = "nemo-rl"
MODULE = "nemo_rl.utils.checkpoint"
CLASS = "CheckpointManager"
STEPS = ("_rename_checkpoint", "finalize_checkpoint")  # the first that exists is wrapped

_MARK = other_hands.MARK
_genuine: dict[type, dict[str, object]] = {}  # class: its steps as this patch left them
_ft_save_period: weakref.WeakKeyDictionary[object, int | None] = weakref.WeakKeyDictionary()
# Manager: the run's last step, once it is saved.
_last_step: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
_best: dict[str, dict[int, dict[str, float]]] = {}  # checkpoint directory: {step: info}, filled with each checkpoint


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
    _genuine[manager] = {name: vars(manager)[name] for name in STEPS if name in vars(manager)}
    for name, wrap in _BESIDE.items():
        if callable(vars(manager).get(name)):
            _set(manager, name, vars(manager)[name], wrap(vars(manager)[name]))
    if native is not None:
        return Status(NAME, INSTALLED, "W&B is left to NeMo-RL (%s); the manifest is written" % native)
    return Status(NAME, INSTALLED, "")


def _set(manager, name, original, wrapper):
    functools.update_wrapper(wrapper, original)
    setattr(wrapper, _MARK, original)
    setattr(manager, name, wrapper)


def _wrap_anew(manager):
    """Before each save, wrap a script's replacement of a method that completes checkpoints.

    The replacement is a function assigned to the class, or a method of a subclass that need not call the original.
    """
    kept = next((kept for owner, kept in _genuine.items() if issubclass(manager, owner)), {})
    for name in STEPS if kept else ():
        owner = next((one for one in manager.__mro__ if name in vars(one)), None)
        theirs = vars(owner)[name] if owner is not None else None
        if not callable(theirs) or theirs is kept.get(name) or other_hands.is_wrapper(theirs):
            continue
        if kit.is_from_kit(theirs):
            # The kit's function would do the same as the patch: drop it, but keep its name for the artifact.
            script_name.hand_over(kit.artifact_name_of(theirs))
            if owner in _genuine:
                setattr(owner, name, kept[name])
            else:
                delattr(owner, name)
            continue
        wrapper = _recording_theirs(theirs)
        functools.update_wrapper(wrapper, theirs)
        other_hands.mark(wrapper, theirs)
        setattr(owner, name, wrapper)


def _wrap_on_instance(manager):
    """The same for a function that a script has assigned to one manager. Its first argument is not the manager."""
    for name in STEPS:
        theirs = vars(manager).get(name)
        if callable(theirs) and not other_hands.is_wrapper(theirs):
            setattr(manager, name, _bound(manager, theirs))


def _bound(manager, theirs):
    complete = _recording_theirs(
        lambda _self, checkpoint_path, *args, **kwargs: theirs(checkpoint_path, *args, **kwargs)
    )

    def bound(checkpoint_path, *args, **kwargs):
        return complete(manager, checkpoint_path, *args, **kwargs)

    other_hands.mark(bound, theirs)
    return bound


def _recording_theirs(theirs):
    """Wrap a script's replacement of NeMo-RL's method: call it, and record the checkpoint once."""

    def complete(self, checkpoint_path, *args, **kwargs):
        if other_hands.inside():
            return theirs(self, checkpoint_path, *args, **kwargs)
        temporary = os.fspath(checkpoint_path)
        with commit.committer().completing():
            return other_hands.recorded_once(
                checkpoint_path,
                lambda: theirs(self, checkpoint_path, *args, **kwargs),
                functools.partial(_announce, self, temporary, True),
                failed=functools.partial(os.path.lexists, temporary),
                renamed_from=temporary,
            )

    return complete


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
        other_hands.trying("of %s" % type(self).__name__, _wrap_anew, type(self))

    return __init__


def _completing(original, to_wandb):
    def complete(self, checkpoint_path, *args, **kwargs):
        if other_hands.inside():
            # A script's function calls the method that it has replaced.
            return original(self, checkpoint_path, *args, **kwargs)
        with commit.committer().completing():  # the end of the process waits for this thread
            announced = other_hands.trying(checkpoint_path, _announce, self, os.fspath(checkpoint_path), to_wandb)
            try:
                result = original(self, checkpoint_path, *args, **kwargs)
            except BaseException:
                # If the rename was done, the checkpoint is complete, in spite of the later error.
                other_hands.trying(checkpoint_path, _record, announced, os.path.lexists(checkpoint_path))
                raise
            other_hands.trying(checkpoint_path, _record, announced, False)
        return result

    return complete


def _planning(original):
    def init_tmp_checkpoint(self, step, *args, **kwargs):
        other_hands.trying("step %s" % step, _wrap_anew, type(self))
        other_hands.trying("step %s" % step, _wrap_on_instance, self)
        try:
            config = kwargs["run_config"] if "run_config" in kwargs else args[1] if len(args) > 1 else None
            if _is_last_step(config, int(step), sys._getframe(1)):
                _last_step[self] = int(step)
        except Exception as error:
            notice.debug("whether %r is the last step is unknown: %r" % (step, error))
        return original(self, step, *args, **kwargs)

    return init_tmp_checkpoint


def _expecting(original):
    def begin_finalization(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        try:
            commit.committer().expect(getattr(self, "_finalize_thread", None))
        except Exception as error:
            notice.debug("SIGTERM will not wait: %r" % (error,))
        return result

    return begin_finalization


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


_BESIDE = {
    "__init__": _remembering,
    "init_tmp_checkpoint": _planning,
    "begin_finalization": _expecting,
    "remove_old_checkpoints": _pruning,
}


def _announce(manager, temporary, to_wandb):
    temporary = temporary.rstrip("/")
    name = os.path.basename(temporary).replace("tmp_", "", 1)
    path = os.path.join(os.path.dirname(temporary), name)
    step = describe.number_in(path)
    info = training_info.read(temporary)
    metric_name = getattr(manager, "metric_name", None)
    metrics = training_info.metrics(info, metric_name)
    extra = {"metrics." + key: value for key, value in metrics.items()}
    if metric_name:
        extra.update(metric_name=metric_name, higher_is_better=bool(getattr(manager, "higher_is_better", True)))
        if metric_name in info:
            extra["metric"] = info[metric_name]
    return record.announce(
        describe.Completed(
            framework=NAME,
            versions=describe.versions_of(NAME),
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
        renamed_from=temporary,
    )


def _record(announced, failed):
    if announced is None:
        return
    if failed:
        record.withdraw(announced)
        return
    deliver.deliver(record.complete(announced))


def _is_transient(manager, step):
    """Whether only `ft_save_period` asked for this checkpoint. NeMo-RL deletes it after a later one."""
    ft = _ft_save_period.get(manager)
    period = getattr(manager, "save_period", None)
    if not (ft and period and step is not None and step % period != 0 and step % ft == 0):
        return False
    return _last_step.get(manager) != step


def _is_last_step(run_config, step, frame):
    """Whether the run ends with this step, so that NeMo-RL saves it whatever its number.

    Args:
        run_config: The configuration that is saved with the checkpoint; each algorithm has its section with
            `max_num_steps`.
        step: Counted from 1.
        frame: The caller's frame. Only its variables tell of the end of the data, and of an early stop.
    """
    sections = run_config if isinstance(run_config, dict) else getattr(run_config, "__dict__", {})
    for section in sections.values():
        limit = section.get("max_num_steps") if isinstance(section, dict) else getattr(section, "max_num_steps", None)
        if isinstance(limit, int) and 0 < limit <= step:
            return True
    if sys.version_info >= (3, 13):
        # Older Pythons copy all variables of a frame when they are read, and keep tensors alive with the copy.
        names = frame.f_locals
        return names.get("is_last_step") is True or names.get("early_stop_message") is not None
    return False


def _is_best(manager, checkpoint_dir, step, info):
    metric_name = getattr(manager, "metric_name", None)
    if not metric_name:
        return None
    known = _best.setdefault(checkpoint_dir, {})
    there = training_info.steps(checkpoint_dir)
    for other in [other for other in known if other not in there]:
        del known[other]  # pruned: a checkpoint that is gone cannot be the best
    for other, directory in there.items():
        if other not in known and other != step:
            known[other] = training_info.read(directory)
    known[step] = info
    return training_info.best_step(known, metric_name, bool(getattr(manager, "higher_is_better", True))) == step
