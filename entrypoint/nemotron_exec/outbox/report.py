"""The report about the entries of an outbox, and its messages for people."""

from __future__ import annotations

import contextlib
import json

from nemotron_exec.frozen import dataclass, field
from nemotron_exec.outbox import offline_runs

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from nemotron_exec.message import Messages

__all__ = ["FlushReport", "of_runs", "parse", "tell", "tell_lost"]


@dataclass(frozen=True)
class FlushReport:
    """The result of sending entries.

    Attributes:
        registered: How many were added to a manifest store.
        sent: How many W&B lacked and has now.
        kept: Entries that stay, each with the reason.
        runs: How many runs that were started offline are now in W&B.
        lost: (run, file) of offline runs that nobody can send, and whose entries are removed.
    """

    registered: int = 0
    sent: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)
    runs: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        text = f"{self.registered} added to the manifest store, {self.sent} sent to W&B{of_runs(self)}"
        return text + (f", {len(self.kept)} kept: {self.kept[0][1]}" if self.kept else "")


def of_runs(report: FlushReport) -> str:
    """The part of a message about offline runs that were sent; empty where there were none."""
    return f", {report.runs} offline run{'s' if report.runs != 1 else ''} sent to W&B" if report.runs else ""


def tell_lost(report: FlushReport, messages: Messages) -> None:
    """Print a warning for each offline run that nobody can send."""
    for run, file in report.lost:
        messages.warning(
            f"the offline run {run} cannot be sent: its process died before the client had written anything to "
            f"{file}. Its checkpoints are sent all the same"
        )


def tell(report: FlushReport, messages: Messages) -> None:
    """Print the number of entries that were sent, and a warning for those that stay."""
    if report.registered or report.sent or report.runs:
        messages.info(
            f"checkpoints of an earlier run: {report.registered} added to the manifest store, {report.sent} sent to W&B"
            + of_runs(report)
        )
    tell_lost(report, messages)
    paths: dict[str, list[str]] = {}
    for path, why in report.kept:
        paths.setdefault(why, []).append(path)
    for why, there in paths.items():
        if len(there) == 1:
            what = "an offline run" if offline_runs.is_run(there[0]) else "a checkpoint of an earlier run"
            messages.warning(f"{what} stays in the outbox: {why} ({there[0]})")
        else:
            count = len(there)
            messages.warning(
                f"{count} checkpoints of an earlier run stay in the outbox: {why} ({there[0]} and {count - 1} more)"
            )


def parse(output: bytes) -> FlushReport | None:
    """The report of the child process, from its stdout; None where it wrote none."""
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            kept = [(path, why) for path, why in answer["kept"]]
            lost = [(run, file) for run, file in answer["lost"]]
            return FlushReport(answer["registered"], answer["sent"], kept, answer["runs"], lost)
    return None
