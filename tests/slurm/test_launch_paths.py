"""Ways in which a job script of Slurm starts a training job. All its processes get one answer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cluster import HERE, ROOT
from work import answers, versions

pytestmark = pytest.mark.ci


@pytest.mark.parametrize("example", ["pyxis", "apptainer"])
def test_torchrun_with_c10d_in_a_container_as_the_example_starts_it(slurm, submit, work, example):
    shutil.copy(HERE / "train.py", work.path)
    environ = {
        "PATH": f"{HERE / 'bin'}{os.pathsep}{slurm.environ()['PATH']}",
        "TEAM": str(work.path),
        "IMAGE": "image",
    }
    job = submit.file(ROOT / "examples" / "slurm" / f"{example}.sbatch", env=environ)
    assert job.end(seconds=240) == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == list(range(32))
    assert len({one["host"] for one in seen}) == 4
    assert len(answers(seen)) == 1
    assert versions(seen) == ["v1"] * 32
    assert all(one["injected"] for one in seen)


def test_torchrun_with_static_ranks(submit, work):
    job = submit(
        "head=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)\n"
        "srun bash -c 'exec nemotron-exec torchrun --nnodes 2 --node-rank $SLURM_NODEID --master-addr '$head"
        "' --nproc-per-node 2 $TRAIN'\n",
        *("--nodes=2", "--ntasks-per-node=1"),
    )
    assert job.end(seconds=240) == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == [0, 1, 2, 3]
    assert len(answers(seen)) == 1


def test_one_task_a_worker(submit, work):
    job = submit("srun nemotron-exec $PYTHON $TRAIN\n", "--nodes=3", "--ntasks-per-node=2")
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == list(range(6))
    assert len({one["host"] for one in seen}) == 3
    assert len(answers(seen)) == 1


def test_each_task_of_an_array_is_a_job_of_its_own(submit, work):
    job = submit("srun nemotron-exec $PYTHON $TRAIN\n", "--nodes=2", "--ntasks-per-node=1", "--array=0-1")
    for task in job.cluster.jobs_of(job.number):
        assert task.end() == ("COMPLETED", "0:0"), task.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == [0, 0, 1, 1]
    assert len(answers(seen)) == 2


def test_a_heterogeneous_job_with_one_command_gets_one_answer(submit, work):
    job = submit(
        "#SBATCH --nodes=1 --ntasks=2\n#SBATCH hetjob\n#SBATCH --nodes=2 --ntasks-per-node=1\n"
        "srun --het-group=0,1 nemotron-exec $PYTHON $TRAIN\n"
    )
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == [0, 1, 2, 3]
    assert len({one["host"] for one in seen}) == 3
    assert len(answers(seen)) == 1


def test_without_a_directory_that_all_nodes_see_c10d_carries_the_answer(submit, work):
    job = submit(
        "export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1) MASTER_PORT=29400\n"
        "srun nemotron-exec --rendezvous c10d $PYTHON $TRAIN\n",
        *("--nodes=3", "--ntasks-per-node=1"),
        env={"NEMOTRON_EXEC_STATE_DIR": "/tmp/state"},
    )
    assert job.end(seconds=180) == ("COMPLETED", "0:0"), job.output()
    assert versions(work.seen()) == ["v1"] * 3
    assert not Path("/tmp/state").exists()


def test_a_directory_that_each_node_has_for_itself_stops_the_job(slurm, submit, work):
    job = submit(
        "srun nemotron-exec --timeout 3 $PYTHON $TRAIN\n",
        *("--nodes=2", "--ntasks-per-node=1"),
        env={"NEMOTRON_EXEC_STATE_DIR": "/tmp/state"},
    )
    # The exit code is 75, and the cluster's RequeueExit requeues such a job.
    slurm.until(lambda: job.show()["Restarts"] == "1", 60, "the job is requeued")
    said = job.output()
    job.cancel()
    assert "is not shared" in said
    # Node 0 cannot see that the others use another directory, so it has resolved.
    assert {one["rank"] for one in work.seen()} <= {0}


def test_a_bad_reference_ends_all_nodes_with_one_message_and_its_code(submit, work):
    work.config.write_text(work.config.read_text().replace("blend:latest", "blent:latest"))
    job = submit("srun nemotron-exec $PYTHON $TRAIN\n", "--nodes=2", "--ntasks-per-node=1")
    assert job.end() == ("FAILED", "125:0")
    assert work.seen() == []
    assert job.output().count("blent") >= 2


def test_a_signal_of_scancel_reaches_the_training_process(slurm, submit, work):
    job = submit(f"srun nemotron-exec $PYTHON $TRAIN hold={work.path}/go\n", *("--nodes=2", "--ntasks-per-node=1"))
    slurm.until(lambda: len(work.seen()) == 2, 60, "both train")
    job.signal("USR1")
    slurm.until((work.out / "signalled.json").exists, 30, "USR1 has arrived")
    job.cancel()
    assert job.end()[0] == "CANCELLED"
