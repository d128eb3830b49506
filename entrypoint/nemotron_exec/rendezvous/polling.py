"""How often launchers read the shared directory. benchmarks/rendezvous.py simulates these rules for 10,000 nodes.

One metadata server may answer 20,000 operations a second. The load of a job grows with its number of launchers, which
they know. From `_MANY` launchers on, each arrives later, and looks and attempts less often.
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
    """Seconds that a launcher waits before it arrives; launcher 0 arrives at once.

    For most launchers the arrival costs more operations than all else, and a scheduler starts all of them within
    seconds.

    Args:
        launchers: Number of launchers of the job; None if unknown.
        chance: A random number in [0, 1).
    """
    return max(0, (launchers or 1) - _MANY) / _ARRIVALS * chance


def interval(waited: float, waiters: int | None, chance: float) -> float:
    """Seconds until the next look.

    It grows with the time already waited, so that the wait becomes longer by a fortieth at most. It also grows with the
    number of waiters, so that all together look about 5,000 times a second.

    Args:
        waited: Seconds since the wait began.
        waiters: Number of processes that look at the same directory; None if unknown.
        chance: A random number in [0, 1), so that waiters that began together do not look together.
    """
    floor = max(_FAST, (waiters or 1) / _BUDGET)
    longest = max(floor, min(_SLOW, waited * _SHARE))
    return longest * (0.5 + 0.5 * chance)


def attempt_interval(retry: float, waiters: int | None, chance: float) -> float:
    """Seconds until the next attempt to take the lease, which costs more than a look.

    One launcher that attempts it is enough, so with many waiters each attempts less often.

    Args:
        retry: The interval for few waiters (timing.Timing.retry).
        waiters: Number of processes that attempt it; None if unknown.
        chance: A random number in [0, 1).
    """
    return _longest(retry, waiters) * (0.6 + 0.4 * chance)


def first_attempt(head_start: float, retry: float, waiters: int | None, chance: float) -> float:
    """Seconds from a waiter's arrival to its first attempt to take the lease.

    Args:
        head_start: Seconds for which only launcher 0 may lead.
        retry: See `attempt_interval`.
        waiters: Number of processes that attempt it; None if unknown.
        chance: A random number in [0, 1).
    """
    return head_start + (_longest(retry, waiters) - retry) * chance


def _longest(retry: float, waiters: int | None) -> float:
    return min(max(_SELDOM, retry), retry * max(1.0, (waiters or 1) / _MANY))
