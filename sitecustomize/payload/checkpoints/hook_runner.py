"""Runs hooks in a process of its own: neither training nor its end waits for them, and they may outlive the job.

Each hook has a thread, which takes its checkpoints in order, under a lock that only one runner holds. A job's runner
watches the process that saves. If that process dies, running commands get SIGTERM and are left to the next start; if it
ends by itself, they go on. The next start, or `nemotron-artifact flush`, starts a runner for open entries.
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
_LOOK = 0.25  # seconds between two polls of the directory's time and of the process that saves
_ANYWAY = 30.0  # seconds after which the directory is listed though its time has not changed
_LOCK = 1.0  # seconds for which a hook's lock is waited for at a time
_OLD = 3600.0  # seconds after which a process's file about its end may be removed
RETRIES = 4
REGULAR = b"?"
"""First byte of the file that a process writes when it ends by itself. The second byte is its exit code."""


class Runner:
    """The hooks of one directory.

    Args:
        directory: `.nemotron-exec/hooks`.
        environ: The environment from which the commands' environments are made.
        owner: The process that saves, as `process.here` writes it; None for a runner of open entries.
        ended: The file that the owner writes when it ends by itself.
        seconds: After so many seconds, running commands are told to end, and stay open; None for no bound.
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
        """Tell all commands to end, and leave them to the next start (a signal handler)."""
        self.stopped = "the job was told to end"

    def run(self):
        """Run hooks until no entry is open and the process that saves is gone, so that no new entry can come."""
        seen, listed = None, 0.0
        while self._why_stop() is None:
            # Asked before the listing: an owner that lives then may still add an entry.
            owner_alive = self._owner_alive()
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
        """The names of the hooks that have open entries."""
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
        """Run one hook for its checkpoints in order: a later checkpoint waits until the earlier command has ended."""
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
        # Only the runner that began a pause keeps it: a next start, or a flush, tries at once.
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
            entry["attempts"] -= 1  # the earlier attempt was told to end, and does not count
        taken_over = entry["state"] == hook_entries.RUNNING and not entry.get("told")
        code, why = run(path, entry, self.environ, self._why_stop)
        if code == 0:
            entry.update(state=hook_entries.ENDED, exit_code=0, ended_at=time.time(), why=None)
            hook_entries.finish(path, entry)
            return
        entry.update(exit_code=code, ended_at=time.time(), why=why or "exit code %d" % code)
        if entry.get("told") or (taken_over and why == DIED):
            # The command was told to end, or died together with its runner: that is no failure of the hook.
            entry["attempts"] -= 1
            entry.update(state=hook_entries.WAITING, not_before=0)
        elif entry["attempts"] > _retries(entry):
            entry.update(state=hook_entries.FAILED)
        else:
            if entry["state"] != hook_entries.RUNNING:
                entry["attempts"] += 1  # the command could not be started, and that counts as an attempt
            pause = min(_LONGEST, self._pause * 4 ** max(0, entry["attempts"] - 1))
            entry.update(state=hook_entries.WAITING, not_before=time.time() + pause)
        entry["told"] = False
        hook_entries.write(path, entry)


def _sweep(directory, mine):
    """Remove old `ended-` files that no open entry names, except the one of the process that this runner watches."""
    with contextlib.suppress(OSError):
        wanted = {entry.get("ended") for _, entry in hook_entries.entries(directory)} | {mine}
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.startswith("ended-") and name not in wanted and os.stat(path).st_mtime < time.time() - _OLD:
                os.unlink(path)


def exit_of(directory, ended):
    """The exit code of a process that saved; -1 if it ended by itself with an unknown code; None without a report.

    Args:
        directory: The directory of hooks.
        ended: The name of the process's file there.
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
