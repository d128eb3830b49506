"""The file server's time. The clocks of two nodes may differ by more than a lease lasts; the server has one clock."""

from __future__ import annotations

import contextlib
import os
import time

__all__ = ["Clock"]


class Clock:
    """The offset of the file server's clock from this process's monotonic clock, read from a file created there.

    Args:
        probe: Path of a file that is created and removed if the time is needed before `touch` was called.
    """

    def __init__(self, probe: str) -> None:
        self._probe = probe
        self._offset: float | None = None

    def touch(self, path: str, content: bytes = b"") -> None:
        """Create the file `path`, and read the server's time from it.

        Args:
            path: The file.
            content: Content of the file: some hundred bytes at most, written at once.

        Raises:
            OSError: The file cannot be created, or exists.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if content:
                os.write(descriptor, content)
            self._offset = os.fstat(descriptor).st_mtime - time.monotonic()
        finally:
            os.close(descriptor)

    def now(self) -> float:
        """The current time of the server, in seconds since the epoch.

        Raises:
            OSError: No file can be created there.
        """
        if self._offset is None:
            try:
                self.touch(self._probe)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(self._probe)
        assert self._offset is not None
        return time.monotonic() + self._offset
