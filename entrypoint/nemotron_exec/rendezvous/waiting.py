"""The lines that a waiter prints: the leader, its work, and the time waited."""

from __future__ import annotations

import json
import os
import time

from nemotron_exec.shared_directory import files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from nemotron_exec.rendezvous.meeting import Meeting
    from nemotron_exec.shared_directory.lease import Lease

__all__ = ["Waiting"]


class Waiting:
    """Prints one launcher's lines while it waits.

    Args:
        meeting: The meeting where it waits.
        lease: The lease, whose file names the leader.
        began: Start of the wait, by the monotonic clock.
    """

    def __init__(self, meeting: Meeting, lease: Lease, began: float) -> None:
        self._meeting, self._lease, self._began = meeting, lease, began
        self._next = began + meeting.timing.first_line
        self._last: tuple[float, str, int] | None = None
        self._holder = ""

    def tell(self, now: float) -> None:
        """Print a line after some seconds, and more from time to time. Only one launcher of each node prints."""
        if now < self._next or self._meeting.me.place.local_index not in (None, 0):
            return
        self._next = now + self._meeting.timing.next_lines
        self._meeting.messages.info(f"waiting for {now - self._began:.0f} s: {self.describe()}")

    def note_holder(self) -> None:
        """Print a debug line whenever another launcher holds the lease than before."""
        holder = self._lease.holder()
        text = "" if holder is None else f"{holder.host} (pid {holder.pid})"
        if text != self._holder:
            self._holder = text
            self._meeting.messages.debug(f"the lease is held by {_printable(text)}" if text else "the lease is free")

    def describe(self) -> str:
        """The leader and its work, as far as they are known."""
        holder = self._lease.holder()
        if holder is None:
            return "nobody leads yet"
        fallback = f"{holder.host} (pid {holder.pid}) leads"
        try:
            data = files.read(os.path.join(self._meeting.path, "progress.json"), limit=1 << 16)
            body = json.loads(data or b"")
            leader, what, done, total = (body[name] for name in ("leader", "what", "done", "total"))
            line = (
                f"{leader} leads, for {float(body['seconds']):.0f} s, busy with {what}{self._amount(what, done, total)}"
            )
        except (files.UnusableFileError, ValueError, TypeError, KeyError, RecursionError):
            line = fallback
        silent = self._meeting.now() - holder.beat
        if silent >= 2 * self._meeting.timing.heartbeat:
            line += f" (no sign of life for {silent:.0f} s)"
        return _printable(line)

    def _amount(self, what: str, done: int, total: int | None) -> str:
        if not done:
            return ""
        now = time.monotonic()
        text = f", {_bytes(done)}" + (f" of {_bytes(total)}" if total else "")
        if self._last is not None and self._last[1] == what and done > self._last[2] and now > self._last[0]:
            text += f", {_bytes((done - self._last[2]) / (now - self._last[0]))}/s"
        self._last = (now, what, done)
        return text


def _printable(line: str) -> str:
    # Text from a shared directory may hold control characters, which a terminal would obey.
    return "".join(character if character.isprintable() else "?" for character in line)[:500]


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
