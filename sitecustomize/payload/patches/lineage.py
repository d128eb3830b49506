"""W&B: whichever process starts a run, the run records the job's inputs.

Wraps `wandb.sdk.wandb_init.init`, from where `wandb.sdk` and `wandb` take it, so that `from wandb import init` and
`wandb.sdk.init` are the same function.

Why: the inputs are resolved before any run exists, and frameworks own `wandb.init` (Megatron-Bridge calls it on its
last rank).

Known: 0.22 to 0.31. Stands down where the module has no `init`.

Can go when W&B itself takes inputs from the environment.
"""

from __future__ import annotations

import functools
import os
import sys
import threading

from .. import handoff, notice
from ..status import INSTALLED, STOOD_DOWN, Status

NAME = "lineage"
MODULE = "wandb.sdk.wandb_init"
CONFIG_KEY = "nemotron_exec"
"""Key of the run's config under which the inputs stand: `{"inputs": [qualified name, …]}`."""

_MARK = "_nemotron_exec_original"
_TIMEOUT = 5.0  # seconds by which `wandb.init` may take longer

_extra = []
_tags = []
_recorded = set()
_lock = threading.Lock()
_claim = None


def apply(module):
    """Wrap `init` in `module` and wherever its name has been imported already. Idempotent.

    Returns:
        A `Status`.
    """
    original = getattr(module, "init", None)
    if original is None:
        return Status(NAME, STOOD_DOWN, "%s has no init" % module.__name__)
    if not hasattr(original, _MARK):
        wrapper = _wrap(original)
        for name in (module.__name__, "wandb.sdk", "wandb"):
            imported = sys.modules.get(name)
            if imported is not None and getattr(imported, "init", None) is original:
                imported.init = wrapper
    return Status(NAME, INSTALLED, "")


def add(qualified_names=(), tags=()):
    """More inputs and tags than the hand-off names, for `patch_wandb_init_for_lineage`; a running run gets them too."""
    _extra.extend(name for name in map(str, qualified_names) if name not in _extra)
    _tags.extend(tag for tag in map(str, tags or ()) if tag not in _tags)
    run = getattr(sys.modules.get("wandb"), "run", None)
    if run is not None:
        _record_safely(run)


def inputs():
    """The job's inputs: qualified names in W&B, and those of the manifest store."""
    artifacts = handoff.read().get("artifacts") or ()
    known = [(one.get("store"), one.get("qualified_name")) for one in artifacts if isinstance(one, dict)]
    in_wandb = [name for store, name in known if store == "wandb" and name]
    elsewhere = [name for store, name in known if store != "wandb" and name]
    return in_wandb + [name for name in _extra if name not in in_wandb], elsewhere


def _wrap(original):
    @functools.wraps(original)
    def init(*args, **kwargs):
        added = _resume(args, kwargs)
        try:
            run = original(*args, **{**kwargs, **added})
        except Exception as error:
            if not added:
                raise
            if "deleted" in str(error):
                notice.warning("W&B has deleted run %s of this job; a new one is started" % added["id"])
            elif "Run initialization has timed out" in str(error):
                # All that clients up to 0.27 say of a deleted run, when their time is over.
                notice.warning(
                    "W&B did not take up run %s of this job in time (it may be deleted); a new one is started"
                    % added["id"]
                )
            else:
                raise
            run = original(*args, **kwargs)
        _record_safely(run)
        return run

    setattr(init, _MARK, original)
    return init


def _record_safely(run):
    """Whatever goes wrong here is ours, and never the caller's of `wandb.init`."""
    try:
        _record(run)
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("the inputs of this job are not recorded in W&B: %s: %s" % (type(error).__name__, error))


def _record(run):
    in_wandb, elsewhere = inputs()
    if run is None or getattr(run, "disabled", False) or not (in_wandb or elsewhere or _tags):
        return
    identity = (os.getpid(), getattr(run, "entity", None), getattr(run, "project", None), run.id)
    with _lock:
        new = [name for name in in_wandb if (identity, name) not in _recorded]
        _recorded.update((identity, name) for name in new)
    # In the config they are part of what `wandb sync` carries from an offline run.
    run.config.update({CONFIG_KEY: {"inputs": in_wandb + elsewhere}}, allow_val_change=True)
    if _tags:
        run.tags = tuple(run.tags or ()) + tuple(tag for tag in _tags if tag not in (run.tags or ()))
    if new and not getattr(run, "offline", False):
        thread = threading.Thread(target=_use, args=(run, new), name="nemotron-exec-lineage", daemon=True)
        thread.start()
        thread.join(_timeout())


def _use(run, names):
    """One look-up and one mutation for each; what takes longer than the caller may wait goes on here."""
    for name in names:
        try:
            run.use_artifact(name)
        except Exception as error:
            notice.warning("W&B did not record that this run uses %s: %s" % (name, error))


def _timeout():
    try:
        return min(max(0.0, float(os.environ.get("NEMOTRON_EXEC_LINEAGE_TIMEOUT", ""))), threading.TIMEOUT_MAX)
    except ValueError:
        return _TIMEOUT


def _resume(args, kwargs):
    """`id` and `resume` for the run that this job continues (`run.wandb.resume: auto`); {} where it says nothing.

    One process of the job continues it, the first that logs; a caller or an environment that names a run keeps it.
    """
    global _claim
    resume = (handoff.read().get("wandb") or {}).get("resume")
    identity = resume.get("id") if isinstance(resume, dict) else None
    if not identity or args or _claim is not None:
        return {}
    settings = kwargs.get("settings")
    # As a dictionary or a wandb.Settings; there the same things have partly other names.
    of_settings = settings.get if isinstance(settings, dict) else functools.partial(getattr, settings)
    names = ("id", "run_id", "resume", "resume_from", "fork_from")
    if any(kwargs.get(name) is not None or of_settings(name, None) is not None for name in names):
        return {}
    if os.environ.get("WANDB_RUN_ID") or os.environ.get("WANDB_RESUME"):
        return {}
    if of_settings("mode", None) not in (None, "online"):
        return {}
    if str(kwargs.get("mode") or os.environ.get("WANDB_MODE") or "online") != "online":
        return {}
    _claim = _lock_run()
    return {"id": identity, "resume": "allow"} if _claim else {}


def _lock_run():
    """Whether this process is the one; the lock goes with the process, so that a restart can have it."""
    import fcntl

    path = os.environ["NEMOTRON_EXEC_HANDOFF"] + ".wandb-run"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return descriptor or True
