"""A job that starts again, in every way of Slurm, keeps its first versions."""

from __future__ import annotations

import subprocess

import pytest
from work import answers, versions

pytestmark = pytest.mark.ci

NODES = ("--nodes=2", "--ntasks-per-node=1")
SRUN = "srun nemotron-exec $PYTHON $TRAIN"


@pytest.fixture
def trains(slurm, work):
    """Wait until `count` processes of an attempt train."""
    return lambda attempt, count=2: slurm.until(
        lambda: len(work.seen(attempt)) == count and work.seen(attempt), 90, f"{count} processes of attempt {attempt}"
    )


def test_a_requeued_job_keeps_its_versions(submit, work, trains):
    job = submit(f"{SRUN} hold={work.path}/go\n", *NODES)
    first = trains(0)
    work.publish(2)
    job.requeue()
    again = trains(1)
    (work.path / "go").touch()
    assert job.end() == ("COMPLETED", "0:0")
    assert versions(first) == versions(again) == ["v1", "v1"]
    assert answers(first) == answers(again)


def test_mpirun_that_is_requeued_keeps_them(submit, work, trains):
    mpirun = "mpirun.openmpi --allow-run-as-root --map-by ppr:1:node"
    job = submit(f"{mpirun} nemotron-exec $PYTHON $TRAIN hold={work.path}/go\n", *NODES)
    first = trains(0)
    work.publish(2)
    job.requeue()
    again = trains(1)
    (work.path / "go").touch()
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    assert versions(again) == ["v1", "v1"]
    assert answers(first) == answers(again)


def test_a_job_that_another_one_preempts_keeps_them(submit, work, trains):
    job = submit(f"{SRUN} hold={work.path}/go\n", "--nodes=4", "--ntasks-per-node=1", "--exclusive")
    trains(0, 4)
    work.publish(2)
    urgent = submit("true\n", "--nodes=4", "--exclusive", "--partition=urgent")
    again = trains(1, 4)
    (work.path / "go").touch()
    assert job.end() == ("COMPLETED", "0:0")
    assert urgent.end() == ("COMPLETED", "0:0")
    assert versions(again) == ["v1"] * 4


def test_a_job_whose_node_fails_keeps_them_on_other_nodes(slurm, submit, work, trains):
    job = submit(f"{SRUN} hold={work.path}/go\n", *NODES, "--exclusive")
    failing = trains(0)[1]["host"]
    work.publish(2)
    slurm.fail(failing)
    try:
        # Act as a health check of the cluster. Slurm itself would wait for SlurmdTimeout.
        slurm.run("scontrol", "update", f"nodename={failing}", "state=down", "reason=power")
        again = trains(1)
    finally:
        (work.path / "go").touch()
        slurm.repair(failing)
    assert job.end() == ("COMPLETED", "0:0")
    assert failing not in {one["host"] for one in again}
    assert versions(again) == ["v1", "v1"]


def test_a_chain_of_jobs_of_one_name_keeps_the_versions_of_its_output(submit, work):
    work.config.write_text(work.config.read_text() + f"checkpoint: {{save: {work.path}/save}}\n")
    chain = (*NODES, "--job-name=run", "--dependency=singleton")
    first = submit(f"{SRUN} save={work.path}/save\n", *chain)
    assert first.end() == ("COMPLETED", "0:0"), first.output()
    work.publish(2)
    second = submit(f"{SRUN} save={work.path}/save\n", *chain)
    assert second.end() == ("COMPLETED", "0:0")
    assert second.number != first.number
    assert versions(work.seen()) == ["v1"] * 4
    assert "pinned by" in second.output()


def test_a_requeued_task_of_an_array_keeps_its_own(slurm, submit, work, trains):
    job = submit(f"{SRUN} hold={work.path}/go\n", "--nodes=1", "--ntasks-per-node=1", "--array=0-1")
    trains(0, 2)
    work.publish(2)
    slurm.run("scontrol", "requeue", f"{job.number}_1")
    again = trains(1, 1)
    (work.path / "go").touch()
    assert versions(again) == ["v1"]
    for task in slurm.jobs_of(job.number):
        assert task.end() == ("COMPLETED", "0:0")


def test_where_no_scheduler_counts_restarts_one_node_that_starts_again_keeps_them(slurm, work):
    """An index of a Kubernetes job, or a cloud node, has the same --job-id, and no variable counts the restart."""

    def start(*nodes, options=()):
        words = ["nemotron-exec", "--job-id", "j", "--timeout", "500", *options, work.environ["PYTHON"]]
        started = [
            subprocess.Popen(
                [*slurm.words_on(f"node{index + 1}"), *words, *work.environ["TRAIN"].split()],
                env=slurm.environ({**work.environ, "PET_NODE_RANK": str(index), "PET_NNODES": "2", "RANK": str(index)}),
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in nodes
        ]
        said = [process.communicate(timeout=50)[1] for process in started]
        assert [process.returncode for process in started] == [0] * len(nodes), said
        return said

    start(0, 1)
    work.publish(2)
    work.config.write_text("# a comment\n" + work.config.read_text())
    (said,) = start(1)
    assert "not shared" not in said
    start(0, 1)
    assert versions(work.seen()) == ["v1"] * 5
    start(0, 1, options=("--refresh",))
    assert sorted(versions(work.seen())) == ["v1"] * 5 + ["v2"] * 2
