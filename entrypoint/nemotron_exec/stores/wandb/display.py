"""Shows a download: as a bar on a terminal, as a line every few seconds elsewhere, not at all under `-q`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.stores.wandb.cache import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from nemotron_exec.message import Messages

__all__ = ["TransferDisplay", "shortened"]

_PROGRAM = "nemotron-exec: "
_BAR, _SHORT_BAR = 40, 6  # columns
_WIDE = 120  # columns of a terminal that has room for the long bar
_FIGURES = 44  # columns of `999.9 GB of 999.9 GB (999.9 MB/s)`, the remaining time, and the gaps
_LEAST = 12  # columns of a name that still distinguish it from others


def shortened(name: str, room: int) -> str:
    """The name, shortened at its beginning to `room` columns: its end has the version."""
    return name if len(name) <= room else "…" + name[1 - room :]


@dataclass
class _Transfer:
    began: float
    done: int
    total: int | None
    started_with: int
    task: Any = None
    finished: bool = False


class TransferDisplay:
    """Shows the progress of several downloads. It has no thread: `update` and `tick` draw.

    Args:
        messages: Takes the lines. Its options tell whether to be quiet, and whether to write JSON.
        interval: Seconds between two lines.
        terminal: Whether stderr is a terminal; None to find out.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        messages: Messages | None,
        *,
        interval: float = 5.0,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messages = messages
        self._interval = interval
        self._clock = clock
        self._transfers: dict[str, _Transfer] = {}
        self._bar: Any = None
        self._room = 0
        self._last = clock()
        self._silent = messages is None or messages.quiet
        if terminal is None:
            terminal = sys.stderr is not None and sys.stderr.isatty()
        self._terminal = terminal and not self._silent and messages is not None and messages.log_format == "text"

    def update(self, what: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes of `what` have arrived."""
        if self._silent or not total:
            return
        transfer = self._transfers.get(what)
        if transfer is None:
            transfer = self._transfers[what] = _Transfer(self._clock(), done, total, done)
            if self._terminal:
                bar = self._open_bar()
                transfer.task = bar.add_task(shortened(what, self._room), total=total, completed=done)
        transfer.done, transfer.total = done, total
        if transfer.task is not None:
            self._bar.update(transfer.task, completed=done, total=total)
        if done >= total and not transfer.finished:
            transfer.finished = True
            self._say_finished(what, transfer)
        self.tick()

    def tick(self) -> None:
        """Draw if it is time."""
        now = self._clock()
        if self._silent or now - self._last < (0.1 if self._terminal else self._interval):
            return
        self._last = now
        if self._bar is not None:
            self._bar.refresh()
        elif running := {what: item for what, item in self._transfers.items() if not item.finished}:
            shown = ", ".join(
                f"{what} {format_bytes(item.done)} of {format_bytes(item.total or 0)} ({self._rate(item, now)})"
                for what, item in running.items()
            )
            assert self._messages is not None
            self._messages.info(f"downloading {shown}")

    def close(self) -> None:
        """Stop the bar, and release the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say_finished(self, what: str, transfer: _Transfer) -> None:
        if self._terminal or self._messages is None:
            return
        now = self._clock()
        seconds = max(now - transfer.began, 1e-3)
        self._messages.info(
            f"downloaded {what}: {format_bytes(transfer.done)} in {seconds:.1f} s ({self._rate(transfer, now)})",
            bytes=transfer.done,
            seconds=round(seconds, 3),
        )

    @staticmethod
    def _rate(transfer: _Transfer, now: float) -> str:
        seconds = max(now - transfer.began, 1e-3)
        return f"{format_bytes((transfer.done - transfer.started_with) / seconds)}/s"

    def _open_bar(self) -> Any:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column
            from rich.text import Text

            class Figures(TextColumn):
                """Bytes and rate in the colour of normal text, because red marks faults."""

                def render(self, task: Any) -> Text:
                    done = f"{format_bytes(int(task.completed))} of {format_bytes(int(task.total or 0))}"
                    rate = format_bytes(int(task.finished_speed or task.speed or 0))
                    return Text(f"{done} ({rate}/s)")

            console = Console(stderr=True)
            bar = _BAR if console.width >= _WIDE else _SHORT_BAR
            self._room = max(_LEAST, console.width - len(_PROGRAM) - bar - _FIGURES)
            whole = Column(no_wrap=True)
            self._bar = Progress(
                TextColumn(_PROGRAM + "{task.description}", table_column=whole, markup=False),
                BarColumn(bar),
                Figures("", table_column=whole),
                TimeRemainingColumn(table_column=whole),
                console=console,
                auto_refresh=False,  # a thread would still run at exec
            )
            self._bar.start()
        return self._bar
