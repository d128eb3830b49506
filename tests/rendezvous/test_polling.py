"""The polling of the shared directory: short waits end soon, and many nodes poll less often, to spare the server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec.rendezvous import polling
from nemotron_exec.rendezvous.timing import Timing

LAST = 1 - 1e-9
"""The largest chance."""


@pytest.mark.parametrize("launchers", [None, 1, 8, 64, 256])
@pytest.mark.parametrize("waited", [0.0, 1.0, 2.0, 4.0])
def test_a_young_wait_of_a_small_job_looks_at_least_every_tenth_of_a_second(launchers, waited):
    assert polling.interval(waited, launchers, LAST) <= 0.1


@pytest.mark.parametrize("launchers", [None, 1, 8, 64, 256])
def test_a_small_job_puts_off_neither_arrival_nor_first_attempt(launchers):
    timing = Timing()

    assert polling.arrival_delay(launchers, LAST) == 0
    assert polling.first_attempt(timing.head_start, timing.retry, launchers, LAST) == timing.head_start


@pytest.mark.parametrize("waited", [0.0, 60.0, 3600.0])
def test_an_old_wait_is_ended_within_some_seconds(waited):
    assert polling.interval(waited, 10_000, LAST) <= 3.0


def test_waiters_that_began_together_do_not_look_together():
    assert polling.interval(10.0, 8, 0.0) < 0.6 * polling.interval(10.0, 8, LAST)


def test_a_waiter_speaks_after_five_seconds_and_then_every_thirty():
    assert (Timing().first_line, Timing().next_lines) == (5.0, 30.0)


@pytest.mark.parametrize(("nodes", "duration"), [(1_000, 5.0), (1_000, 30.0), (10_000, 5.0), (10_000, 30.0)])
def test_a_metadata_server_has_room_left_in_its_busiest_second(nodes, duration):
    code = "import json; from benchmarks.rendezvous import SERVER, simulate; "
    code += f"print(json.dumps([SERVER, simulate({nodes}, {duration}).load]))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    capacity, load = json.loads(done.stdout)

    assert 0 < load <= 0.9 * capacity
