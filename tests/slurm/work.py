"""The job directory of a test of the cluster, which all nodes see, with the reports of the job's processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nemotron_exec.sitecustomize.payload.manifest import register

HERE = Path(__file__).parent


class Work:
    """The directory of one test: a config, a store, a state directory, and the reports of its training processes.

    Attributes:
        path: The directory. All nodes see it.
        environ: Variables for the submission of its job scripts.
        train: The words of the training command, for a job script to put after `nemotron-exec` and a launcher.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.out = path / "out"
        self.config = path / "cfg.yaml"
        self.config.write_text("run: {data: 'blend:latest'}\ndata: ${art:data,path}\nversion: ${art:data,version}\n")
        self.publish(1)
        self.environ = {
            "NEMOTRON_EXEC_STORE": str(path / "store"),
            "NEMOTRON_EXEC_STATE_DIR": str(path / "state"),
            "PYTHON": sys.executable,
            "OUT": str(self.out),
            "TRAIN": f"{HERE / 'train.py'} {self.config}",
        }

    def publish(self, number: int) -> None:
        """Register the next version of the artifact that the config names `latest`."""
        data = self.path / f"data{number}"
        data.mkdir()
        assert (
            register.register(str(self.path / "store"), "blend", path=str(data), type="dataset", metadata={}).number
            == number
        )

    def seen(self, attempt: int | None = None) -> list[dict]:
        """The reports of the training processes, by rank."""
        found = [json.loads(path.read_text()) for path in self.out.glob("*.*.*.*.json")]
        return sorted((one for one in found if attempt in (None, one["attempt"])), key=lambda one: one["rank"])

    def script(self, body: str) -> str:
        """A batch script with this body."""
        path = self.path / "job.sbatch"
        path.write_text("#!/bin/bash\n" + body)
        return str(path)


def versions(seen):
    """The versions that the processes got."""
    return [one["values"]["version"] for one in seen]


def answers(seen):
    """The resolved configs that the processes got: one, if one launcher has resolved for all."""
    return {one["config"] for one in seen}
