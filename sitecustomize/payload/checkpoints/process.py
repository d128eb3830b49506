"""Which process wrote an outbox entry, and whether it is still there."""

from __future__ import annotations

import os
import socket


def here():
    """This process, so that another can tell later whether it lives: host, PID, start time."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "start": start_time(os.getpid())}


def start_time(pid):
    """Clock ticks between the boot and the start of a process, None where it or /proc is not there.

    Field 22 of /proc/PID/stat: a PID alone may have been given to another process meanwhile.
    """
    fields = _stat(pid)
    return fields and int(fields[19])


def alive(written):
    """Whether the process of an entry still runs on this host. A process of another host counts as dead."""
    if not isinstance(written, dict) or written.get("host") != socket.gethostname():
        return False
    pid = written.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    fields = _stat(pid)
    # An ended process stays in the table until its parent asks for it. In a container without an init no process asks.
    return fields is not None and fields[0] not in (b"Z", b"X") and int(fields[19]) == written.get("start")


def _stat(pid):
    """The fields of /proc/PID/stat from the third, the state, on."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            # The name in parentheses may hold anything, parentheses too.
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > 19 and fields[19].isdigit() else None
