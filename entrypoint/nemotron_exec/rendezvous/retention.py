"""Removes the state of old jobs by age, but not while a job lives, as far as that is known.

A launcher becomes its command by exec and keeps its process id, so this machine's living jobs are known. For other
machines the last sign counts: any file written or touched in the job's directory, such as the hand-off at every
checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from nemotron_exec.place.state_directory import StateDirectory

__all__ = ["AGE", "clean"]

AGE = 30 * 86400.0
"""Seconds without a sign of life after which a job's state is removed."""
_EVERY = 86400.0
_BUDGET = 1.0
_DYING = ".removed-"


def clean(state: StateDirectory, *, keep: str, now: float, age: float = AGE) -> list[str]:
    """Remove jobs' directories older than `age`. A job waits for it, so it runs once a day at most, and for a second.

    Args:
        state: The state directory with the jobs.
        keep: Name of the directory of the job that is starting.
        now: The file server's time.
        age: Seconds without a sign after which a job is old.

    Returns:
        The names of the removed directories.
    """
    jobs = os.path.join(state.path, "jobs")
    stamp = os.path.join(state.path, "cleaned")
    try:
        if now - os.lstat(stamp).st_mtime < min(_EVERY, age):
            return []
    except OSError:
        pass
    with contextlib.suppress(OSError):
        os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
        os.utime(stamp, follow_symlinks=False)
    removed = []
    until = time.monotonic() + _BUDGET
    for name in _names(jobs):
        if time.monotonic() > until:
            break
        path = os.path.join(jobs, name)
        if name.startswith(_DYING):
            import shutil

            shutil.rmtree(path, ignore_errors=True)
        elif not name.startswith(".") and name != keep and not _lives(path, now - age):
            # Rename the directory first, so that no reader sees half a job.
            dying = os.path.join(jobs, f"{_DYING}{os.urandom(8).hex()}")
            with contextlib.suppress(OSError):
                os.rename(path, dying)
                import shutil

                shutil.rmtree(dying, ignore_errors=True)
                removed.append(name)
    return removed


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _lives(path: str, oldest: float) -> bool:
    machine = re.sub(r"[^A-Za-z0-9_-]", "_", os.uname().nodename)[:60]
    for directory, names, files in os.walk(path):
        for name in [".", *names, *files]:
            try:
                if os.lstat(os.path.join(directory, name)).st_mtime > oldest:
                    return True
            except OSError:
                continue
        if os.path.basename(directory) == "nodes":
            for name in files:
                parts = name.split(".")
                if len(parts) in (6, 7) and parts[3] == machine and os.path.exists(f"/proc/{parts[4]}"):
                    return True
    return False
