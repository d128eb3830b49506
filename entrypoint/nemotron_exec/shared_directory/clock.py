"""The file server's time. The clocks of two nodes may differ by more than a lease lasts; the server has one clock."""

from __future__ import annotations

import contextlib
import os
import time

__all__ = ["Clock"]


class Clock:
    """How far the file server's clock is ahead of this process's monotonic one, read from a file that is made there.

    Args:
        probe: Path of a file that is made and removed where the time is asked for before `touch` was called.
    """

    def __init__(self, probe: str) -> None:
        self._probe = probe
        self._offset: float | None = None

    def touch(self, path: str, content: bytes = b"") -> None:
        """Make the file `path`, which tells the server's time on the way.

        Args:
            path: The file.
            content: What it holds: some hundred bytes at most, written at once.

        Raises:
            OSError: It cannot be made, or exists.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if content:
                os.write(descriptor, content)
            self._offset = os.fstat(descriptor).st_mtime - time.monotonic()
        finally:
            os.close(descriptor)

    def now(self) -> float:
        """The server's time, seconds since the epoch.

        Raises:
            OSError: No file can be made there.
        """
        if self._offset is None:
            try:
                self.touch(self._probe)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(self._probe)
        assert self._offset is not None
        return time.monotonic() + self._offset
