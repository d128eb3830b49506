"""Which launcher removes old state, whose error is no answer, and how an NFS client's cache is renewed."""

from __future__ import annotations

import os
import subprocess
import time
import types
from pathlib import Path

import pytest

from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous.agree import agree
from nemotron_exec.rendezvous.leading import Leading
from nemotron_exec.rendezvous.meeting import Meeting
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.rendezvous.retention import AGE
from nemotron_exec.rendezvous.timing import Timing

ALONE = Place(0, 1, 0, 1, 0, 1, 0, "test")
OF_TWO = Place(0, 2, 0, 2, 0, 1, 0, "test")
JOB = JobIdentity("job", "--job-id", shared=True, lasting=True)


@pytest.fixture
def state(tmp_path):
    return StateDirectory(str(tmp_path), "--state-dir", "ext4", os.geteuid(), shared=False)


@pytest.fixture
def old_job(tmp_path):
    """The directory of a job that ended long ago."""
    process = subprocess.Popen(["true"])
    process.wait()

    def make():
        path = tmp_path / "jobs" / "old"
        path.mkdir(parents=True, exist_ok=True)
        (path / "file").write_text("")
        for one in (path / "file", path):
            os.utime(one, (time.time() - AGE - 60,) * 2)
        (tmp_path / "cleaned").unlink(missing_ok=True)
        return path

    return make


def agreed(place, state):
    return agree(
        place,
        JOB,
        state,
        question=Question("k"),
        produce=lambda _: {"value": 1},
        timeout=60,
        stall=60,
        refresh=False,
        messages=Messages("error"),
        timing=Timing(settle=0.1, lease=1.2, heartbeat=0.3, retry=0.3),
    )


def test_a_launcher_that_is_alone_tidies_up(state, old_job):
    path = old_job()
    assert agreed(ALONE, state).led is True
    assert not path.exists()


def test_a_launcher_that_leads_tidies_up(state, old_job):
    path = old_job()
    assert agreed(OF_TWO, state).led is True
    assert not path.exists()


def test_a_launcher_that_comes_late_tidies_up(state, old_job):
    agreed(OF_TWO, state)
    path = old_job()
    assert agreed(OF_TWO, state).reused is True
    assert not path.exists()


def failing_leader(state, *, held):
    meeting = Meeting(
        OF_TWO, JOB, state, Question("k"), refresh=False, messages=Messages("error"), timing=Timing(settle=0.1)
    )
    meeting.arrive()
    lease = types.SimpleNamespace(held=held, release=lambda: None)
    return meeting, Leading(meeting, lease, 60.0, 60.0)


def fails(_lead):
    raise LaunchError("a reference to be found", "nothing", "Look again")


def test_the_error_of_a_leader_whose_lease_another_has_is_nobodys_answer(state):
    # The leader notices it at its first report, or when its work has failed.
    meeting, leading = failing_leader(state, held=False)
    assert leading.run(fails) is None
    assert meeting.look() is None


def test_the_error_of_a_leader_that_lost_its_lease_while_it_worked_is_nobodys_answer(state):
    meeting, leading = failing_leader(state, held=True)

    def loses_it(lead):
        leading._lease.held = False
        fails(lead)

    assert leading.run(loses_it) is None
    assert meeting.look() is None


@pytest.mark.parametrize("theirs", [False, True])
def test_a_leader_that_lost_its_lease_takes_its_own_progress_away_and_no_others(state, theirs):
    # It is stopped between the look at its lease and the write, and goes on when its successor has tidied up.
    meeting, leading = failing_leader(state, held=True)
    progress = Path(meeting.path, "progress.json")

    def loses_it(lead):
        leading._lease.held = False
        assert progress.exists()
        if theirs:
            progress.write_text('{"leader": "another (pid 1)"}')
        fails(lead)

    assert leading.run(loses_it) is None
    leading.close()
    assert progress.exists() is theirs


def test_the_error_of_a_leader_that_holds_its_lease_is_the_answer(state):
    meeting, leading = failing_leader(state, held=True)
    with pytest.raises(LaunchError, match="a reference to be found"):
        leading.run(fails)
    assert meeting.look().failure is not None


def test_a_look_changes_the_directory_and_leaves_nothing(state):
    # An NFS client caches that a file is missing, and asks the server again once the directory has changed.
    meeting, _ = failing_leader(state, held=True)
    there = sorted(os.listdir(meeting.path))
    os.utime(meeting.path, (1.0, 1.0))
    meeting.refresh_view()
    assert os.stat(meeting.path).st_mtime > 1.0
    assert sorted(os.listdir(meeting.path)) == there
