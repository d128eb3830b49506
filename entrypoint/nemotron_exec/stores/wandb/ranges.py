"""A large file by several connections: where a server bounds the rate of each, their sum is what counts.

The ranges arrive in any order and are written in the order of the file, so that the disk always holds its beginning:
the digest of the whole is computed on the way, and a later attempt goes on at its end.
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

FAST = 250e6  # bytes a second of one connection, from which more of them cost more than they bring: hashing has 600e6

_RANGE = 16 << 20  # bytes; what a lane holds in memory at most
_LANES = 8
_WORTH = 4  # ranges from which several connections are opened


class Ranges:
    """The lanes of all large files of a job.

    Args:
        receiver: Of each range.
        connections: How many there may be at once, with those of all other files.
    """

    most = _LANES

    def __init__(self, receiver: Receiver, connections: threading.BoundedSemaphore) -> None:
        self.connections = connections
        self._receiver = receiver
        self._pool = concurrent.futures.ThreadPoolExecutor(2 * _LANES, thread_name_prefix="range")

    def worth(self, part: Part, lanes: int) -> bool:
        """Whether so much of a file is missing that `lanes` connections are faster than one."""
        return lanes > 1 and part.file.size is not None and part.file.size - part.done >= _WORTH * _RANGE

    def first(self, part: Part) -> str:
        """The range that is asked for alone: its answer says whether the server knows ranges."""
        return f"{part.done}-{part.done + _RANGE - 1}"

    def receive(self, part: Part, url: str, lanes: int, take: Callable[[bytes], None]) -> None:
        """Fetch the missing bytes of `part`, which is open.

        Args:
            part: Its size is known.
            url: Of the file, at a server that knows ranges.
            lanes: Connections at once.
            take: Gets the bytes in their order.

        Raises:
            Transient: Worth another attempt; what came before is on disk.
            Refused: By the server.
            OSError: The disk's fault.
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
    """One range on its way."""

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
        except BaseException as error:  # noqa: BLE001  (raised where the pieces are taken)
            self._came.put(error)

    def pieces(self) -> Iterator[bytes]:
        """What has come, in order, until the range is whole."""
        while (piece := self._came.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
