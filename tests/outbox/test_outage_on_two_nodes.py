"""W&B is down under a job of two nodes with two ranks each that does not require it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nemotron_exec.sitecustomize.payload.checkpoints import outbox

FRAMEWORKS = Path(__file__).resolve().parents[1] / "frameworks"

# Each rank has a run, and the last rank saves. The ranks exchange what they know, and rank 0 prints it.
TRAIN = f"""
import json, os, sys
import torch.distributed as dist
import wandb, yaml

sys.path.insert(0, {str(FRAMEWORKS)!r})
import megatron_module

module = megatron_module.light()
with open(sys.argv[1]) as file:
    config = yaml.safe_load(file)
dist.init_process_group("gloo")
rank, step = dist.get_rank(), int(sys.argv[2])
run = wandb.init(id="life-%d-rank-%d" % (step, rank), project="nemotron", entity="team")
run.log({{"loss": 1 / step}})
dist.barrier()
if rank == dist.get_world_size() - 1:
    path = os.path.join(config["save"], "iter_%07d" % step)
    os.makedirs(path)
    with open(os.path.join(path, "common.pt"), "w") as file:
        file.write("weights")
    module.on_save_checkpoint_success(path, config["save"], step, wandb)
known = [None] * dist.get_world_size()
dist.all_gather_object(known, {{"rank": rank, "offline": run.offline, "data": config["data"]}})
run.finish()
dist.barrier()
if rank == 0:
    os.write(1, (json.dumps(known) + "\\n").encode())
dist.destroy_process_group()
"""


@pytest.fixture
def job(tmp_path, wandb_backend, wandb_environ):
    """Runs one life of the job; its ranks' answers and both launchers' stderr."""
    wandb_backend.seed("team/nemotron/blend", files={"blend.json": b"{}"})
    (tmp_path / "train.py").write_text(textwrap.dedent(TRAIN))
    (tmp_path / "cfg.yaml").write_text(
        f"run:\n  data: blend:latest\n  wandb: {{project: nemotron, entity: team, required: false}}\n"
        f"data: ${{art:data,version}}\nsave: {tmp_path}/out/pretrain\ncheckpoint: {{save: '${{save}}'}}\n"
    )
    environ = {
        **wandb_environ,
        "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
        "NEMOTRON_EXEC_CACHE_DIR": str(tmp_path / "cache"),
        "NEMOTRON_EXEC_WANDB_TIMEOUT": "5",
        "OMP_NUM_THREADS": "1",
    }

    def run(step):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        nodes = [
            subprocess.Popen(
                [sys.executable, "-m", "nemotron_exec", "--state-dir", tmp_path / "state", "--job-id", "outage", "--"]
                + [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", node]
                + ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", port]
                + ["train.py", "cfg.yaml", str(step)],
                cwd=tmp_path,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for node in ("1", "0")
        ]
        try:
            outputs = [node.communicate(timeout=300) for node in nodes]
        finally:
            for node in nodes:
                node.kill()
        said = "\n".join(error for _, error in outputs)
        assert [node.returncode for node in nodes] == [0, 0], said[-6000:]
        (known,) = [json.loads(line) for out, _ in outputs for line in out.splitlines() if line.startswith("[")]
        return known, said

    return run


@pytest.mark.ci
def test_all_ranks_train_on_offline_with_the_same_inputs_and_the_next_start_delivers(job, wandb_backend, tmp_path):
    same = {"data": "v0"}
    assert job(10)[0] == [{"rank": rank, "offline": False, **same} for rank in range(4)]
    assert committed(wandb_backend) == [10]

    wandb_backend.seed("team/nemotron/blend", files={"blend.json": b"{1}"})
    wandb_backend.fail("*", times=None, status=503)
    known, said = job(20)
    assert known == [{"rank": rank, "offline": True, **same} for rank in range(4)]
    assert said.count("is offline. The next start or `nemotron-artifact flush") == 4
    assert committed(wandb_backend) == [10]
    assert waiting(tmp_path / "out/pretrain") == 1
    assert waiting(tmp_path / "store") == 4

    wandb_backend.faults.clear()
    known, said = job(30)
    assert known == [{"rank": rank, "offline": False, **same} for rank in range(4)]
    assert "1 sent to W&B" in said
    assert "4 offline runs sent to W&B" in said
    assert committed(wandb_backend) == [10, 20, 30]
    assert sorted(name for _, _, name in wandb_backend.model.runs if name.startswith("life-20")) == [
        f"life-20-rank-{rank}" for rank in range(4)
    ]
    assert (waiting(tmp_path / "out/pretrain"), waiting(tmp_path / "store")) == (0, 0)
    collection = wandb_backend.model.entities["team"]["nemotron"].collections["pretrain"]
    assert collection.versions[collection.aliases["latest"]].metadata["iteration"] == 30


def committed(backend):
    """The iterations that W&B has."""
    versions = backend.model.entities["team"]["nemotron"].collections["pretrain"].versions
    return [one.metadata["iteration"] for one in versions if one.state == "COMMITTED"]


def waiting(place):
    """How many entries an outbox has."""
    box = outbox.directory_of(str(place))
    return len(os.listdir(box)) if os.path.isdir(box) else 0
