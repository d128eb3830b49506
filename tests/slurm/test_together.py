"""The launchers of one step together: with one question or several, and when one fails or dies."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.ci

NODES = ("--nodes=2", "--ntasks-per-node=1")
# Keep PATH short, because the doctor starts every Python on it.
FEW_PYTHONS = "export PATH=$(dirname $PYTHON):/usr/bin:/bin\n"
# A W&B server that takes connections and never answers.
SILENT = (
    '$PYTHON -c \'import socket, time; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("", 8081)); s.listen(99);'
    " time.sleep(600)' &\nuntil (: </dev/tcp/$(hostname)/8081) 2>/dev/null; do sleep 0.05; done\n"
    "export WANDB_BASE_URL=http://$(hostname):8081\n"
)
WANDB = {"WANDB_API_KEY": "k" * 40, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "team"}


def test_with_kill_on_bad_exit_the_job_ends_with_the_code_of_its_error(submit, work):
    work.config.write_text(work.config.read_text().replace("blend:latest", "blent:latest"))
    job = submit("srun --kill-on-bad-exit=1 nemotron-exec $PYTHON $TRAIN\n", "--nodes=4", "--ntasks-per-node=2")
    assert job.end() == ("FAILED", "125:0"), job.output()
    assert work.seen() == []


def test_where_node_0_of_c10d_dies_the_others_end_at_once_with_one_line_each(slurm, submit, work):
    job = submit(
        SILENT + "export MASTER_ADDR=$(hostname) MASTER_PORT=29400\n"
        f"srun --kill-on-bad-exit=0 bash -c 'echo $$ $(hostname) >{work.path}/pid.$SLURM_PROCID;"
        " exec nemotron-exec --rendezvous c10d --timeout 200 $PYTHON $TRAIN'\n",
        *("--nodes=3", "--ntasks-per-node=1"),
        env={**WANDB, "NEMOTRON_EXEC_STATE_DIR": "/tmp/state"},
    )
    waiting = "ss -tn state established '( dport = :29401 )' | grep -q 29401"
    slurm.until(lambda: len(list(work.path.glob("pid.*"))) == 3, 60, "all have started")
    pid, host = (work.path / "pid.0").read_text().split()
    others = [name.read_text().split()[1] for name in work.path.glob("pid.[12]")]
    connected = [lambda on=other: not slurm.on(on, "bash", "-c", waiting, check=False).returncode for other in others]
    slurm.until(lambda: all(asks() for asks in connected), 90, "the others wait")
    slurm.on(host, "kill", "-9", pid)
    assert job.end(seconds=60)[0] == "FAILED"
    lines = [line for line in job.output().splitlines() if "nemotron-exec: error" in line]
    assert len(lines) == 2, job.output()
    assert "Traceback" not in job.output()


def test_the_doctor_says_so_where_all_nodes_see_what_might_not_be_shared(submit, work):
    """Store and state directory are on a local file system here, by its type."""
    job = submit(FEW_PYTHONS + "srun nemotron-exec --doctor $PYTHON $TRAIN\n", *NODES)
    assert job.end(seconds=180) == ("COMPLETED", "0:0"), job.output()
    assert job.output().count("the job would work") == 2
    assert len(re.findall(rf"ok +store +{work.path}/store .*, and node\d sees it, too", job.output())) == 2
    assert len(re.findall(rf"ok +state +{work.path}/state/.*, and node\d sees it, too", job.output())) == 2
    assert not list(work.path.rglob("*doctor*"))


def test_the_doctor_says_so_where_they_do_not(submit, work):
    job = submit(
        FEW_PYTHONS + "srun --kill-on-bad-exit=0 nemotron-exec --timeout 5 --doctor $PYTHON $TRAIN\n",
        *NODES,
        env={"NEMOTRON_EXEC_STATE_DIR": "/tmp/state"},
    )
    assert job.end(seconds=180)[0] == "FAILED", job.output()
    assert job.output().count("1 fault: the job would not work") == 2, job.output()
    assert len(re.findall(r"fault +state +/tmp/state/.*no --doctor of another node was seen", job.output())) == 2


def test_a_leader_that_hangs_is_said_to_be_asking_wandb(slurm, submit, work):
    job = submit(
        SILENT + "srun nemotron-exec --timeout 200 --stall 30 $PYTHON $TRAIN\n",
        *NODES,
        env=WANDB,
    )
    slurm.until(lambda: "asking W&B for blend:latest" in job.output(), 60, "the other node says what it waits for")
    (progress,) = work.path.glob("state/*/jobs/*/*/progress.json")
    assert "asking W&B for blend:latest" in progress.read_text()
    job.cancel()


def test_a_failure_that_may_pass_has_the_job_requeued(slurm, submit, work):
    """This cluster has RequeueExit=75, as the examples recommend."""
    job = submit(
        "export WANDB_BASE_URL=http://127.0.0.1:9\n"
        "srun --kill-on-bad-exit=1 nemotron-exec --timeout 5 $PYTHON $TRAIN\n",
        *("--nodes=4", "--ntasks-per-node=1"),
        env=WANDB,
    )
    slurm.until(lambda: job.show()["Restarts"] == "1", 150, "the job is requeued")
    job.cancel()
    assert work.seen() == []
