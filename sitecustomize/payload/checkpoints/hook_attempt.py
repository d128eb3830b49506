"""One attempt of a hook's command, in a session of its own. The shell that runs it writes its exit code to a file.

The shell waits until the entry says which process it is, then runs the command, then writes the exit code. So a runner
that dies loses nothing: the command ends in its own time, and the next runner finds the process or the exit code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from . import hook_entries, process
from .hook_environment import environment

__all__ = []

DIED = "it died without a word"
GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_LOOK = 0.05  # seconds between two polls, at first
_SLOWER = 0.5  # the longest pause between two polls of a long command
# The shell traps these signals and survives them. It does not ignore them: the command would inherit that.
_SHELL = """read go || exit 0
exec </dev/null
trap : TERM INT HUP
/bin/sh -c "$1"
code=$?
(umask 022; echo $code >"$2.tmp") && mv -f "$2.tmp" "$2"
exit $code
"""


def run(path, entry, environ, stop):
    """Run an entry's command, or wait for the command that an earlier runner has started.

    Args:
        path: The entry's file.
        entry: The entry. Each step is noted in it, durably.
        environ: The environment from which the command's environment is made.
        stop: `stop()` gives a text when the command is to be told to end, else None.

    Returns:
        `(exit code, why)`: the code of a command that has ended by itself. None and the reason where the command was
        told to end, could not be started, or died without a word.
    """
    child = entry.get("child")
    if entry["state"] == hook_entries.RUNNING and not entry.get("told"):
        code = _exit_code(path)
        if code is None and process.alive(child):
            return _wait(path, entry, _Adopted(child["pid"], child), stop)
        if code is None:
            code = _exit_code(path)  # the command may have ended after the first look at the file
        if code is not None:
            return code, None
        return None, DIED
    if entry["state"] == hook_entries.RUNNING and process.alive(child):
        _end(_Adopted(child["pid"], child))  # the runner that told it to end was killed before it ended
    return _start(path, entry, environ, stop)


def _start(path, entry, environ, stop):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(hook_entries.exit_code_of(path))
    directory = entry.get("cwd") or "/"
    try:
        log = _open_log(entry, "%s, attempt %d" % (hook_entries.identity(entry), entry["attempts"] + 1))
    except OSError as error:
        return None, "its output cannot be written to %s: %s" % (entry.get("log"), error.strerror)
    try:
        started = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "nemotron-exec-hook", entry["hook"]["command"], hook_entries.exit_code_of(path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=directory,
            env=environment(entry, environ),
            start_new_session=True,
        )
    except OSError as error:
        return None, "it cannot be started in %s: %s" % (directory, error.strerror or error)
    finally:
        os.close(log)
    try:
        # Note the process in the entry before the command runs, so that another runner can find it.
        now = time.time()
        here = dict(process.here(), pid=started.pid, start=process.start_time(started.pid))
        entry.update(state=hook_entries.RUNNING, child=here, told=False, started_at=now, why=None)
        entry["attempts"] += 1
        hook_entries.write(path, entry)
        with contextlib.suppress(BrokenPipeError):
            started.stdin.write(b"\n")
            started.stdin.flush()
    finally:
        with contextlib.suppress(BrokenPipeError):
            started.stdin.close()  # if the line was not written, the shell ends without running the command
    return _wait(path, entry, started, stop)


class _Adopted:
    """A process that an earlier runner started. This runner can only poll it: it is not the parent."""

    returncode = None

    def __init__(self, pid, written):
        self.pid = pid
        self._written = written

    def poll(self):
        return None if process.alive(self._written) else 0


def _wait(path, entry, started, stop):
    limit = entry["hook"].get("timeout")
    pause = _LOOK
    while started.poll() is None:
        late = limit and time.time() > entry["started_at"] + limit
        why = "it took longer than %g s (timeout)" % limit if late else stop()
        if why:
            if not late:
                # The command's exit code no longer counts: the next start runs the command again.
                entry.update(told=True, why=why)
                hook_entries.write(path, entry)
            with contextlib.suppress(OSError):
                os.close(_open_log(entry, "told to end: %s" % why))
            _end(started)
            return None, why
        time.sleep(pause)
        pause = min(_SLOWER, pause * 1.2)
    code = _exit_code(path)
    if code is not None:
        return code, None
    if isinstance(started, _Adopted):
        return None, DIED
    if started.returncode < 0:
        return None, "it was ended by %s" % _signal_name(-started.returncode)
    return started.returncode, None  # the shell could not write it


def _end(started):
    """SIGTERM to all processes of the command, and SIGKILL to those that are still there after a while."""
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(started.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            started.poll()  # else the shell would stay a zombie, and the group exist
            os.killpg(started.pid, 0)
            time.sleep(_LOOK)
        os.killpg(started.pid, signal.SIGKILL)
    started.poll()


def _exit_code(path):
    try:
        text = hook_entries.content(hook_entries.exit_code_of(path)).decode("ascii")
        return int(text)
    except (OSError, ValueError, hook_entries.ForeignError):
        return None


def _open_log(entry, what):
    path = entry["log"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    log = os.open(path, flags, 0o644)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    os.write(log, ("== %s, %s\n" % (what, when)).encode("utf-8", "replace"))
    return log


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number
