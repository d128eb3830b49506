"""Reads a program's output from a terminal."""

from __future__ import annotations

import contextlib
import os


def read_all(leader: int) -> str:
    """Read all output, until every process has closed the other end."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(leader, 1 << 16):
            shown += chunk
    os.close(leader)
    return shown.decode()
