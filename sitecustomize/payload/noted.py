"""Notes the injector's actions in this process for `nemotron-exec --status`: JSON lines in a file beside the hand-off.

A note never raises. It is written at the import of a framework, or on the commit thread. A job of 10,000 ranks must not
make 10,000 files: only the first and the last rank write notes, and at most `_PROCESSES` processes.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import time

from . import job, notice

__all__ = ["DIRECTORY", "note"]

DIRECTORY = "processes"
"""Name of the directory beside the hand-off. A file in it is `<host>.<pid>.jsonl`."""
_PROCESSES = 64
_LINES = 1000


class _Lines:
    """The number of lines that this process may still write; None before the first line."""

    left: int | None = None


def note(kind, **what):
    """Write one line of `kind` ("patch", "inputs", "checkpoint", "delivered", "waiting"), with its fields."""
    lines = job.part(_Lines)
    try:
        if lines.left is None:
            lines.left = _LINES if _may_note() else 0
            if lines.left:
                _append({"kind": "process", "rank": os.environ.get("RANK"), "command": _command()})
        if lines.left > 0:
            lines.left -= 1
            _append(dict(what, kind=kind))
    except Exception as error:
        lines.left = 0
        notice.debug("nothing is noted for --status: %r" % (error,))


def _may_note():
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE", "")
    if not os.environ.get("NEMOTRON_EXEC_HANDOFF"):
        return False
    if rank and rank != "0" and not (world.isdigit() and rank == str(int(world) - 1)):
        return False
    directory = _directory()
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False  # this node does not see the launcher's directory
        raise
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    return len(os.listdir(directory)) < _PROCESSES


def _directory():
    return os.path.join(os.path.dirname(os.environ["NEMOTRON_EXEC_HANDOFF"]), DIRECTORY)


def _append(line):
    path = os.path.join(_directory(), "%s.%d.jsonl" % (socket.gethostname(), os.getpid()))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, (json.dumps(dict(line, at=round(time.time(), 3)), default=str) + "\n").encode())
    finally:
        os.close(descriptor)


def _command():
    words = getattr(sys, "orig_argv", None) or [sys.executable] + list(getattr(sys, "argv", []))
    return " ".join(notice.redact_command(words))[:300]
