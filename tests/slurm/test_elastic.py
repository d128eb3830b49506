"""torchrun with a number of nodes that changes while the job runs, and the same without the launcher."""

from __future__ import annotations

import json

import pytest
from work import answers, versions

pytestmark = pytest.mark.ci

# torchrun's bounds are shortened: it waits for further nodes when there are enough, and counts a lost node until its
# keep-alive is over. Its agents share a store, and announce it only in the first round. So an agent that joins later
# would give up after 60 s (PyTorch 2.13), with and without the launcher.
JOB = """
head=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 TRAIN="$TRAIN hold={path}/go fail={path}/failed"
srun --kill-on-bad-exit=0 bash -c '
  [ $SLURM_NODEID != 2 ] || until [ -e {path}/late ]; do sleep 0.05; done
  {launcher} torchrun --nnodes 1:3 --nproc-per-node 1 --max-restarts 9 --monitor-interval 0.1 \
    --rdzv-id $SLURM_JOB_ID --rdzv-backend c10d --rdzv-endpoint '$head:29500' \
    --rdzv-conf last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3 $TRAIN &
  echo $! $(hostname) >{path}/agent.$SLURM_NODEID
  wait $! || [ -e {path}/left.$SLURM_NODEID ]'
"""


@pytest.mark.parametrize("launcher", ["nemotron-exec", "env"], ids=["with nemotron-exec", "by itself"])
def test_a_node_of_elastic_torchrun_joins_late_and_another_leaves(slurm, submit, work, launcher):
    job = submit(JOB.format(path=work.path, launcher=launcher), "--nodes=3", "--ntasks-per-node=1")

    def world(size):
        found = [one for one in work.seen() if one["world"] == str(size)]
        return found if len({one["host"] for one in found}) == size else None

    slurm.until(lambda: world(2), 120, "two nodes train")
    work.publish(2)
    (work.path / "late").touch()
    joined = slurm.until(lambda: world(3), 120, "the third one has joined, and all train")

    pid, host = (work.path / "agent.1").read_text().split()
    (work.path / "left.1").touch()
    slurm.on(host, "kill", pid)
    slurm.until(lambda: slurm.on(host, "kill", "-0", pid, check=False).returncode, 60, "its agent has left")
    before = set(work.out.iterdir())
    # The remaining workers notice the loss at the next collective operation, which fails.
    (work.path / "go").touch()
    assert job.end(seconds=120) == ("COMPLETED", "0:0"), job.output()[-3000:]
    again = [json.loads(path.read_text()) for path in set(work.out.iterdir()) - before]
    assert {one["host"] for one in again} == {one["host"] for one in joined} - {host}
    assert "3" not in {one["world"] for one in again}
    if launcher == "nemotron-exec":
        assert len(answers(work.seen())) == 1
        assert versions(work.seen()) == ["v1"] * len(work.seen())
