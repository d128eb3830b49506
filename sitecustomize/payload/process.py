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
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            # The name in parentheses may hold anything, parentheses too.
            return int(stream.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def alive(written):
    """Whether the process of an entry still runs on this host. One on another host counts as dead: nobody can tell."""
    if not isinstance(written, dict) or written.get("host") != socket.gethostname():
        return False
    pid = written.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    started = start_time(pid)
    return started is not None and started == written.get("start")
