"""How often launchers ask the shared directory. Also what benchmarks/rendezvous.py simulates for 10,000 nodes.

One metadata server may answer 20,000 operations a second. What the launchers of one job ask of it grows with their
number, which they know: from `_MANY` on they arrive, look and attempt less densely.
"""

from __future__ import annotations

__all__ = ["arrival_delay", "attempt_interval", "first_attempt", "interval"]

_FAST = 0.05
_SLOW = 2.0
_SHARE = 0.025
_BUDGET = 4_000.0
_MANY = 256
_SELDOM = 30.0
_ARRIVALS = 1_500.0


def arrival_delay(launchers: int | None, chance: float) -> float:
    """Seconds that a launcher other than the first leaves before it arrives.

    An arrival is the dearest that most launchers ever ask for, and a scheduler starts all of them within seconds.

    Args:
        launchers: How many the job has; None if unknown.
        chance: A random number in [0, 1).
    """
    return max(0, (launchers or 1) - _MANY) / _ARRIVALS * chance


def interval(waited: float, waiters: int | None, chance: float) -> float:
    """Seconds until the next look.

    It grows with the time already waited, so that the wait becomes at most a fortieth longer than it had to be, and
    with the number of waiters, so that all of them together look about 5,000 times a second.

    Args:
        waited: Seconds since the wait began.
        waiters: How many processes look at the same directory; None if unknown.
        chance: A random number in [0, 1): waiters that began together must not look together.
    """
    floor = max(_FAST, (waiters or 1) / _BUDGET)
    longest = max(floor, min(_SLOW, waited * _SHARE))
    return longest * (0.5 + 0.5 * chance)


def attempt_interval(retry: float, waiters: int | None, chance: float) -> float:
    """Seconds until the next attempt to take the lease, which costs more than a look.

    One attempting launcher is enough: where there are many waiters, each attempts less often.

    Args:
        retry: The interval where there are few (timing.Timing.retry).
        waiters: How many processes attempt it; None if unknown.
        chance: A random number in [0, 1).
    """
    return _longest(retry, waiters) * (0.6 + 0.4 * chance)


def first_attempt(head_start: float, retry: float, waiters: int | None, chance: float) -> float:
    """Seconds from a waiter's arrival to its first attempt to take the lease.

    Args:
        head_start: How long the lead is left to launcher 0.
        retry: See `attempt_interval`.
        waiters: How many processes attempt it; None if unknown.
        chance: A random number in [0, 1).
    """
    return head_start + (_longest(retry, waiters) - retry) * chance


def _longest(retry: float, waiters: int | None) -> float:
    return min(max(_SELDOM, retry), retry * max(1.0, (waiters or 1) / _MANY))
