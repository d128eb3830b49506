"""Starts launchers of one job as processes, and reads their output."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

DRIVER = Path(__file__).with_name("agree_driver.py")


def slurm(index: int, count: int, **more: str) -> dict[str, str]:
    """The environment of one task on each of `count` nodes."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(index),
        "SLURM_NTASKS": str(count),
        "SLURM_NODEID": str(index),
        "SLURM_NNODES": str(count),
        **more,
    }


def worker(index: int, nodes: int, per_node: int) -> dict[str, str]:
    """The environment of a torchrun worker."""
    return {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": str(index),
        "WORLD_SIZE": str(nodes * per_node),
        "LOCAL_RANK": str(index % per_node),
        "LOCAL_WORLD_SIZE": str(per_node),
        "GROUP_RANK": str(index // per_node),
        "GROUP_WORLD_SIZE": str(nodes),
    }


class Launchers:
    """Starts launchers of one job on as many simulated nodes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.log = directory / "resolved"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, index: int, count: int, environ: dict[str, str] | None = None, **spec) -> subprocess.Popen[str]:
        environ = slurm(index, count) if environ is None else environ
        spec = {"state": str(self.state), "log": str(self.log), "environ": environ, **spec}
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(spec)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def run(self, count: int, **spec) -> list[dict]:
        return [self.result(process) for process in [self.start(index, count, **spec) for index in range(count)]]

    @property
    def resolvers(self) -> list[int]:
        """Process ids of the launchers that resolved, in order."""
        return [int(line.split()[0]) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def leader(self) -> subprocess.Popen[str]:
        """The launcher that began to resolve first."""
        pid = eventually(lambda: self.resolvers[0] if self.resolvers else None)
        return next(process for process in self.started if process.pid == pid)

    def others(self, than: subprocess.Popen[str]) -> list[dict]:
        """The results of all other launchers."""
        return [self.result(process) for process in self.started if process is not than]

    @property
    def meeting(self) -> Path:
        [found] = self.state.glob("nemotron-exec-*/jobs/*/*.k")
        return found

    def unfinished(self) -> list[str]:
        """Files that are no part of a finished meeting."""
        keep = ("answer.", "files.", "nodes")
        found = [str(path) for path in self.meeting.iterdir() if not path.name.startswith(keep)]
        published = {json.loads(path.read_text())["files"] for path in self.meeting.glob("answer.*.json")}
        found += [str(path) for path in self.meeting.glob("files.*") if path.name not in published]
        return found + [str(path) for path in self.meeting.rglob("*.tmp")]

    def close(self) -> None:
        """End all running and stopped processes."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    @staticmethod
    def result(process: subprocess.Popen[str], timeout: float = 280) -> dict:
        out, err = process.communicate(timeout=timeout)
        return {"code": process.returncode, "stderr": err, **(json.loads(out) if out.strip() else {})}


def eventually(condition, seconds: float = 60.0):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
    return value


def agreed(results: list[dict]) -> dict:
    """Check that all launchers have the same answer, and return it."""
    assert {result["code"] for result in results} == {0}, {result.get("error", result["stderr"]) for result in results}
    answers = [result["answer"] for result in results]
    assert all(answer == answers[0] for answer in answers)
    assert {result["config"] for result in results} == {"half: done\n"}
    return answers[0]
