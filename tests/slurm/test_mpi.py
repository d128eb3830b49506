"""mpirun in a batch script: its daemons are steps of Slurm, but its ranks are not."""

from __future__ import annotations

import os
import shutil

import pytest
from cluster import HERE, ROOT
from work import answers, versions

pytestmark = pytest.mark.ci

# Debian has several MPIs, each under its own name.
LAUNCHERS = {
    "Open MPI": "mpirun.openmpi --allow-run-as-root --map-by ppr:2:node",
    "MPICH": "mpiexec.mpich -ppn 2",
    "Hydra": "mpiexec.hydra -ppn 2",
}
JOB = "{mpirun} -n 6 nemotron-exec $PYTHON $TRAIN\n"


@pytest.mark.parametrize("mpirun", LAUNCHERS.values(), ids=LAUNCHERS)
def test_all_ranks_of_mpirun_get_one_answer(submit, work, mpirun):
    job = submit(JOB.format(mpirun=mpirun), "--nodes=3", "--ntasks-per-node=2")
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == list(range(6))
    assert len({one["host"] for one in seen}) == 3
    assert len(answers(seen)) == 1
    assert versions(seen) == ["v1"] * 6


@pytest.mark.parametrize("mpirun", ["mpirun.openmpi --allow-run-as-root", "mpiexec.hydra"])
def test_a_bad_reference_ends_mpirun_with_its_code(submit, work, mpirun):
    work.config.write_text(work.config.read_text().replace("blend:latest", "blent:latest"))
    job = submit(JOB.format(mpirun=mpirun), "--nodes=3", "--ntasks-per-node=2")
    assert job.end() == ("FAILED", "125:0"), job.output()
    assert work.seen() == []


def test_the_example_with_mpirun(submit, work):
    shutil.copy(HERE / "train.py", work.path)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    del work.environ["NEMOTRON_EXEC_STATE_DIR"], work.environ["NEMOTRON_EXEC_STORE"]
    os.rename(work.path / "store", work.path / "artifacts")
    environ = {**root, "TEAM": str(work.path)}
    job = submit.file(ROOT / "examples" / "slurm" / "mpirun.sbatch", "--nodes=2", env=environ)
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == list(range(16))
    assert len(answers(seen)) == 1
