"""One launcher resolves, all others get its answer: real processes on one directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("agree_driver.py")


class Launchers:
    """Starts launchers of one Slurm job on as many simulated nodes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[str]] = []

    def start(self, index: int, count: int, environ: dict[str, str] | None = None, **spec) -> subprocess.Popen[str]:
        if environ is None:
            environ = {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": str(index),
                "SLURM_NTASKS": str(count),
                "SLURM_NODEID": str(index),
                "SLURM_NNODES": str(count),
            }
        spec = {"state": str(self.directory / "state"), "log": str(self.log), "environ": environ, **spec}
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(spec)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def run(self, count: int, **spec) -> list[dict]:
        return [self.result(process) for process in [self.start(index, count, **spec) for index in range(count)]]

    @property
    def log(self) -> Path:
        return self.directory / "resolved"

    @property
    def resolvers(self) -> list[int]:
        """Process ids of those that resolved, in order."""
        return [int(line.split()[0]) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @staticmethod
    def result(process: subprocess.Popen[str], timeout: float = 100) -> dict:
        out, err = process.communicate(timeout=timeout)
        return {"code": process.returncode, "stderr": err, **(json.loads(out) if out.strip() else {})}


@pytest.fixture
def launchers(tmp_path):
    started = Launchers(tmp_path)
    yield started
    for process in started.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_two_nodes_on_one_directory_resolve_once(launchers):
    results = launchers.run(2, work=0.5)

    assert [result["code"] for result in results] == [0, 0]
    assert results[0]["answer"] == results[1]["answer"]
    assert launchers.resolvers == [results[0]["answer"]["made_by"]]
    assert [result["led"] for result in results] == [True, False]


def test_a_single_launcher_waits_for_nobody_and_loads_no_filelock(launchers):
    [result] = launchers.run(1)

    assert result["code"] == 0
    assert result["led"] is True
    assert result["filelock"] is False


def test_no_thread_is_left_when_the_agreement_is_there(launchers):
    assert [result["threads"] for result in launchers.run(3, work=0.2)] == [1, 1, 1]
