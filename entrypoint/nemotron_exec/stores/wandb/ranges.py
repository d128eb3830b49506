"""Fetches a large file over several connections, because a server may limit the rate of each.

The ranges arrive in any order, but are written in the order of the file. So the disk always holds its beginning. The
digest of the whole is computed on the way, and a later attempt continues at the end.
"""

from __future__ import annotations

import collections
import concurrent.futures
import queue
import threading
from typing import TYPE_CHECKING

from nemotron_exec.stores.wandb.receive import Stopped, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nemotron_exec.stores.wandb.part import Part
    from nemotron_exec.stores.wandb.receive import Answer, Receiver

__all__ = ["FAST", "Ranges"]

FAST = 250e6  # bytes a second of one connection; beyond it more connections only cost: hashing has 600e6

_RANGE = 16 << 20  # bytes; a lane holds at most so many in memory
_LANES = 8
_WORTH = 4  # missing ranges from which several connections are opened


class Ranges:
    """The lanes of all large files of a job.

    Args:
        receiver: Receives each range.
        connections: Bounds the connections of all files together.
    """

    most = _LANES

    def __init__(self, receiver: Receiver, connections: threading.BoundedSemaphore) -> None:
        self.connections = connections
        self._receiver = receiver
        self._pool = concurrent.futures.ThreadPoolExecutor(2 * _LANES, thread_name_prefix="range")

    def worth(self, part: Part, lanes: int) -> bool:
        """Whether so many bytes are missing that `lanes` connections are faster than one."""
        return lanes > 1 and part.file.size is not None and part.file.size - part.done >= _WORTH * _RANGE

    def first(self, part: Part) -> str:
        """The first range, requested alone: its answer shows whether the server knows ranges."""
        return f"{part.done}-{part.done + _RANGE - 1}"

    def receive(self, part: Part, url: str, lanes: int, take: Callable[[bytes], None]) -> None:
        """Fetch the missing bytes of `part`, which is open.

        Args:
            part: The part, whose size is known.
            url: URL of the file, at a server that knows ranges.
            lanes: Number of connections at the same time.
            take: Called with the bytes in their order.

        Raises:
            Transient: Another attempt may succeed. The bytes before the fault are on disk.
            Refused: The server refuses the file.
            OSError: The disk has failed.
        """
        size = part.file.size
        assert size is not None
        starts = iter(range(part.done, size, _RANGE))
        stop = threading.Event()
        going: collections.deque[_Lane] = collections.deque()

        def begin() -> None:
            if (start := next(starts, None)) is not None:
                lane = _Lane(start, min(start + _RANGE, size) - 1, stop)
                lane.future = self._pool.submit(lane.run, self._receiver, self.connections, url)
                going.append(lane)

        try:
            for _ in range(lanes):
                begin()
            while going:
                for piece in going[0].pieces():
                    take(piece)
                going.popleft()
                begin()
        finally:
            stop.set()
            futures = [lane.future for lane in going if lane.future is not None]
            for future in futures:
                future.cancel()
            concurrent.futures.wait(futures)


class _Lane:
    """A range that is being fetched."""

    def __init__(self, first: int, last: int, stop: threading.Event) -> None:
        self.future: concurrent.futures.Future[None] | None = None
        self._first = first
        self._last = last
        self._stop = stop
        self._came: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()

    def run(self, receiver: Receiver, connections: threading.BoundedSemaphore, url: str) -> None:
        missing = self._last + 1 - self._first

        def begin(answer: Answer) -> None:
            if answer.status != 206:
                raise Transient("the server has changed its mind about ranges")

        def take(piece: bytes) -> None:
            nonlocal missing
            if self._stop.is_set():
                raise Stopped
            missing -= len(piece)
            self._came.put(piece)

        try:
            with connections:
                receiver.get(url, f"{self._first}-{self._last}", begin, take)
            if missing:
                raise Transient("the download was cut")  # noqa: TRY301
            self._came.put(None)
        except BaseException as error:  # noqa: BLE001  (pieces() raises it)
            self._came.put(error)

    def pieces(self) -> Iterator[bytes]:
        """The pieces of the range, in order, until it is complete."""
        while (piece := self._came.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
