"""Fixtures: a Slurm of four virtual nodes for each test process, and a shared job directory for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, Job
from work import Work


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """The cluster."""
    shared = tmp_path_factory.getbasetemp()
    cluster = Cluster(tmp_path_factory.mktemp("slurm"), shared=(shared,))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def work(tmp_path):
    """The test's directory."""
    return Work(tmp_path)


class Submit:
    """Submits jobs of one test."""

    def __init__(self, cluster: Cluster, work: Work) -> None:
        self._cluster, self._work = cluster, work
        self.jobs: list[Job] = []

    def __call__(self, body: str, *options, env=None) -> Job:
        """Submit a script with this text."""
        return self.file(self._work.script(body), *options, env=env)

    def file(self, script: str | Path, *options, env=None, words=()) -> Job:
        """Submit a script, such as one of examples/, with `words` as its arguments."""
        environ = {**self._work.environ, **(env or {})}
        self.jobs.append(self._cluster.submit(*options, script, *words, env=environ, cwd=self._work.path))
        return self.jobs[-1]


@pytest.fixture
def submit(slurm, work):
    """`submit(script text, sbatch options) -> Job`. Jobs that still run at the end of the test are cancelled."""
    submit = Submit(slurm, work)
    yield submit
    for job in submit.jobs:
        job.cancel()
