"""Identifies the process that wrote an outbox entry, and tells whether it still runs."""

from __future__ import annotations

import os


def here():
    """Host, PID and start time of this process, by which another process can tell later whether it lives."""
    return {"host": os.uname().nodename, "pid": os.getpid(), "start": start_time(os.getpid())}


def start_time(pid):
    """Clock ticks between the boot and the start of a process; None without that process or without /proc.

    It is field 22 of /proc/PID/stat. The PID alone is not enough: another process may have it by now.
    """
    fields = _stat(pid)
    return fields and int(fields[19])


def alive(written):
    """Whether the process of an entry still runs on this host. A process of another host counts as dead."""
    if not isinstance(written, dict) or written.get("host") != os.uname().nodename:
        return False
    pid = written.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    return runs(pid) and start_time(pid) == written.get("start")


def runs(pid):
    """Whether a process of this host exists and has not ended. False, too, where /proc does not show it."""
    fields = _stat(pid)
    # An ended process stays in /proc as a zombie until its parent waits for it. In a container without an init none
    # waits.
    return fields is not None and fields[0] not in (b"Z", b"X")


def _stat(pid):
    """The fields of /proc/PID/stat, beginning with the third, the state."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            # The process name in parentheses may contain any character, also parentheses.
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > 19 and fields[19].isdigit() else None
