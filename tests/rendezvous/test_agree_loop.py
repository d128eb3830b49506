"""The loop of a waiting launcher, with a clock that the test moves: the times at which it tries to lead."""

from __future__ import annotations

import os

import pytest

from nemotron_exec.errors import TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous import agree, leading
from nemotron_exec.rendezvous.meeting import Meeting
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.rendezvous.timing import Timing

TIMING = Timing()


class Clock:
    """A clock that moves only in `sleep`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Lease:
    """A lease that is free or not. It records the times of the requests."""

    def __init__(self, clock, free):
        self.clock, self.free, self.asked = clock, free, []

    def acquire(self):
        self.asked.append(self.clock.now - 1000.0)
        return self.free

    def holder(self):
        return None


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(agree, "time", made)
    monkeypatch.setattr(agree, "_chance", lambda: 1.0)
    return made


@pytest.fixture
def loop(clock, tmp_path):
    def make(index, *, free, timeout=60.0, nodes=1):
        place = Place(index, 2, index if nodes > 1 else 0, nodes, index, 2, 0, "test")
        state = StateDirectory(str(tmp_path), "--state-dir", "ext4", os.geteuid(), shared=False)
        job = JobIdentity("job", "--job-id", shared=True)
        meeting = Meeting(place, job, state, Question("k"), refresh=False, messages=Messages("error"), timing=TIMING)
        meeting.arrive()
        lease = Lease(clock, free)
        return lease, agree._Wait(meeting, lease, lambda _lead: {}, timeout, 60.0)

    return make


def test_after_a_lost_lead_the_others_get_a_whole_interval(monkeypatch, clock, loop):
    class LosesItsLease:
        def __init__(self, *_):
            pass

        def run(self, _produce):
            clock.sleep(20.0)

        def close(self):
            pass

    monkeypatch.setattr(leading, "Leading", LosesItsLease)
    lease, wait = loop(0, free=True)
    with pytest.raises(TemporaryError):
        wait.run()

    first, second, *_ = lease.asked
    assert first == 0.0
    assert second >= 20.0 + TIMING.retry


@pytest.mark.parametrize(("index", "expected"), [(0, 0.0), (1, TIMING.head_start)])
def test_launcher_0_has_a_head_start(loop, index, expected):
    lease, wait = loop(index, free=False)
    with pytest.raises(TemporaryError, match="--timeout"):
        wait.run()

    assert lease.asked[0] == pytest.approx(expected, abs=0.1)
    assert all(
        later - sooner >= 0.6 * TIMING.retry for sooner, later in zip(lease.asked, lease.asked[1:], strict=False)
    )


def test_a_launcher_that_sees_no_other_node_never_leads(loop, clock):
    lease, wait = loop(1, free=True, nodes=2, timeout=3600.0)
    with pytest.raises(TemporaryError, match="is not shared"):
        wait.run()

    assert lease.asked == []
    assert clock.now - 1000.0 == pytest.approx(TIMING.unshared, abs=3.0)


@pytest.mark.parametrize(("index", "grace"), [(0, 0.0), (1, TIMING.lease + TIMING.retry)])
def test_who_waits_gives_the_leader_time_to_say_why_it_gave_up(loop, clock, index, grace):
    _, wait = loop(index, free=False, timeout=30.0)
    with pytest.raises(TemporaryError, match="--timeout"):
        wait.run()

    assert clock.now - 1000.0 == pytest.approx(30.0 + grace, abs=0.1)
