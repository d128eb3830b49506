"""A hanging leader is ended by a signal if one reaches it, else by ending its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nemotron_exec.rendezvous.watchdog import verdict

VERDICTS = {
    "at work": (1.0, 5.0, None),
    "silent for as long as is allowed": (10.0, 10.0, "--stall"),
    "silent for a little less": (9.9, 10.0, None),
    "out of time": (0.0, 100.0, "--timeout"),
    "silent and out of time": (10.0, 100.0, "--stall"),
}


@pytest.mark.parametrize(("since", "spent", "option"), VERDICTS.values(), ids=VERDICTS)
def test_when_a_leader_must_stop(since, spent, option):
    error = verdict("launcher 0", "data", since_progress=since, spent=spent, stall=10.0, budget=100.0)

    assert option in str(error) if option else error is None
    assert error is None or error.exit_code == 75


def test_a_stall_of_zero_is_no_bound():
    assert verdict("launcher 0", "data", since_progress=1e9, spent=0.0, stall=0.0, budget=100.0) is None


# SIGALRM stays pending in this process's main thread, as in a system call on a dead file server.
DEAF = """
import signal, sys
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.rendezvous.watchdog import Watchdog

def condemn(error):
    signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return LaunchError(error.wanted, error.found, error.remedy, exit_code=CODE)

watchdog = Watchdog("launcher 0", budget=3600.0, stall=0.2, patience=0.2, condemn=condemn, messages=Messages())
with watchdog:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    signal.sigwait([signal.SIGUSR1])
"""


@pytest.mark.parametrize("code", [75, 125])
def test_a_leader_that_no_signal_reaches_ends_with_the_errors_code(code):
    done = subprocess.run(
        [sys.executable, "-c", DEAF.replace("CODE", str(code))], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == code
    assert done.stderr.startswith("nemotron-exec: error: progress from launcher 0 within 0.2 s (--stall)")


# Afterwards the job must start with one thread, and with the old disposition of SIGALRM.
THROUGH = """
import os, signal, sys, time
from nemotron_exec.message import Messages
from nemotron_exec.rendezvous.watchdog import Abandoned, Watchdog

signal.signal(signal.SIGALRM, signal.SIG_IGN)
watchdog = Watchdog("launcher 0", budget=3600.0, stall=STALL, patience=60.0, condemn=lambda e: e, messages=Messages())
try:
    with watchdog:
        WORK
except Abandoned:
    print(watchdog.error)
untouched = signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
print(len(os.listdir("/proc/self/task")), untouched, "threading" in sys.modules)
"""


@pytest.mark.parametrize(
    ("stall", "work", "said"),
    [("60.0", "pass", ""), ("0.2", "time.sleep(3600)", "--stall"), ("0.2", "os.read(0, 1)", "--stall")],
    ids=["in time", "asleep", "reading what never comes"],
)
def test_nothing_of_it_outlives_the_turn(stall, work, said):
    with subprocess.Popen(
        [sys.executable, "-c", THROUGH.replace("STALL", stall).replace("WORK", work)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        *lines, last = process.stdout.read().splitlines()
        assert process.wait(60) == 0

    assert last == "1 True False"
    assert said in "".join(lines)
