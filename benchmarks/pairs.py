"""Times whole processes in pairs, from spawn to reaped: baseline and case next to each other, in random order.

A pair cancels drift (frequency, other users of the machine). Random order cancels the first run's effect on the second
(page cache). The baseline against itself (the A/A case) shows the remaining noise.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Case", "Comparison", "be_left_alone", "compare", "median_interval", "run"]

_QUIET = [
    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
]


@dataclass(frozen=True)
class Case:
    """A command to be timed.

    Args:
        name: The command's name in the report.
        argv: The command; `argv[0]` is a path.
        environ: The command's whole environment.
        status: The required exit status: a command that fails at once must not count as fast.
    """

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    status: int = 0


@dataclass
class Comparison:
    """The times of a case and of the baseline runs paired with it, in milliseconds."""

    baseline: list[float] = field(default_factory=list)
    case: list[float] = field(default_factory=list)

    @property
    def differences(self) -> list[float]:
        """The time that the case adds, pair by pair."""
        return [case - baseline for case, baseline in zip(self.case, self.baseline, strict=True)]

    @property
    def added(self) -> float:
        """Median of the pairwise differences."""
        return statistics.median(self.differences)

    @property
    def interval(self) -> tuple[float, float]:
        """Distribution-free 95 % interval of `added`."""
        return median_interval(self.differences)

    @property
    def ratio(self) -> float:
        """Median of the pairwise ratios."""
        return statistics.median(case / baseline for case, baseline in zip(self.case, self.baseline, strict=True))


def run(case: Case) -> float:
    """Run the case once; returns the milliseconds from spawn to reaped.

    Raises:
        RuntimeError: The exit status is not the required one.
    """
    argv, environ = list(case.argv), dict(case.environ)
    started = time.perf_counter_ns()
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=_QUIET)
    _, status = os.waitpid(pid, 0)
    ended = time.perf_counter_ns()
    if os.waitstatus_to_exitcode(status) != case.status:
        raise RuntimeError(
            f"{case.name}: exit {os.waitstatus_to_exitcode(status)}, not {case.status}: {' '.join(argv)}"
        )
    return (ended - started) / 1e6


def compare(
    baseline: Case,
    cases: Sequence[Case],
    *,
    pairs: int,
    seed: int = 20,
    prepare: Callable[[], None] | None = None,
) -> dict[str, Comparison]:
    """Measure each case `pairs` times, each time next to a fresh run of `baseline`.

    Args:
        baseline: The case to compare with. For the A/A row, put it into `cases` too, under another name.
        cases: The cases to measure, shuffled anew in each round.
        pairs: Number of rounds.
        seed: Seed of the random order.
        prepare: Called before each run, outside the measured time.
    """
    order = random.Random(seed)
    results = {case.name: Comparison() for case in cases}
    for case in [baseline, *cases]:  # warm up page cache and .pyc files
        if prepare:
            prepare()
        run(case)
    for _ in range(pairs):
        for case in order.sample(cases, len(cases)):
            pair = [(baseline, results[case.name].baseline), (case, results[case.name].case)]
            order.shuffle(pair)
            for which, times in pair:
                if prepare:
                    prepare()
                times.append(run(which))
    return results


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Distribution-free 95 % interval of the median (order statistics, normal approximation of the binomial)."""
    ordered = sorted(values)
    n = len(ordered)
    half = 1.96 * math.sqrt(n) / 2
    low = max(0, math.floor((n - 1) / 2 - half))
    high = min(n - 1, math.ceil((n - 1) / 2 + half))
    return ordered[low], ordered[high]


def be_left_alone() -> None:
    """Keep this process and its children on one processor, so that no pair is split over two. As root, also give them
    priority over other processes: on a busy machine a benchmark would measure the queue.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
