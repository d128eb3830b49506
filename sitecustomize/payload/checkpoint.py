"""A completed checkpoint becomes an artifact: named, described, durable before the framework goes on.

The patches call `record` at the moment when the framework has completed a checkpoint, and `deliver` when its own
callback has run. `record` writes the outbox entry, with fsync, and the manifest on the calling thread: after it,
nothing can make the checkpoint forgotten. All else is the commit thread's (commit.py), waiting for the disk to have the
manifest included: the entry stays until then.
"""

from __future__ import annotations

import collections
import datetime
import os
import re
import subprocess
import sys

from . import commit, delivery, handoff, manifest, mountinfo, notice, outbox, process, pruning, run_record, same_save

WAIT_VARIABLE = "NEMOTRON_EXEC_CHECKPOINT_WAIT"
_ELSEWHERE_SECONDS = 120
_LOCK_WAIT = 0.5  # seconds for which training waits for other writers of the store; a dead one's lock lasts longer
POLICIES = ("all", "periodic", "best", "last", "none")

Completed = collections.namedtuple(
    "Completed",
    [
        "framework",  # "megatron-bridge" or "nemo-rl"
        "versions",  # {"megatron-bridge": "0.3.1", "torch": …}
        "save_dir",  # as the job names it
        "checkpoint_path",  # as the job names it
        "number",  # iteration or step, from the path; None if the path has none
        "alias",  # iter_0000010, step_10
        "path_is_checkpoint",  # `path` of the artifact is the checkpoint itself, not the save directory
        "transient",  # will be deleted by the framework soon, by its own plan
        "best",  # whether it is the best so far; None without a metric
        "extra",  # further metadata
    ],
)

Announced = collections.namedtuple("Announced", ["entry", "path"])
Recorded = collections.namedtuple("Recorded", ["entry", "path", "settle"])


class Settings:
    """What the hand-off and the environment say about checkpoints. Read once a process, at its first checkpoint."""

    def __init__(self, data=None, environ=os.environ):
        data = data or {}
        wandb = data.get("wandb") or {}
        self.store = environ.get("NEMOTRON_EXEC_STORE") or data.get("store") or manifest.default_root(environ)
        self.backend = environ.get("NEMOTRON_EXEC_BACKEND") or data.get("backend") or "manifest"
        self.project = environ.get("WANDB_PROJECT") or wandb.get("project")
        self.entity = environ.get("WANDB_ENTITY") or wandb.get("entity")
        # Artifacts are looked up in W&B: the next job finds only what gets there, be it by a flush.
        self.sends_to_wandb = bool(
            self.backend == "wandb"
            and self.project
            and environ.get("WANDB_MODE", "").lower() != "disabled"
            and environ.get("WANDB_DISABLED", "").lower() not in ("true", "1")
        )
        self.publish = data.get("publish") or None
        policy = data.get("checkpoints") or "all"
        if policy not in POLICIES:
            notice.warning("run.checkpoints is %r, and must be one of %s: taken as all" % (policy, ", ".join(POLICIES)))
            policy = "all"
        self.policy = policy
        self.job = (data.get("job") or {}).get("id") or environ.get("NEMO_EXPERIMENT_ID") or ""
        self.used_artifacts = [
            one["qualified_name"] for one in data.get("artifacts") or () if one.get("qualified_name")
        ]
        self.handoff = data


_settings = None


def settings():
    """The process's `Settings`."""
    global _settings
    if _settings is None:
        _settings = Settings(handoff.read())
    return _settings


def is_uri(path):
    """Whether a path is `scheme://…`: recorded as it is, never resolved, translated, looked at or synced."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://", path) is not None


def number_in(path):
    """The number at the end of a checkpoint's name (`iter_0000010` is 10), or None."""
    match = re.search(r"_(\d+)\Z", os.path.basename(path.rstrip("/")))
    return int(match.group(1)) if match else None


def artifact_name(save_dir):
    """The artifact's name where the config gives none: the stem of the save directory, as Megatron-Bridge takes it."""
    parts = [part for part in re.split(r"/+", save_dir.rstrip("/")) if part]
    if len(parts) > 1 and parts[-1] == "non_persistent":
        parts.pop()  # Megatron-Bridge's directory for transient checkpoints, below the save directory
    base = parts[-1] if parts else ""
    stem = os.path.splitext(base)[0] if not base.startswith(".") else base
    return manifest.safe_name(stem.replace("/", "-")) if stem else "checkpoint"


def published_name(publish):
    """`run.publish` as `(name, alias or None)`; None where it is no name that a store would take."""
    name, _, alias = str(publish).partition(":")
    try:
        return manifest.check_name(name), alias or None
    except manifest.StoreError:
        return None


def versions(framework, modules):
    """Versions of the framework and of what stands beside it, of what this process has imported.

    Args:
        framework: Name of the distribution that the checkpoint is of.
        modules: `{distribution: module}`.
    """
    # Attributes of modules that are imported anyway: the training thread reads nothing from disk for them.
    found = {name: getattr(sys.modules.get(module), "__version__", None) for name, module in modules.items()}
    found = {name: str(version) for name, version in found.items() if version is not None}
    if framework not in found:
        try:
            import importlib.metadata

            found[framework] = importlib.metadata.version(framework)
        except Exception as error:
            notice.debug("no version of %s: %r" % (framework, error))
    return found


def record(completed, to_wandb=True):
    """Make a completed checkpoint durable: outbox entry, then manifest.

    Args:
        completed: The checkpoint.
        to_wandb: False where the framework sees to W&B.

    Returns:
        `Recorded`, or None where `run.checkpoints` leaves this checkpoint out.
    """
    announced = announce(completed, to_wandb)
    return announced and complete(announced)


def announce(completed, to_wandb=True, renamed_from=None):
    """The first half of `record`: the outbox entry, durable.

    Args:
        completed: The checkpoint.
        to_wandb: False where the framework sees to W&B.
        renamed_from: The directory that the framework is about to rename to the checkpoint's, as its last step. What
            dies between that step and `complete` is found by `nemotron_exec.flush` all the same.

    Returns:
        `Announced`, for `complete` or `withdraw`; None where `run.checkpoints` leaves this checkpoint out.
    """
    config = settings()
    if not _wanted(completed, config.policy):
        return None
    entry = describe(completed, config, renamed_from)
    if not to_wandb:
        entry["wandb"] = None
    directories = outboxes(completed.save_dir, config)
    path, problem = None, None
    for directory in directories:
        try:
            path = outbox.write(directory, entry)
            break
        except OSError as error:
            problem = "%s: %s" % (directory, error.strerror or error)
    if path is None:
        notice.warning(
            "checkpoint %s has no outbox entry (%s): if this job dies before W&B has it, nothing will send it again"
            % (entry["checkpoint_path"], problem or "there is no place for one")
        )
    return Announced(entry, path)


def withdraw(announced):
    """Forget an announced checkpoint that has come to nothing."""
    if announced.path is not None:
        outbox.remove(announced.path)


def complete(announced):
    """The second half of `record`: the manifest.

    Returns:
        `Recorded`.
    """
    entry, path = announced
    entry["gone"] = not is_uri(entry["local_path"]) and not os.path.isdir(entry["local_path"])
    settle = None
    # One that the background has not registered yet goes first: `latest` is the version that came last.
    if manifest.is_local(entry["store"]) and not any(one.overdue for one in commit.COMMITTER.pending()):
        try:
            # The entry in the outbox is on the disk, and stays until the manifest is: training need not wait for that.
            files = manifest.LocalFiles(entry["store"])
            if path is not None:
                files.deferred = set()
                files.lock_wait = _LOCK_WAIT
            register(entry, files)
            settle = files.settle
        except Exception as error:
            if path is not None and str(error).startswith("to take the lock "):
                notice.debug("checkpoint %s is registered in the background: %s" % (entry["checkpoint_path"], error))
            else:
                notice.warning(
                    "checkpoint %s is not in the manifest store %s yet (%s): it is tried again in the background"
                    % (entry["checkpoint_path"], entry["store"], error)
                )
    return Recorded(entry, path, settle)


def nothing_to_settle():
    """`Recorded.settle` of a checkpoint that the manifest store has for good."""


def describe(completed, config, renamed_from=None):
    """The outbox entry of a checkpoint: everything that any store will be told of it. Arguments as for `announce`."""
    uri = is_uri(completed.save_dir)
    save_dir = completed.save_dir if uri else os.path.abspath(completed.save_dir)
    local = (
        completed.checkpoint_path if is_uri(completed.checkpoint_path) else os.path.abspath(completed.checkpoint_path)
    )
    host_save_dir = save_dir if uri else mountinfo.to_host(save_dir)
    host = _below(host_save_dir, save_dir, local)
    path = host if completed.path_is_checkpoint else host_save_dir
    name, aliases = _names(completed, save_dir, config)
    metadata = {
        "iteration": completed.number,
        "step": completed.number,
        "absolute_path": path,
        "checkpoint_path": host,
        "framework": completed.framework,
        "framework_version": completed.versions.get(completed.framework),
        "versions": completed.versions,
        "transient": completed.transient,
        "job": config.job or None,
        "run_record": run_record.path_for(config, save_dir, host_save_dir),
        "format": "megatron" if completed.framework == "megatron-bridge" else "nemo-rl",
    }
    if not is_uri(local) and os.path.isfile(os.path.join(renamed_from or local, "hf", "config.json")):
        metadata["hf_path"] = host + "/hf"
        metadata["format"] += "+hf"
    metadata.update(completed.extra)
    entry = {
        "event": outbox.new_event(),
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "store": config.store,
        "name": name,
        "type": "model",
        "path": path,
        "checkpoint_path": host,
        "local_path": local,
        "save_dir": save_dir,
        "iteration": completed.number,
        "aliases": aliases,
        "latest": not completed.transient,
        "gone": False,
        "metadata": {key: value for key, value in metadata.items() if value is not None},
        "used_artifacts": config.used_artifacts,
        "producer": config.job or "local",
        "process": process.here(),
        "wandb": _wandb_target(completed, name, aliases, config),
    }
    if renamed_from is not None:
        entry["renamed_from"] = os.path.basename(os.path.normpath(renamed_from))
    same_save.mark(entry)
    return entry


def _below(host_save_dir, save_dir, path):
    """The host's name of a path, looked up only once where it lies in the save directory."""
    if is_uri(path):
        return path
    if path.startswith(save_dir + "/"):
        return host_save_dir.rstrip("/") + path[len(save_dir) :]
    return mountinfo.to_host(path)


def outboxes(save_dir, config):
    """Where the entry may lie, the preferred directory first: beside the checkpoint, else in the store."""
    found = []
    # A directory that is gone is not made again: the framework may look for it.
    if not is_uri(save_dir) and os.path.isdir(save_dir):
        found.append(outbox.directory_of(os.path.abspath(save_dir)))
    if manifest.is_local(config.store):
        found.append(outbox.directory_of(config.store))
    else:
        near = os.path.dirname(os.environ.get("NEMOTRON_EXEC_HANDOFF", ""))
        data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
        found.append(outbox.directory_of(near if os.path.isdir(near) else os.path.join(data, "nemotron-exec")))
    return found


def find(entry, store):
    """The number of the version in a store (path or file system object) that came of an entry, or None."""
    for number in reversed(manifest.versions(store, entry["name"])):
        try:
            found = manifest.read_version(store, entry["name"], number)
        except manifest.StoreError:
            continue  # a damaged version is none of ours
        if found.manifest.get("event") == entry["event"]:
            return number
    return None


def register(entry, store=None, there=same_save.find_new):
    """Put an entry into a manifest store, unless that has it, or has the same save from another process.

    Args:
        entry: The outbox entry; where another process has reported the same save, it says what that one's says from
            then on.
        store: Path or file system object; default the entry's own.
        there: `there(entry, files)` finds the version that is of the same save; the default is quick, in the
            process that saved.

    Returns:
        The `manifest.Version`; its `new` is False where it was there.
    """
    store = entry["store"] if store is None else store
    extra = {"event": entry["event"], "checkpoint_path": entry["checkpoint_path"]}
    if entry["wandb"] is not None and entry["wandb"]["run"]:
        extra["wandb_run"] = entry["wandb"]["run"]
    replaced = same_save.replaced(entry, manifest.open_files(store))
    version = manifest.register(
        store,
        entry["name"],
        type=entry["type"],
        path=entry["path"],
        metadata=entry["metadata"],
        fields={"absolute_path": entry["path"], "iteration": entry["iteration"]},
        used_artifacts=entry["used_artifacts"],
        producer=entry["producer"],
        created_at=entry["created_at"],
        aliases=entry["aliases"],
        move_latest=entry["latest"],
        extra=extra,
        unless=lambda files: there(entry, files),
    )
    same_save.own(entry)
    if entry["gone"]:
        manifest.mark_pruned(store, entry["name"], version.number)
    else:
        pruning.remember(entry, version.number)
    if replaced is not None and version.new:
        pruning.remember(entry, replaced)  # of one directory, only the newest version has its data
    return version


def active_run():
    """The W&B run of this process, or None. Never imports wandb."""
    wandb = sys.modules.get("wandb")
    return getattr(wandb, "run", None)


def deliver(recorded, handle=None):
    """Hand a recorded checkpoint to the commit thread, or, with `NEMOTRON_EXEC_CHECKPOINT_WAIT=block`, finish it here.

    Args:
        recorded: What `record` returned.
        handle: The W&B artifact that the framework has logged for it, if it has.
    """
    entry = recorded.entry
    if entry.get("sent_by") and not getattr(handle, "logged", False):
        handle = None
    run = active_run()
    send = None
    if run is not None and (entry["wandb"] is not None or handle is not None):
        send = _sender(run) if entry["wandb"] is not None else None
        _settle_before_finish(run)
    if recorded.settle is not None:
        registering = lambda _entry: recorded.settle()  # noqa: E731
    else:
        registering = register if manifest.is_local(entry["store"]) else _registering_elsewhere(recorded.path)
    keep = run is None and handle is None and entry["wandb"] is not None
    if keep:
        _say_who_sends(entry)
    one = delivery.Delivery(entry, recorded.path, register=registering, send=send, handle=handle, keep=keep)
    one.overdue = recorded.settle is None
    committer = commit.COMMITTER
    committer.job(lambda: run_record.write_once(settings(), entry))
    committer.job(_touch_handoff)
    pruning.look_soon(entry["save_dir"])
    last = settings().policy == "last"
    if os.environ.get(WAIT_VARIABLE) == "block" and not last:
        one.block()
    if last and not getattr(handle, "logged", False):
        committer.hold(one)
    else:
        committer.deliver(one)


_said = set()  # save directories


def _say_who_sends(entry):
    if entry["save_dir"] not in _said:
        _said.add(entry["save_dir"])
        notice.info(
            "this process has no W&B run: W&B gets its checkpoints when a next job saves to %s or asks for them, or by "
            "`nemotron-artifact flush`" % entry["save_dir"]
        )


def _touch_handoff():
    """Old jobs' state is removed by age: a job that still saves is not old (retention.py)."""
    try:
        os.utime(os.environ.get("NEMOTRON_EXEC_HANDOFF", ""))
    except OSError:
        return


def _settle_before_finish(run):
    """Have a run's end wait for what is still to be logged to it: a finished run takes no artifact."""
    name = "_finish" if hasattr(run, "_finish") else "finish"
    original = getattr(run, name, None)
    attributes = getattr(run, "__dict__", None)
    if original is None or attributes is None or hasattr(original, "nemotron_exec"):
        return

    def finish(*args, **kwargs):
        commit.COMMITTER.finish(commit.drain_seconds())
        return original(*args, **kwargs)

    finish.nemotron_exec = True
    attributes[name] = finish  # a run accepts no new attribute in the ordinary way


def _registering_elsewhere(path):
    """A store that is a URI needs fsspec, which the launcher's own interpreter has."""

    def registering(entry):
        python = os.environ.get("NEMOTRON_EXEC_PYTHON")
        if python is None or path is None:
            raise commit.GivenUpError(
                "it is not in the store %s: %s" % (entry["store"], "no outbox entry" if python else "no launcher")
            )
        # The launcher's environment is not the job's: none of the job's paths, and no injection.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environ["NEMOTRON_EXEC_DISABLE"] = "1"
        subprocess.run(
            [python, "-m", "nemotron_exec.flush", "--entry", path, "--no-wandb"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_ELSEWHERE_SECONDS,
            env=environ,
            check=True,
        )

    return registering


def _sender(run):
    def send(entry):
        return delivery.log_to_wandb(sys.modules["wandb"], run, entry)

    return send


def _wanted(completed, policy):
    if policy == "none":
        return False
    if policy == "periodic":
        return not completed.transient
    if policy == "best":
        return completed.best is not False
    return True


def _names(completed, save_dir, config):
    aliases = [completed.alias] if completed.alias else []
    if completed.best:
        aliases.append("best")
    published = published_name(config.publish) if config.publish else None
    if config.publish and published is None:
        notice.warning("run.publish is %r, which is no artifact name: the save directory's is used" % (config.publish,))
    if published is None:
        return artifact_name(save_dir), aliases
    name, alias = published
    return name, aliases + [alias] if alias and alias != "latest" else aliases


def _wandb_target(completed, name, aliases, config):
    if completed.transient:
        return None
    run = active_run()
    if run is None and not config.sends_to_wandb:
        return None
    return {
        "name": name.replace("/", "-"),
        "published": bool(config.publish),
        "aliases": aliases + ["latest"],
        "project": getattr(run, "project", None) or config.project,
        "entity": getattr(run, "entity", None) or config.entity,
        "run": getattr(run, "id", None),
    }
