"""PID 1's duties: signals reach the trainer, the container ends when it does, orphans are reaped."""

from __future__ import annotations

import time

import pytest

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

# A trainer that saves on SIGTERM, which takes a moment.
TRAINER = """
import os, signal, sys, time
def save(number, frame):
    print("saving", flush=True)
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
print("parent", os.getppid(), open("/proc/1/comm").read().strip(), flush=True)
print("training", flush=True)
while True:
    time.sleep(0.1)
"""


def stop(container, seconds: int = 30) -> tuple[float, int]:
    """Run `podman stop`; returns its time and the container's exit code."""
    begin = time.monotonic()
    container.engine.call("stop", "-t", str(seconds), container.name)
    code = container.engine.call("inspect", "--format", "{{.State.ExitCode}}", container.name).stdout
    return time.monotonic() - begin, int(code)


def test_stop_lets_the_trainer_save_and_ends_with_its_exit_code(engine, image):
    with engine.started(image("debian-python"), "python3", "-c", TRAINER) as container:
        assert "parent 1 tini" in container.wait_for("training")
        took, code = stop(container)
        assert "saved" in container.logs()
        assert took < 30
        assert code == 3


def test_stop_reaches_a_trainer_behind_the_images_own_entrypoint_and_a_shell(engine, image):
    # A shell with a trap waits for its child and passes no signal on. With tini's -g the child gets the signal, too.
    script = 'trap : TERM; python3 -c "$0"; echo "the shell saw $?"'
    with engine.started(image("ngc"), "bash", "-c", script, TRAINER) as container:
        container.wait_for("training")
        took, _ = stop(container)
        assert "saved" in container.logs()
        assert "the shell saw 3" in container.logs()
        assert took < 30


def test_a_trainer_killed_by_a_signal_gives_the_shells_exit_code(engine, image):
    assert engine.run(image("debian-python"), "sh", "-c", "kill -KILL $$").returncode == 137


@pytest.mark.parametrize("name", ["INT", "TERM", "USR1", "HUP"])
def test_every_signal_that_schedulers_send_reaches_the_trainer(engine, image, name):
    code = (
        "import signal, time\n"
        f"signal.signal(signal.SIG{name}, lambda *a: print('got it', flush=True))\n"
        "print('training', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    with engine.started(image("debian-python"), "python3", "-c", code) as container:
        container.wait_for("training")
        engine.call("kill", "--signal", name, container.name)
        container.wait_for("got it")


def test_orphans_are_reaped(engine, image):
    # Each subshell leaves a grandchild behind, which PID 1 inherits.
    script = "for i in 1 2 3 4 5; do (sleep 0.1 & ) ; done; echo started; exec sleep 100"
    with engine.started(image("debian-python"), "sh", "-c", script) as container:
        container.wait_for("started")
        end = time.monotonic() + 30
        while True:
            processes = container.exec("ps", "-eo", "stat,comm").stdout
            if "sleep" in processes and processes.count("sleep") == 1:
                break
            assert time.monotonic() < end, processes
        assert not [line for line in processes.splitlines() if line.startswith("Z")]


def test_the_launcher_leaves_no_process_behind(engine, image):
    done = engine.run(image("debian-python"), "ps", "-eo", "comm=")
    assert sorted(done.stdout.split()) == ["ps", "tini"]
