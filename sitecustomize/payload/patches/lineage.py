"""W&B: every run of the job records the job's inputs, in whichever process it starts.

Wraps `wandb.sdk.wandb_init.init`, which `wandb.sdk` and `wandb` import, so that `from wandb import init` and
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

from .. import handoff, job, noted, notice
from ..status import INSTALLED, STOOD_DOWN, Status
from . import kit, other_hands, outage

NAME = "lineage"
MODULE = "wandb.sdk.wandb_init"
CONFIG_KEY = "nemotron_exec"
"""Key of the run's config for the inputs: `{"inputs": [qualified name, …]}`."""

_MARK = "_nemotron_exec_original"
_GONE = ("deleted", "Run initialization has timed out")
_TIMEOUT = 5.0  # seconds for which `wandb.init` may wait until the inputs are recorded

_recording = threading.local()


class _Runs:
    """The inputs, tags and lock of this process for its W&B runs.

    Attributes:
        extra: Inputs that a script has added.
        tags: Tags that a script has added.
        used: (run, qualified name): [event, artifact or None], for the inputs that this process records.
        claim: The lock of the run that the job continues, a descriptor; False where another process has it.
    """

    def __init__(self):
        self.extra, self.tags, self.used, self.claim = [], [], {}, None

    def inherit(self, parents):
        """A forked child inherits the parent's lock with its descriptor."""
        self.extra, self.tags, self.claim = list(parents.extra), list(parents.tags), parents.claim


def apply(module):
    """Wrap `init` in `module` and wherever its name has been imported already. Idempotent.

    Returns:
        A `Status`.
    """
    original = getattr(module, "init", None)
    if original is None:
        return Status(NAME, STOOD_DOWN, "%s has no init" % module.__name__)
    kit.adopt_main()
    run_class = getattr(sys.modules.get("wandb.sdk.wandb_run"), "Run", None)
    if run_class is not None:
        other_hands.watch_run(run_class)
        _use_once(run_class)
    _unseed_identities()
    if not hasattr(original, _MARK):
        wrapper = _wrap(original)
        for name in (module.__name__, "wandb.sdk", "wandb"):
            imported = sys.modules.get(name)
            if imported is not None and getattr(imported, "init", None) is original:
                imported.init = wrapper
    return Status(NAME, INSTALLED, "")


def add(qualified_names=(), tags=()):
    """Add inputs and tags to those of the hand-off, for `patch_wandb_init_for_lineage`, also in a running run."""
    runs = job.part(_Runs)
    runs.extra.extend(name for name in map(str, qualified_names) if name not in runs.extra)
    runs.tags.extend(tag for tag in map(str, tags or ()) if tag not in runs.tags)
    run = getattr(sys.modules.get("wandb"), "run", None)
    if run is not None:
        _record_safely(run)


def inputs():
    """The job's inputs, as two lists: qualified names in W&B, and names in other stores."""
    artifacts = handoff.read().get("artifacts") or ()
    known = [(one.get("store"), one.get("qualified_name")) for one in artifacts if isinstance(one, dict)]
    in_wandb = [name for store, name in known if store == "wandb" and name]
    elsewhere = [name for store, name in known if store != "wandb" and name]
    return in_wandb + [name for name in job.part(_Runs).extra if name not in in_wandb], elsewhere


def _in_wandb():
    return inputs()[0]


def _of_hub():
    """The job's Hugging Face repositories in the hand-off, by qualified name."""
    known = handoff.read().get("artifacts") or ()
    return {
        one.get("qualified_name"): one for one in known if isinstance(one, dict) and one.get("store") == "huggingface"
    }


def _wrap(original):
    @functools.wraps(original)
    def init(*args, **kwargs):
        added = _resume(args, kwargs)
        try:
            run = outage.start(original, args, {**kwargs, **added}, _in_wandb, passed_on=_GONE if added else ())
        except Exception as error:
            if not added:
                raise
            if _GONE[0] in str(error):
                notice.warning("W&B has deleted run %s of this job; a new one is started" % added["id"])
            elif _GONE[1] in str(error):
                # Clients up to 0.27 give only this time-out for a deleted run.
                notice.warning(
                    "W&B did not take up run %s of this job in time (it may be deleted); a new one is started"
                    % added["id"]
                )
            else:
                raise
            run = outage.start(original, args, kwargs, _in_wandb)
        _record_safely(run)
        return run

    setattr(init, _MARK, original)
    return init


def _record_safely(run):
    """Call `_record`, and hide its exceptions from the caller of `wandb.init`."""
    try:
        _record(run)
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("the inputs of this job are not recorded in W&B: %s: %s" % (type(error).__name__, error))


def _record(run):
    in_wandb, elsewhere = inputs()
    tags = _all_tags()
    if run is None or getattr(run, "disabled", False) or not (in_wandb or elsewhere or tags):
        return
    identity = _identity(run)
    recordable = in_wandb + list(_of_hub())
    new = [name for name in recordable if job.once("input recorded", identity, name)]
    # `wandb sync` uploads the config of an offline run, and so the inputs in it.
    if in_wandb or elsewhere:
        run.config.update({CONFIG_KEY: {"inputs": in_wandb + elsewhere}}, allow_val_change=True)
    if set(tags) - set(run.tags or ()):
        run.tags = tuple(run.tags or ()) + tuple(tag for tag in tags if tag not in (run.tags or ()))
    if getattr(run, "offline", False) or not recordable:
        _say(identity, run, in_wandb + elsewhere, "in its config")
    elif new:
        job.part(_Runs).used.update(((identity, name), [threading.Event(), None]) for name in new)
        thread = threading.Thread(target=_use, args=(run, new), name="nemotron-exec-lineage", daemon=True)
        thread.start()
        thread.join(_timeout())


def _all_tags():
    """The tags of the config (`run.wandb.tags`) and those that a script has added."""
    said = (handoff.read().get("wandb") or {}).get("tags")
    said = [str(tag) for tag in said if isinstance(tag, (str, int))] if isinstance(said, (list, tuple)) else []
    return said + [tag for tag in job.part(_Runs).tags if tag not in said]


def _unseed_identities():
    """Replace the ids of clients 0.23: they come from the global `random`, so ranks with one seed get one id.

    Release 0.24 has fixed this in the same way, by a generator of its own (github.com/wandb/wandb/pull/11039).
    """
    runid = sys.modules.get("wandb.sdk.lib.runid")
    draw = getattr(runid, "generate_fast_id", None)
    if draw is None or getattr(draw, "__globals__", {}).get("_random") is not None:
        return
    if "random" not in getattr(getattr(draw, "__code__", None), "co_names", ()):
        return
    # `generate_id` of all clients uses the system's randomness, which no seed changes.
    for module in (runid, sys.modules.get("wandb.sdk.artifacts.artifact")):
        if getattr(module, "generate_fast_id", None) is draw:
            module.generate_fast_id = runid.generate_id


def _use_once(run_class):
    """Wrap `use_artifact`: an input that the run has recorded is not recorded again by a framework or a script.

    Megatron-Bridge calls it for a checkpoint that it loads, and NVIDIA's kit for the artifacts that it looks up.
    """
    original = vars(run_class).get("use_artifact")
    if original is None or hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def use_artifact(self, artifact_or_name, *args, **kwargs):
        used = _used_already(self, artifact_or_name) if not args and not kwargs else None
        return original(self, artifact_or_name, *args, **kwargs) if used is None else used

    setattr(use_artifact, _MARK, original)
    run_class.use_artifact = use_artifact


def _used_already(run, name):
    """The artifact that this run has recorded under this name, or under a pinned alias of it; None without one."""
    if getattr(_recording, "now", False):
        return None
    if not isinstance(name, str):
        name = getattr(name, "qualified_name", None)
    try:
        identity = _identity(run)
        for pinned in handoff.read().get("artifacts") or ():
            if pinned.get("store") == "wandb" and _means(name, pinned, identity[1:3]):
                return _wait_for(identity, pinned["qualified_name"])
        return _wait_for(identity, name)
    except Exception as error:
        notice.debug("whether the run uses %s already is unknown: %r" % (name, error))
        return None


def _means(name, pinned, where):
    """Whether a script's name means a pinned artifact: by its version, its iteration, or the alias of its reference."""
    project = "/".join(map(str, where))
    if (
        "/" in str(name)
        and str(name).count("/") == 2
        and not str(pinned.get("qualified_name")).startswith(str(name).rpartition("/")[0] + "/")
    ):
        return False
    short, colon, alias = str(name).rpartition("/")[2].rpartition(":")
    if not colon or short != pinned.get("name"):
        return False
    if "/" not in str(name) and not str(pinned.get("qualified_name")).startswith(project + "/"):
        return False
    iteration = pinned.get("iteration")
    meant = [pinned.get("version"), str(pinned.get("reference")).rpartition(":")[2]]
    if isinstance(iteration, int):
        meant += ["iter_%07d" % iteration, "step_%d" % iteration]
    return alias in meant


def _wait_for(identity, name):
    """Wait for the artifact that this run records under a name; None if it records none, or if that failed."""
    entry = job.part(_Runs).used.get((identity, name))
    if entry is None or not entry[0].wait(_timeout()):
        return None
    return entry[1]


def _identity(run):
    return os.getpid(), getattr(run, "entity", None), getattr(run, "project", None), run.id


def _use(run, names):
    """Record inputs, each with one look-up and one mutation. This thread goes on after the caller's bound."""
    used, of_hub = [], _of_hub()
    _recording.now = True
    for name in names:
        entry = job.part(_Runs).used[(_identity(run), name)]
        try:
            entry[1] = run.use_artifact(_reference(of_hub[name]) if name in of_hub else name)
        except Exception as error:
            notice.warning("W&B did not record that this run uses %s: %s" % (name, error))
        else:
            used.append(name)
        finally:
            entry[0].set()
    if used:
        noted.note("inputs", run=run.id, names=used)
        notice.info("the W&B run %s records its inputs: %s" % (run.id, ", ".join(used)))


def _reference(pinned):
    """A W&B artifact that refers to the commit of a Hugging Face repository. W&B fetches no file of it.

    A commit always has the same address, and so the same digest: W&B keeps one version for all runs and ranks.
    """
    artifact = sys.modules["wandb"].Artifact(
        "%ss--%s" % (pinned["type"], pinned["name"].replace("/", "--")),  # the name in the hub's cache
        type=pinned["type"],
        description=pinned["qualified_name"],
        metadata={"id": pinned["name"], "revision": pinned["digest"]},
    )
    artifact.add_reference(pinned["source"], name="repository", checksum=False)
    return artifact


def _say(identity, run, names, where):
    """Report the inputs once for each run: `init` may be called often."""
    if not names or not job.once("inputs said", identity):
        return
    noted.note("inputs", run=run.id, names=names, where=where)
    notice.info("the W&B run %s has its inputs %s: %s" % (run.id, where, ", ".join(names)))


def _timeout():
    try:
        return min(max(0.0, float(os.environ.get("NEMOTRON_EXEC_LINEAGE_TIMEOUT", ""))), threading.TIMEOUT_MAX)
    except ValueError:
        return _TIMEOUT


def _resume(args, kwargs):
    """The arguments `id` and `resume` for the run that this job continues (`run.wandb.resume: auto`); {} for none.

    The first process of the job that starts a run continues it. A run that the caller or the environment names wins.
    """
    resume = (handoff.read().get("wandb") or {}).get("resume")
    identity = resume.get("id") if isinstance(resume, dict) else None
    if not identity or args or job.part(_Runs).claim is not None:
        return {}
    settings = kwargs.get("settings")
    # Settings may be a dictionary or a wandb.Settings, which has other names for some arguments.
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
    job.part(_Runs).claim = claim = _lock_run()
    return {"id": identity, "resume": "allow"} if claim else {}


def _lock_run():
    """Take the lock of the continued run; False if another process has it. The lock ends with the process."""
    import fcntl

    path = os.environ["NEMOTRON_EXEC_HANDOFF"] + ".wandb-run"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        notice.warning(
            "the W&B run is not resumed (run.wandb.resume): %s cannot be opened here (%s). Give the launcher a "
            "directory that every node sees with --state-dir DIR" % (path, error.strerror)
        )
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return descriptor or True
