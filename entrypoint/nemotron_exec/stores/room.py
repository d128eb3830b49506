"""The free space of a cache's file system, shared by all downloads of this process."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Room"]

_HEADROOM = 64 << 20  # bytes that stay free for other programs


class Room:
    """Reserves space for downloads.

    Args:
        root: The cache directory; it need not exist yet.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._reserved = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def reserve(self, needed: int, refusal: Callable[[int, int], Exception]) -> Iterator[None]:
        """Reserve `needed` bytes for the time of the block.

        Args:
            needed: Number of bytes; a negative number counts as 0.
            refusal: `refusal(needed, free)` makes the error for too little free space.

        Raises:
            Exception: There is too little space; the error comes from `refusal`.
        """
        needed = max(0, needed)
        with self._lock:
            free = self.free()
            if needed and needed + self._reserved + min(_HEADROOM, free // 10) > free:
                raise refusal(needed, free - self._reserved)
            self._reserved += needed
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= needed

    def free(self) -> int:
        """Bytes of the file system that this user may still write."""
        import psutil

        existing = self._root
        while not os.path.isdir(existing) and os.path.dirname(existing) != existing:
            existing = os.path.dirname(existing)
        return int(psutil.disk_usage(existing).free)
