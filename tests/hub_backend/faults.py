"""Faults on demand."""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, field

__all__ = ["Fault", "Faults"]


@dataclass
class Fault:
    """One fault. It hits `times` requests whose name matches, after `skip` matching requests.

    Attributes:
        name: Pattern (fnmatch) of an operation's name: `info org/model@main`, `GET org/model/*`.
        times: Number of requests to hit; None for all.
        skip: Number of matching requests that pass first.
        status: HTTP status answered instead of the real answer.
        headers: Headers of that answer, `RateLimit` or `Retry-After` for example.
        message: `X-Error-Message` and body of that answer.
        delay: Seconds before the answer.
        cut: Bytes of the body after which the connection is closed.
        stall: Bytes of the body after which the hub sends nothing, until the client leaves or the hub closes.
        corrupt: Flip a byte in the middle of the body, length unchanged.
        hang_up: Close the connection without an answer.
        hit: Set when it has hit a request.
    """

    name: str
    times: int | None = 1
    skip: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "fault on demand"
    delay: float = 0.0
    cut: int | None = None
    stall: int | None = None
    corrupt: bool = False
    hang_up: bool = False
    hit: threading.Event = field(default_factory=threading.Event)


@dataclass
class Faults:
    """The active faults, in the order of their creation. The first that matches a request hits it."""

    pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self.pending.append(fault)

    def clear(self) -> None:
        with self._lock:
            self.pending.clear()

    def take(self, name: str) -> Fault | None:
        """The fault for the request of that name. Counts the request."""
        with self._lock:
            for fault in self.pending:
                if not fnmatch.fnmatchcase(name, fault.name):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.pending.remove(fault)
                fault.hit.set()
                return fault
        return None
