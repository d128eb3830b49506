"""A W&B run that was started offline because W&B did not answer: an outbox entry, `run-EVENT.json`, until it is sent.

The entry is written durably before `wandb.init` returns. The process that has sent the run removes the entry (the
launcher's `outbox/offline_runs.py`). The job's process touches the entry every minute, so that other nodes see that it
lives. If another process has sent the run meanwhile, the job's process writes the entry again, because the run has gone
on.
"""

from __future__ import annotations

import datetime
import os
import sys
import threading

from .. import notice
from ..paths import host
from ..paths.absolute import absolute
from . import outbox, process
from .settings import settings

__all__ = ["is_sent_later", "remember"]

PREFIX = "run-"
_ENTRY = "nemotron_exec_entry"
BEAT = 60.0  # seconds


def remember(run, url, inputs):
    """Put an offline run into the outbox.

    Args:
        run: The offline run.
        url: The W&B server to send the run to.
        inputs: Names of the W&B artifacts that the job uses.

    Returns:
        (The argument for `nemotron-artifact flush`, the run's file).
    """
    config = settings()
    wandb = sys.modules["wandb"]
    of_run = run.settings
    file = absolute(str(of_run.sync_file))
    store = config.store if config.store and "://" not in config.store else None
    place = store or os.path.dirname(os.path.dirname(file))
    entry = {
        "event": outbox.new_event(),
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "kind": "wandb-run",
        "run": run.id,
        "project": of_run.project or config.project,
        "entity": of_run.entity or config.entity,
        "file": host.to_host(file),
        "local_file": file,
        "url": url,
        "inputs": list(inputs),
        "job": config.job,
        "process": process.here(),
        "python": sys.executable,
        "client": getattr(wandb, "__version__", None),
        "ended": False,
    }
    path = outbox.write(outbox.directory_of(place), entry, PREFIX)
    _Beat(path, entry).begin(run)
    run.__dict__[_ENTRY] = path  # a run's `__setattr__` accepts no new attribute
    return "" if store else place, file


def is_sent_later(run):
    """Whether a run was started offline because W&B did not answer, and has an entry.

    Its checkpoints are not logged to it: their own entries wait. `wandb sync` would log an artifact each time that the
    run is sent, as a new version if there are newer ones, and give it `latest`.
    """
    return _ENTRY in getattr(run, "__dict__", ())


class _Beat:
    """Touches the entry until the run ends, and then notes the end in it."""

    def __init__(self, path, entry):
        self._path = path
        self._entry = entry
        self._pid = os.getpid()
        self._over = threading.Event()

    def begin(self, run):
        threading.Thread(target=self._beat, name="nemotron-exec-offline-run", daemon=True).start()
        name = "_finish" if hasattr(run, "_finish") else "finish"
        original = getattr(run, name)

        def finish(*args, **kwargs):
            result = original(*args, **kwargs)
            self._end()
            return result

        run.__dict__[name] = finish  # a run's `__setattr__` accepts no new attribute

    def _beat(self):
        while not self._over.wait(BEAT):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                self._write()  # another process took this process for dead, sent the run and removed the entry
            except OSError:
                continue

    def _end(self):
        if os.getpid() == self._pid and not self._over.is_set():
            self._over.set()
            self._entry["ended"] = True
            self._write()

    def _write(self):
        try:
            outbox.write(os.path.dirname(self._path), self._entry, PREFIX)
        except OSError as error:
            notice.debug("the offline run's entry %s: %s" % (self._path, error))
