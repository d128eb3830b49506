"""The constants of the coordination protocol. docs/coordination.md derives its bounds from them."""

from __future__ import annotations

from nemotron_exec.errors import UsageError
from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Timing"]


@dataclass(frozen=True)
class Timing:
    """The constants, in seconds. Tests shorten them. There are no options for them, because all launchers must agree.

    Attributes:
        lease: Age of the last heartbeat from which another launcher may take the lease.
        heartbeat: Time between two heartbeats.
        retry: Time between two attempts of a waiter to take the lease.
        head_start: Time for which only launcher 0 may lead.
        unshared: Time to look for a sign of another node before the directory counts as not shared.
        error_life: Age from which a published error does not concern a launcher that has just started.
        gather: Time for which a leader that is done waits for launchers that have not come yet, and may ask
            differently.
        at_once: Age up to which a launcher with another question counts as started together with this one.
        settle: Time for which an answer that cannot be read may still become readable.
        progress: Least time between two progress files.
        first_line: Time after which a waiter first prints what it waits for.
        next_lines: Time between two such lines.
        abandon: Time for which a leader that has given up may unwind before the process ends.
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
        """The timing with `NEMOTRON_EXEC_HEAD_START`, the only constant that a cluster may need to change.

        Raises:
            UsageError: The value is no number of seconds.
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
