"""From a recorded checkpoint to its store and to W&B, off the training thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from .. import job, noted, notice
from ..manifest import inventory, names
from . import commit, delivery, earlier, hooks, offline_run, outbox, pruning, run_record
from .describe import active_run, is_uri
from .record import register
from .settings import settings

__all__ = []

WAIT_VARIABLE = "NEMOTRON_EXEC_CHECKPOINT_WAIT"
LAST = "last.json"
DIGESTS_VARIABLE = "NEMOTRON_EXEC_CHECKPOINT_DIGESTS"

_ELSEWHERE_SECONDS = 120
_NAMING_SECONDS = 30  # the end of the job waits for this; if it fails, the next start's flush does it


def deliver(recorded, handle=None, hold=True):
    """Hand a recorded checkpoint to the commit thread, or, with `NEMOTRON_EXEC_CHECKPOINT_WAIT=block`, finish it here.

    Args:
        recorded: What `record` returned.
        handle: The W&B artifact that the framework has logged for it, if it has.
        hold: Whether `run.checkpoints: last` may hold the checkpoint back until a later one replaces it.
    """
    entry = recorded.entry
    if entry.get("sent_by") and not getattr(handle, "logged", False):
        handle = None
    run = active_run()
    offline = recorded.path is not None and entry["wandb"] is not None and offline_run.is_sent_later(run)
    if offline and not getattr(handle, "logged", False):
        run = handle = None
    send = None
    if run is not None and (entry["wandb"] is not None or handle is not None):
        send = _sender(run) if entry["wandb"] is not None else None
        _settle_before_finish(run)
    if recorded.settle is not None:
        registering = _with_inventory(lambda _entry: recorded.settle())
    elif names.is_local(entry["store"]):
        registering = _with_inventory(register)
    else:
        registering = _registering_elsewhere(recorded.path)
    naming = None if names.is_local(entry["store"]) else _naming_elsewhere(recorded.path)
    keep = run is None and handle is None and entry["wandb"] is not None
    if keep:
        _say_who_sends(entry, offline)
    one = delivery.Delivery(
        entry, recorded.path, register=registering, send=send, handle=handle, keep=keep, name=naming
    )
    one.then = hooks.fire if entry.get("hooks") else None
    one.overdue = recorded.settle is None
    committer = commit.committer()
    committer.job(lambda: run_record.write_once(settings(), entry))
    committer.job(_touch_handoff)
    committer.job(lambda: noted.note("checkpoint", name=entry["name"], path=entry["checkpoint_path"]))
    earlier.send_soon(entry["save_dir"])
    pruning.look_soon(entry["save_dir"])
    # A transient checkpoint is not held: it would replace the waiting one, never go to W&B, and leave W&B with none.
    last = hold and settings().policy == "last" and entry["latest"]
    if os.environ.get(WAIT_VARIABLE) == "block" and not last:
        one.block()
    if last and not getattr(handle, "logged", False):
        committer.hold(one)
    else:
        committer.deliver(one)


def _with_inventory(registering):
    def register_and_count(entry):
        registering(entry)
        take_inventory(entry)

    return register_and_count


def take_inventory(entry):
    """Put the names and sizes of a registered checkpoint's files beside its manifest; never raises.

    Args:
        entry: The outbox entry, which `record.register` has told where its version is.
    """
    directory, path = entry.get("registered"), entry["local_path"]
    if directory is None or is_uri(path) or not os.path.exists(path):
        return
    try:
        _note(entry, inventory.record(entry["store"], directory, path))
        rate = _digest_rate()
        if rate:
            work = lambda: _add_digests(entry["store"], directory, path, rate)  # noqa: E731
            threading.Thread(target=work, name="nemotron-exec-digests", daemon=True).start()
    except Exception as error:
        notice.debug("no inventory of %s: %r" % (path, error))


def _note(entry, found):
    """Note the last checkpoint's size in the save directory: the next start compares it with the free space."""
    directory = os.path.join(entry["save_dir"], ".nemotron-exec")
    if outbox.linked(directory) or not os.path.isdir(directory):
        return
    body = {
        "schema": 1,
        "checkpoint": entry["local_path"],
        "version_directory": entry["registered"],
        "files": len(found),
        "bytes": sum(found.values()),
        "file_system": entry.get("file_system"),
    }
    outbox.write_durably(os.path.join(directory, LAST), json.dumps(body, indent=1))


def _digest_rate(environ=os.environ):
    """`NEMOTRON_EXEC_CHECKPOINT_DIGESTS`, in bytes a second; 0 for no digests."""
    try:
        return max(0.0, float(environ.get(DIGESTS_VARIABLE) or 0)) * 1e6
    except ValueError:
        return 0.0


def _add_digests(store, directory, path, rate):
    try:
        inventory.add_digests(store, directory, path, rate)
    except Exception as error:
        notice.debug("no digests of %s: %r" % (path, error))


def _say_who_sends(entry, offline):
    if job.once("who sends", entry["save_dir"]):
        notice.info(
            "this process has %s: W&B gets its checkpoints when a next job saves to %s or asks for them, or by "
            "`nemotron-artifact flush`" % ("an offline W&B run" if offline else "no W&B run", entry["save_dir"])
        )


def _touch_handoff():
    """Renew the hand-off's time: retention.py removes old jobs' state by age, and this job still saves."""
    try:
        os.utime(os.environ.get("NEMOTRON_EXEC_HANDOFF", ""))
    except OSError:
        return


def _settle_before_finish(run):
    """Make a run's end wait for artifacts that are still to be logged to it: a finished run takes none."""
    name = "_finish" if hasattr(run, "_finish") else "finish"
    original = getattr(run, name, None)
    attributes = getattr(run, "__dict__", None)
    if original is None or attributes is None or hasattr(original, "nemotron_exec"):
        return

    def finish(*args, **kwargs):
        commit.committer().finish(commit.drain_seconds())
        return original(*args, **kwargs)

    finish.nemotron_exec = True
    attributes[name] = finish  # a run's `__setattr__` accepts no new attribute


def _registering_elsewhere(path):
    """Registers in a store that is a URI: that needs fsspec, so the launcher's interpreter does it."""

    def registering(entry):
        if path is None or _launcher() is None:
            raise commit.GivenUpError(
                "it is not in the store %s: %s" % (entry["store"], "no launcher" if path else "no outbox entry")
            )
        _flush("--entry", path, "--no-wandb", seconds=_ELSEWHERE_SECONDS)

    return registering


def _naming_elsewhere(path):
    """Records a checkpoint's number in W&B in such a store, by the launcher's interpreter, too."""

    def naming(qualified_name):
        if path is not None and _launcher() is not None:
            _flush("--in-wandb", qualified_name, path, seconds=_NAMING_SECONDS)

    return naming


def _launcher():
    return os.environ.get("NEMOTRON_EXEC_PYTHON")


def _flush(*words, seconds):
    # The launcher's interpreter needs its own packages: drop the job's PYTHON variables and the injector.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["NEMOTRON_EXEC_DISABLE"] = "1"
    subprocess.run(
        [_launcher(), "-I", "-m", "nemotron_exec.outbox.flush", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=seconds,
        env=environ,
        check=True,
    )


def _sender(run):
    def send(entry):
        return delivery.log_to_wandb(sys.modules["wandb"], run, entry)

    return send
