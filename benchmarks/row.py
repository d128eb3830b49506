"""One measured row of the report. Groups of measurements pass rows on as JSON lines on stdout."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.pairs import Comparison

__all__ = ["Row", "emit", "parse"]


@dataclass(frozen=True)
class Row:
    """A measurement and its verdict.

    Args:
        name: The measured quantity, in a few words.
        unit: "ms", "us", "ns", "MB", "modules", "s", …: the unit of `ours`, `baseline` and the bar.
        ours: The median of nemotron-exec.
        baseline: The median of the baseline; None without one.
        bar: The promise, as the report prints it ("at most +0.25 ms"); empty for a row without a bar.
        met: Whether the bar is met; None where there is none.
        against: The name of the baseline ("bare Python").
        added: The median of the pairwise differences. With pairs it is the figure to quote; it may differ a little
            from `ours - baseline`.
        interval: Distribution-free 95 % interval of `added`.
        pairs: How many pairs (or runs) were measured.
        note: Anything that a reader must know to read the row.
    """

    name: str
    unit: str
    ours: float
    baseline: float | None = None
    bar: str = ""
    met: bool | None = None
    against: str = ""
    added: float | None = None
    interval: tuple[float, float] | None = None
    pairs: int = 0
    note: str = ""

    @classmethod
    def of(cls, name: str, result: Comparison, *, against: str, bar: str, met: bool | None, note: str = "") -> Row:
        """The row of a comparison of whole processes."""
        return cls(
            name,
            "ms",
            statistics.median(result.case),
            statistics.median(result.baseline),
            bar=bar,
            met=met,
            against=against,
            added=result.added,
            interval=result.interval,
            pairs=len(result.case),
            note=note,
        )

    @property
    def ratio(self) -> float | None:
        """nemotron-exec's median as a multiple of the baseline."""
        return self.ours / self.baseline if self.baseline else None

    @property
    def verdict(self) -> str:
        """Whether the bar is met: "ok", "MISSED", or empty without a bar."""
        return "" if self.met is None else "ok" if self.met else "MISSED"


def emit(row: Row) -> None:
    """Pass one row to the report."""
    line = {**asdict(row), "ratio": row.ratio, "verdict": row.verdict}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def parse(line: str) -> Row:
    """Read a line of `emit`."""
    fields = json.loads(line)
    del fields["ratio"], fields["verdict"]
    if fields["interval"] is not None:
        fields["interval"] = tuple(fields["interval"])
    return Row(**fields)
