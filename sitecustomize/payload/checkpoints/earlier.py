"""Checkpoints that an earlier run has left in the outbox of this run's save directory.

The launcher sends them before the start, where the config names the save directory. A script that takes it from
its own options (`--save`) shows it with its first checkpoint. The outbox is looked into then, once a process and
directory, on the commit thread, and a child process with the launcher's Python sends its entries.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading

from .. import job, notice
from . import commit, describe, outbox, process

__all__ = []

_SECONDS = 120  # the bound on sending; if W&B does not answer, the entries stay


def send_soon(save_dir):
    """Send the entries that an earlier run has left in a save directory. Never raises, and never waits.

    Args:
        save_dir: An absolute path, or a URI, which has no outbox.
    """
    if not describe.is_uri(save_dir) and job.once("earlier", os.getpid(), save_dir):
        commit.committer().job(lambda: _look(save_dir))


def _look(save_dir):
    left = [
        path
        for path, entry in outbox.entries(outbox.directory_of(save_dir))
        if not process.alive(entry.get("process")) and (entry.get("process") or {}).get("pid") != os.getpid()
    ]
    python = os.environ.get("NEMOTRON_EXEC_PYTHON")
    if left and python:
        # Send on a thread of its own: W&B may be slow, and the commit thread has this run's checkpoints to deliver.
        threading.Thread(target=_send, args=(python, left), name="nemotron-exec-earlier", daemon=True).start()


def _send(python, paths):
    # The launcher's interpreter needs its own packages: drop the job's PYTHON variables and the injector.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["NEMOTRON_EXEC_DISABLE"] = "1"
    words = [python, "-I", "-m", "nemotron_exec.outbox.flush", "--json", "--timeout", str(_SECONDS)]
    try:
        done = subprocess.run(
            words + paths,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS + 30,
            env=environ,
            check=False,
        )
        answer = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        notice.info(
            "checkpoints of an earlier run: %d added to the manifest store, %d sent to W&B"
            % (answer["registered"], answer["sent"])
        )
        for path, why in answer["kept"]:
            notice.debug("%s stays in the outbox: %s" % (path, why))
    except (OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError) as error:
        notice.debug("checkpoints of an earlier run stay in the outbox: %r" % (error,))
