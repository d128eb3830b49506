"""The claim on the lead of a meeting, against markers of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from nemotron_exec.shared_directory.lease import Lease
from nemotron_exec.sitecustomize.payload.checkpoints import process

HOLD = """
import sys, time
from nemotron_exec.shared_directory.lease import Lease
one = Lease(sys.argv[1], time.time, duration=60.0, heartbeat=20.0)
assert one.acquire()
print("held", flush=True)
sys.stdin.read()
"""
ASK = """
import sys, time
from nemotron_exec.shared_directory.lease import Lease
print(Lease(sys.argv[1], time.time, duration=60.0, heartbeat=20.0).acquire(), "filelock" in sys.modules)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lease."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "lease"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert held.stdout.readline() == "held\n"
    yield held
    held.kill()
    held.communicate()


def lease(tmp_path, duration=60.0, now=time.time):
    return Lease(str(tmp_path / "lease"), now, duration=duration, heartbeat=duration / 3)


def test_a_live_holder_of_this_host_is_seen_without_filelock(holder, tmp_path):
    asked = [sys.executable, "-c", ASK, tmp_path / "lease"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "False False\n"


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "a zombie"])
def test_a_dead_holder_of_this_host_is_followed_before_its_lease_is_over(holder, tmp_path, reaped):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        holder.wait()
    assert not process.runs(holder.pid)
    assert lease(tmp_path).acquire() or not reaped


def test_a_holder_that_is_silent_for_a_lease_is_followed_although_it_lives(holder, tmp_path):
    assert not lease(tmp_path).acquire()
    later = lease(tmp_path, now=lambda: time.time() + 61)
    try:
        assert later.acquire()
        assert later.held
    finally:
        later.release()


def test_a_lease_that_was_never_asked_for_is_not_held_and_may_be_released(tmp_path):
    one = lease(tmp_path)
    assert not one.held
    one.release()
    assert one.holder() is None
