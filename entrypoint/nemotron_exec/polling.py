"""How often a waiter looks for the answer. Also what benchmarks/rendezvous.py simulates for 10,000 nodes."""

from __future__ import annotations

__all__ = ["attempt_interval", "interval"]

_FAST = 0.05
_SLOW = 2.0
_SHARE = 0.025
_BUDGET = 10_000.0


def interval(waited: float, waiters: int | None, chance: float) -> float:
    """Seconds until the next look.

    It grows with the time already waited, so that the wait becomes at most a fortieth longer than it had to be, and
    with the number of waiters, so that all of them together stay below 10,000 looks a second.

    Args:
        waited: Seconds since the wait began.
        waiters: How many processes look at the same directory; None if unknown.
        chance: A random number in [0, 1): waiters that began together must not look together.
    """
    floor = max(_FAST, (waiters or 1) / _BUDGET)
    longest = max(floor, min(_SLOW, waited * _SHARE))
    return longest * (0.5 + 0.5 * chance)


_MANY = 256
_SELDOM = 30.0


def attempt_interval(retry: float, waiters: int | None, chance: float) -> float:
    """Seconds until the next attempt to take the lease, which costs more than a look.

    That somebody attempts it is enough: where there are many waiters, each does so less often.

    Args:
        retry: The interval where there are few (timing.Timing.retry).
        waiters: How many processes attempt it; None if unknown.
        chance: A random number in [0, 1).
    """
    longest = min(max(_SELDOM, retry), retry * max(1.0, (waiters or 1) / _MANY))
    return longest * (0.6 + 0.4 * chance)
