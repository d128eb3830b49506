"""Processes die around NeMo-RL's last step, the rename: real processes with doubles of both generations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from checkpoint_job import TESTS
from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory
from nemotron_exec.outbox import flush
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read

# Stops right before or after the rename of the checkpoint, until the file `go` exists.
PROGRAM = """
import os, sys, time
directory, where, end = sys.argv[1:4]
rename = os.rename

def stopping(source, target):
    if "tmp_step" in str(source):
        if where == "after":
            rename(source, target)
        print("stopped", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
        if where == "before":
            rename(source, target)
    else:
        rename(source, target)

os.rename = stopping
from nemo_rl.utils.checkpoint import CheckpointManager
config = {"checkpoint_dir": directory, "metric_name": None, "higher_is_better": True, "keep_top_k": None}
manager = CheckpointManager({**config, "save_period": 10, "save_optimizer": True})
path = manager.init_tmp_checkpoint(10, {})
if not hasattr(manager, "begin_finalization"):
    manager.finalize_checkpoint(path)
else:
    manager.begin_finalization(path)
    while not any(line == "go" for line in sys.stdin.readline().splitlines()):
        pass
    if end == "raise":
        raise RuntimeError("out of data")
    if end == "sleep":
        time.sleep(600)
"""


class Job:
    """One process that has stopped at its rename."""

    def __init__(self, tmp_path, generation, where, end="return"):
        self.tmp_path = tmp_path
        self.save_dir = tmp_path / "out" / "grpo"
        self.store = tmp_path / "store"
        self.stderr = tmp_path / "stderr"
        double = TESTS / "doubles" / f"nemo_rl_{generation}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.save_dir), where, end],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr.open("w"),
            text=True,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": os.pathsep.join([injector_directory(), str(double)]),
                "NEMOTRON_EXEC_ACTIVE": __version__,
                "NEMOTRON_EXEC_STORE": str(self.store),
                "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "60",
            },
        )
        assert self.process.stdout.readline() == "stopped\n", self.stderr.read_text()

    def go_on(self):
        """Let the main thread, which does not do the rename, come to its end."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def let_rename(self):
        (self.tmp_path / "go").touch()

    def kill(self):
        self.process.kill()
        self.process.wait(60)

    def recorded(self):
        store = str(self.store)
        return [
            read.read_version(store, "grpo", number, skip_gone=False).manifest["metadata"]["step"]
            for number in listing.versions(store, "grpo")
        ]

    def waiting(self):
        return [entry["iteration"] for _, entry in outbox.entries(outbox.directory_of(str(self.save_dir)))]

    def flush(self):
        return flush.flush(flush.pending([str(self.save_dir)]), to_wandb=False)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*args):
        started.append(Job(tmp_path, *args))
        return started[-1]

    yield start
    for job in started:
        job.close()


def until(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("end", "code"), [("return", 0), ("raise", 1), ("sleep", -signal.SIGTERM)])
def test_the_end_of_the_process_waits_for_a_rename_that_has_begun(start, end, code):
    job = start("main", "after", end)
    job.go_on()
    if end == "sleep":
        until(lambda: _caught(job.process.pid, signal.SIGTERM))
        job.process.send_signal(signal.SIGTERM)
    until(lambda: "waiting for 1 checkpoint" in job.stderr.read_text())
    assert job.process.poll() is None
    job.let_rename()
    assert job.process.wait(60) == code
    assert job.recorded() == [10]
    assert job.waiting() == []


def test_sigterm_has_its_default_action_again_when_the_thread_has_ended(start):
    job = start("main", "after", "sleep")
    until(lambda: _caught(job.process.pid, signal.SIGTERM))
    job.let_rename()
    until(lambda: not _caught(job.process.pid, signal.SIGTERM))
    assert job.recorded() == [10]


@pytest.mark.parametrize("generation", ["released", "main"])
def test_a_checkpoint_that_was_renamed_when_its_process_was_killed_is_found_by_a_flush(start, generation):
    job = start(generation, "after")
    job.kill()
    assert (job.save_dir / "step_10").is_dir()
    assert job.recorded() == []
    assert job.waiting() == [10]
    assert job.flush().registered == 1
    assert job.recorded() == [10]
    assert job.waiting() == []


@pytest.mark.parametrize("generation", ["released", "main"])
def test_one_that_was_not_renamed_yet_is_no_checkpoint(start, generation):
    job = start(generation, "before")
    assert [why for _, why in job.flush().kept] == ["its job is still running"]
    job.kill()
    assert job.flush().registered == 0
    assert job.recorded() == []
    assert job.waiting() == []
    assert (job.save_dir / "tmp_step_10").is_dir()


def test_one_that_another_start_has_completed_meanwhile_is_counted_once(start, tmp_path):
    job = start("main", "before", "sleep")
    job.kill()
    job.let_rename()
    again = Job(tmp_path, "main", "after", "return")  # saves step 10 again
    again.go_on()
    assert again.process.wait(60) == 0
    again.close()
    assert job.recorded() == [10]
    assert job.flush().registered == 0
    assert job.recorded() == [10]
    assert job.waiting() == []


def _caught(pid, number):
    with open(f"/proc/{pid}/status") as status:
        (caught,) = (line.split()[1] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
