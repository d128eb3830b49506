"""The constants of the coordination protocol, in one place; docs/coordination.md derives its bounds from them."""

from __future__ import annotations

from nemotron_exec.errors import UsageError
from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Timing"]


@dataclass(frozen=True)
class Timing:
    """All in seconds. The defaults are the protocol's; tests shorten them, options do not (launchers must agree).

    Attributes:
        lease: Age of the last heartbeat at which a lease may be taken.
        heartbeat: Between two heartbeats.
        retry: Between two attempts of a waiter to take the lease.
        head_start: How long others leave the lead to launcher 0.
        unshared: How long a launcher looks for a sign of another node before it calls the directory not shared.
        error_life: Age at which a published error no longer concerns a launcher that has just started.
        gather: How long a leader that is done waits for launchers that have not come yet: what they ask may differ.
        at_once: How long ago a launcher with another question may have come to count as started together with this one.
        settle: How long an answer that cannot be read may still become readable.
        progress: Least time between two progress files.
        first_line: When a waiter first says what it waits for.
        next_lines: Between two such lines.
        abandon: How long a leader that has given up may take to unwind before the process ends.
    """

    lease: float = 15.0
    heartbeat: float = 5.0
    retry: float = 5.0
    head_start: float = 2.0
    unshared: float = 60.0
    error_life: float = 60.0
    gather: float = 2.0
    at_once: float = 60.0
    settle: float = 2.0
    progress: float = 2.0
    first_line: float = 5.0
    next_lines: float = 30.0
    abandon: float = 5.0

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Timing:
        """With `NEMOTRON_EXEC_HEAD_START`, the only constant that a cluster may need to change.

        Raises:
            UsageError: Its value is no number of seconds.
        """
        written = environ.get("NEMOTRON_EXEC_HEAD_START")
        if not written:
            return cls()
        try:
            head_start = float(written)
        except ValueError:
            head_start = -1.0
        if not 0 <= head_start < 3600:
            raise UsageError(
                "NEMOTRON_EXEC_HEAD_START to be a number of seconds",
                repr(written),
                "Give one from 0 to 3599, or unset it",
            )
        return cls(head_start=head_start)
