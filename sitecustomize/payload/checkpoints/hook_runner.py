"""Runs hooks in a process of its own, so that neither training nor its end waits for them, and they may outlive it.

Each hook has a thread, which takes its checkpoints in order, under a lock that only one runner holds. A job's runner
lives as long as the process that saves: if that dies, running commands are told by SIGTERM and are left to the next
start; if it ends by itself, they go on. A runner of a next start or of `nemotron-artifact flush` runs what was left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from . import hook_entries, process
from .hook_attempt import DIED, run

__all__ = []

BACKOFF_VARIABLE = "NEMOTRON_EXEC_HOOK_BACKOFF"
BACKOFF = 5.0  # seconds before the second attempt; each further pause is four times as long
_LONGEST = 300.0
_LOOK = 0.25  # seconds between two looks at the directory's time and at the process that saves
_ANYWAY = 30.0  # seconds after which the directory is listed though its time has not changed
_LOCK = 1.0  # seconds for which a hook's lock is waited for at a time
_OLD = 3600.0  # seconds; a process that ends now writes its file now
RETRIES = 4
REGULAR = b"?"
"""First byte of the file by which a process says that it ends by itself; its exit code is the second."""


class Runner:
    """The hooks of one directory.

    Args:
        directory: `.nemotron-exec/hooks`.
        environ: The environment that the commands' is made from.
        owner: The process that saves, as `process.here` writes it; None for a runner of what was left.
        ended: The file by which the owner says that it ends by itself.
        seconds: After so many, what runs is told to end, and is left; None for no bound.
        only: Identities of the entries to run; None for all.
    """

    def __init__(self, directory, environ, owner=None, ended=None, seconds=None, only=None):
        self.directory = directory
        self.environ = environ
        self.owner = owner
        self.ended = ended
        self.stopped = None
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._only = only
        self._threads = {}
        self._met = set()
        self._pause = _backoff(environ)

    def terminate(self, *_):
        """Tell all commands to end, and leave them (a signal handler)."""
        self.stopped = "the job was told to end"

    def run(self):
        """Until nothing is left to do, and no process that saves may bring more."""
        seen, listed = None, 0.0
        while self._why_stop() is None:
            owner_alive = self._owner_alive()  # asked before the directory is
            now = (_stamp(self.directory), owner_alive, self._busy())
            if now != seen or time.monotonic() > listed + _ANYWAY:
                seen, listed = now, time.monotonic()
                due = self._due()
                if not (due or owner_alive or self._busy()):
                    break
                for name in due - self._busy():
                    self._threads[name] = threading.Thread(target=self._take_all, args=(name,), name=name)
                    self._threads[name].start()
            time.sleep(_LOOK)
        for thread in self._threads.values():
            thread.join()
        _sweep(self.directory, self.ended)

    def _busy(self):
        return {name for name, thread in self._threads.items() if thread.is_alive()}

    def _owner_alive(self):
        return self.owner is not None and process.alive(self.owner)

    def _why_stop(self):
        if self.stopped is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.stopped = "there was no more time"
        owned = self.stopped is None and self.owner is not None
        if owned and not process.alive(self.owner) and exit_of(self.directory, self.ended) is None:
            self.stopped = "the process that saves has died"
        return self.stopped

    def _due(self):
        """The names of hooks with something to run."""
        return {entry["hook"]["name"] for _, entry in self._open()}

    def _open(self):
        found = []
        for path, entry in hook_entries.entries(self.directory):
            if self._only is not None and hook_entries.identity(entry) not in self._only:
                continue
            if entry["state"] == hook_entries.HELD and exit_of(self.directory, entry.get("ended")) != 0:
                continue
            if entry["state"] in (hook_entries.WAITING, hook_entries.RUNNING, hook_entries.HELD):
                found.append((path, entry))
        return found

    def _take_all(self, name):
        """One hook's checkpoints in order, as long as there are some: a later one waits for the earlier one's end."""
        lock = os.path.join(self.directory, "lock-" + name)
        while self._why_stop() is None:
            with hook_entries.locked(lock, _LOCK) as held:
                mine = [path for path, entry in self._open() if entry["hook"]["name"] == name]
                if not mine:
                    return
                if not held:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    self._take(mine[0])

    def _take(self, path):
        entry = hook_entries.read(path)
        # A pause that another runner has begun ends with it: a next start, or a flush, tries at once.
        not_before = float(entry.get("not_before") or 0) if path in self._met else 0.0
        self._met.add(path)
        while self._why_stop() is None:
            left = not_before - time.time()
            if left <= 0:
                break
            time.sleep(min(left, _LOOK))
        else:
            return
        told = entry["checkpoint"]
        local, host = str(told.get("local_path")), str(told.get("path"))
        if entry["state"] != hook_entries.RUNNING and "://" not in local:
            if not os.path.exists(local) and not os.path.exists(host):
                entry.update(state=hook_entries.GONE, why="the checkpoint was deleted before its turn came")
                hook_entries.finish(path, entry)
                return
        elif entry["state"] == hook_entries.RUNNING and entry.get("told"):
            entry["attempts"] -= 1  # an attempt that was told to end does not count
        taken_over = entry["state"] == hook_entries.RUNNING and not entry.get("told")
        code, why = run(path, entry, self.environ, self._why_stop)
        if code == 0:
            entry.update(state=hook_entries.ENDED, exit_code=0, ended_at=time.time(), why=None)
            hook_entries.finish(path, entry)
            return
        entry.update(exit_code=code, ended_at=time.time(), why=why or "exit code %d" % code)
        if entry.get("told") or (taken_over and why == DIED):
            # Told to end, or dead with its runner: it has not failed.
            entry["attempts"] -= 1
            entry.update(state=hook_entries.WAITING, not_before=0)
        elif entry["attempts"] > _retries(entry):
            entry.update(state=hook_entries.FAILED)
        else:
            if entry["state"] != hook_entries.RUNNING:
                entry["attempts"] += 1  # it could not even be started
            pause = min(_LONGEST, self._pause * 4 ** max(0, entry["attempts"] - 1))
            entry.update(state=hook_entries.WAITING, not_before=time.time() + pause)
        entry["told"] = False
        hook_entries.write(path, entry)


def _sweep(directory, mine):
    """Remove what says how processes have ended for which nothing is left; never that of the runner's own process."""
    with contextlib.suppress(OSError):
        wanted = {entry.get("ended") for _, entry in hook_entries.entries(directory)} | {mine}
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.startswith("ended-") and name not in wanted and os.stat(path).st_mtime < time.time() - _OLD:
                os.unlink(path)


def exit_of(directory, ended):
    """How a process has ended that saved: its exit code; -1 where it ended by itself, with an unknown one; else None.

    Args:
        directory: That of the hooks.
        ended: The name of its file there.
    """
    if not isinstance(ended, str) or os.sep in ended:
        return None
    try:
        said = hook_entries.content(os.path.join(directory, ended))
    except (OSError, hook_entries.ForeignError):
        return None
    if not said.startswith(REGULAR):
        return None
    return said[1] if len(said) > 1 else -1


def main(words):
    """`DIRECTORY [--owner HOST PID START ENDED] [--seconds S] [--detach] [--only ID]...`."""
    words = list(words)
    directory, owner, ended, seconds, only = words.pop(0), None, None, None, None
    while words:
        word = words.pop(0)
        if word == "--owner":
            owner = {"host": words.pop(0), "pid": int(words.pop(0)), "start": int(words.pop(0))}
            ended = words.pop(0)
        elif word == "--seconds":
            seconds = float(words.pop(0))
        elif word == "--only":
            only = (only or []) + [words.pop(0)]
        elif word == "--detach" and os.fork():
            os._exit(0)
    runner = Runner(directory, dict(os.environ), owner, ended, seconds, only)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.terminate)
    runner.run()
    return 0


def _stamp(directory):
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return None


def _retries(entry):
    found = entry["hook"].get("retries")
    return found if isinstance(found, int) else RETRIES


def _backoff(environ):
    try:
        return max(0.0, float(environ.get(BACKOFF_VARIABLE) or BACKOFF))
    except ValueError:
        return BACKOFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
