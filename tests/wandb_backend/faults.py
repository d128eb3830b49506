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
        name: Pattern (fnmatch) of an operation: a GraphQL operation name, or `GET data/blend.json`, `PUT …`,
            `file_stream`, or `graphql` for every GraphQL request.
        times: Number of requests to hit; None for all.
        skip: Number of matching requests that pass first.
        status: HTTP status answered instead of the real answer.
        message: Body of that answer; as GraphQL `errors` where `status` is 200.
        retry_after: Value of Retry-After: 0 makes wandb's retries immediate.
        delay: Seconds before the answer.
        cut: Bytes of the body after which the connection is closed.
        stall: Bytes of the body after which the backend sends nothing, until the client leaves or the backend closes.
        corrupt: Flip a byte in the middle of the body, length unchanged.
        short: Drop the body's last byte, and send the shorter length.
        hang_up: Close the connection without an answer.
        null: Answer `{"data": {operation's root field: null}}` is `{"data": {}}`: for GraphQL only.
    """

    name: str
    times: int | None = 1
    skip: int = 0
    status: int | None = None
    message: str = "fault on demand"
    retry_after: float | None = None
    delay: float = 0.0
    cut: int | None = None
    stall: int | None = None
    corrupt: bool = False
    short: bool = False
    hang_up: bool = False
    null: bool = False


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

    def take(self, *names: str) -> Fault | None:
        """The fault for a request with one of these `names`. Counts the request."""
        with self._lock:
            for fault in self.pending:
                if not any(fnmatch.fnmatchcase(name, fault.name) for name in names):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.pending.remove(fault)
                return fault
        return None
