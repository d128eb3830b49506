"""Measures coordination: the release of waiters, their file-system operations, and 10,000 simulated nodes.

    python -m benchmarks.rendezvous

The waiters are real processes that run `rendezvous.agree` on one directory; they are forks, so that 256 fit on a small
machine. They are compared with the rule of NVIDIA's Nemotron kit (nemo_runspec/config/resolvers.py): every rank looks
once a second. The simulation uses the same functions (nemotron_exec/rendezvous/polling.py) as the launcher.
"""

from __future__ import annotations

import collections
import dataclasses
import gc
import heapq
import math
import os
import random
import shutil
import statistics
import struct
import tempfile
import time

from benchmarks.row import Row, emit
from nemotron_exec import frozen
from nemotron_exec.message import Messages
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous import agree as rendezvous
from nemotron_exec.rendezvous import leading, polling, relay, waiting  # noqa: F401  loaded before the forks
from nemotron_exec.rendezvous.answer import Lead
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.rendezvous.timing import Timing
from nemotron_exec.shared_directory import lease  # noqa: F401  loaded before the forks

WAITED = 2.0
"""Seconds between the last arrival and the publication."""


def main() -> None:
    """Emit every row of this group."""
    for waiters in (1, 8, 64, 256):
        ours = release(waiters)
        theirs = release_by_the_second(waiters)
        median, late = statistics.median(ours), quantile(ours, 0.99)
        emit(
            Row(
                f"{waiters} waiters released, median",
                "ms",
                1000 * median,
                1000 * statistics.median(theirs),
                against="a look a second",
                bar="at most 100 ms",
                met=median <= 0.1,
                pairs=len(ours),
                note=f"answer published {WAITED:g} s after the last arrival",
            )
        )
        emit(
            Row(
                f"{waiters} waiters released, 99 %",
                "ms",
                1000 * late,
                1000 * quantile(theirs, 0.99),
                against="a look a second",
                pairs=len(ours),
                note="all of them wake on the same processors" if waiters > 32 else "",
            )
        )
    young, old = operations(3.0), operations(12.0) - operations(6.0)
    emit(
        Row(
            "file-system operations a waiter, first 3 s", "1/s", young / 3, 8.0, against="8 ranks, a look a second each"
        )
    )
    emit(
        Row("file-system operations a waiter, 6 to 12 s", "1/s", old / 6, 8.0, against="8 ranks, a look a second each")
    )
    # With 5 s of resolving, the last launchers have only just arrived.
    for duration, bound in ((5.0, 4), (30.0, 3)):
        ours_, theirs_ = simulate(10_000, duration), simulate(10_000, duration, ranks=8)
        emit(
            Row(
                f"10,000 nodes, {duration:g} s of resolving: released, 99 %",
                "s",
                ours_.late,
                theirs_.late,
                against="8 ranks a node, a look a second each",
                bar=f"at most {bound} s",
                met=ours_.late <= bound,
                note="simulated",
            )
        )
        emit(
            Row(
                f"10,000 nodes, {duration:g} s of resolving: asked of the server, busiest second",
                "1/s",
                ours_.load,
                theirs_.load,
                against="8 ranks a node, a look a second each",
                bar="at most 18,000",
                met=ours_.load <= 18_000,
                note="simulated; the server answers 20,000 a second",
            )
        )


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# -- real processes -------------------------------------------------------------------------------------------------


def release(waiters: int) -> list[float]:
    """Seconds from the publication to each waiter's return."""
    directory = tempfile.mkdtemp(prefix="rendezvous-")
    try:
        published, returned = _crowd(waiters, lambda index: _agree(directory, index, waiters + 1, WAITED))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return [at - published for at in returned]


def release_by_the_second(waiters: int) -> list[float]:
    """The same, for processes that look once a second like the ranks of the Nemotron kit."""
    directory = tempfile.mkdtemp(prefix="rendezvous-")
    marker = os.path.join(directory, "marker")

    def one(index: int) -> float:
        if index == 0:
            time.sleep(WAITED + random.random())
            with open(marker + ".part", "w") as file:
                file.write("{}")
            os.rename(marker + ".part", marker)
            return time.monotonic()
        time.sleep(random.random())
        while not os.path.exists(marker):
            time.sleep(1.0)
        return time.monotonic()

    try:
        published, returned = _crowd(waiters, one)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return [at - published for at in returned]


def _crowd(waiters: int, one) -> tuple[float, list[float]]:
    """Fork the waiters, then the leader; returns the leader's time and the waiters' times."""
    reading, writing = os.pipe()
    gate, opener = os.pipe()
    children = []
    gc.freeze()
    for index in [*range(1, waiters + 1), 0]:
        if index == 0:
            # Let all waiters arrive before the leader begins.
            time.sleep(0.5 + waiters / 200)
        if not (pid := os.fork()):
            code = 1
            try:
                at = one(index)
                os.write(writing, struct.pack("id", index, at))
                # Delay the end of this process: its cost would slow the processes that still wait.
                os.close(opener)
                os.read(gate, 1)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    os.close(writing)
    # Each report is one write of 16 bytes. A child that fails writes no report and closes its end.
    times = {}
    os.close(gate)
    while len(times) <= waiters and (report := os.read(reading, 16)):
        index, at = struct.unpack("id", report)
        times[index] = at
    os.close(opener)
    os.close(reading)
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
    if failed or len(times) != waiters + 1:
        raise RuntimeError(f"{failed} of {waiters + 1} launchers have failed")
    return times.pop(0), list(times.values())


def _agree(directory: str, index: int, count: int, work: float) -> float:
    state = os.path.join(directory, "state")
    os.makedirs(state, 0o700, exist_ok=True)
    told = []
    link = os.link

    def publishing(source: str, target: str, **more: bool) -> None:
        if "answer." in target:
            told.append(time.monotonic())
        link(source, target, **more)

    def produce(_lead: Lead) -> dict[str, object]:
        time.sleep(work)
        os.link = publishing
        return {}

    rendezvous.agree(
        Place(index, count, index, count, 0, 1, 0, "benchmark"),
        JobIdentity("benchmark", "--job-id", shared=True),
        StateDirectory(state, "--state-dir", "", os.geteuid(), shared=True),
        question=Question("k"),
        produce=produce,
        timeout=120,
        stall=120,
        refresh=False,
        messages=Messages("error"),
        timing=frozen.replace(Timing(), head_start=60.0),
    )
    # The leader reports the moment before link(2), so the cost of link(2) counts as the waiters' time. Before it the
    # leader waits for fsync, and there is no answer yet.
    return told[0] if told else time.monotonic()


def operations(seconds: float) -> float:
    """The number of file-system operations of one waiter in `seconds` of waiting, counted in its process."""
    directory = tempfile.mkdtemp(prefix="rendezvous-")
    count = [0]
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        for name in ("open", "lstat", "stat", "listdir", "link", "unlink", "mkdir", "rename"):
            _count_calls(name, directory, count)
        try:
            _wait_only(directory, seconds)
        finally:
            os.write(writing, struct.pack("i", count[0]))
            os._exit(0)
    os.waitpid(pid, 0)
    shutil.rmtree(directory, ignore_errors=True)
    return struct.unpack("i", os.read(reading, 4))[0]


def _count_calls(name: str, inside: str, count: list[int]) -> None:
    call = getattr(os, name)

    def counted(path, *rest, **more):
        count[0] += os.fspath(path).startswith(inside)
        return call(path, *rest, **more)

    setattr(os, name, counted)


def _wait_only(directory: str, seconds: float) -> None:
    state = os.path.join(directory, "state")
    os.makedirs(state, 0o700)
    rendezvous.agree(
        Place(1, 2, 1, 2, 0, 1, 0, "benchmark"),
        JobIdentity("benchmark", "--job-id", shared=True),
        StateDirectory(state, "--state-dir", "", os.geteuid(), shared=True),
        question=Question("k"),
        produce=lambda _lead: {},
        timeout=seconds,
        stall=120,
        refresh=False,
        messages=Messages("error"),
        timing=frozen.replace(Timing(), lease=0.05, heartbeat=0.01),
    )


# -- simulation -----------------------------------------------------------------------------------------------------

SERVER = 20_000.0
"""Metadata operations that the server answers a second."""
ARRIVAL = 8
"""Counted operations of one launcher's arrival: six directories on the way, the answer, signing in."""
FIRST_ATTEMPT, ATTEMPT = 7, 5
"""Operations of an attempt at the lease: refresh the view, see another node, look, look at the marker."""
SKEW = 3.0
"""Seconds over which srun starts the launchers."""


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Result of the simulation. `median` and `late` (99 %): seconds until release. `load`: operations requested in the
    busiest second up to the publication."""

    median: float
    late: float
    load: float


def simulate(nodes: int, duration: float, *, ranks: int | None = None, seed: int = 1) -> Simulated:
    """Simulate nodes that wait for an answer on one server, which answers requests in order.

    Args:
        nodes: Number of nodes.
        duration: Seconds from the first start to the publication.
        ranks: None for nemotron-exec's rule; else the number of processes a node that each look once a second.
        seed: Seed of the random numbers.
    """
    chance = random.Random(seed)
    waiters = nodes * (ranks or 1)
    timing = Timing()
    started = [chance.uniform(0.0, SKEW) for _ in range(waiters)]
    began, attempts = started, [math.inf] * waiters
    if ranks is None:
        began = [at + polling.arrival_delay(nodes, chance.random()) for at in started]
        attempts = [at + polling.first_attempt(timing.head_start, timing.retry, nodes, chance.random()) for at in began]
    events = [(at, index, ARRIVAL if ranks is None else 1) for index, at in enumerate(began)]
    heapq.heapify(events)
    tried = set()
    asked: collections.Counter[int] = collections.Counter()
    free = 0.0
    released = []
    while events:
        at, index, cost = heapq.heappop(events)
        # A client waits for its reply before the next request, so a slow server slows its clients down.
        free = max(free, at) + cost / SERVER
        if at < duration:
            asked[int(at)] += cost
        if free >= duration:
            # An attempt looks for the answer, too. The wait of a launcher that starts after the publication begins at
            # its start.
            released.append(free - max(duration, started[index]))
            continue
        if ranks is not None:
            following, cost = free + 1.0, 1
        else:
            following, cost = free + polling.interval(free - began[index], nodes, chance.random()), 1
            if attempts[index] <= following:
                following, cost = max(free, attempts[index]), ATTEMPT if index in tried else FIRST_ATTEMPT
                tried.add(index)
                attempts[index] = following + polling.attempt_interval(timing.retry, nodes, chance.random())
        heapq.heappush(events, (following, index, cost))
    return Simulated(statistics.median(released), quantile(released, 0.99), max(asked.values()))


if __name__ == "__main__":
    main()
