"""patches/megatron_lm.py: Megatron-LM's own `pretrain()`, of the megatron-core wheel, on the CPU. In CI only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from framework_environments import python_of
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from places import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1200)]

SCRIPT = ROOT / "tests" / "frameworks" / "pretrain_megatron_lm.py"


def test_each_checkpoint_of_two_ranks_is_an_artifact_once_in_both_stores_and_a_local_one_is_none(
    tmp_path, wandb_backend, wandb_environ
):
    save_dir, store = tmp_path / "out" / "megatron", tmp_path / "store"
    environ = {
        **wandb_environ,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "NEMOTRON_EXEC_STORE": str(store),
        "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "120",
        "NEMOTRON_EXEC_VERBOSE": "1",
        "LOCAL_CHECKPOINT": str(tmp_path / "local"),
    }
    torchrun = [python_of("pretrain-0.6"), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    wandb = ["--wandb-project", "nemotron", "--wandb-entity", "team", "--wandb-exp-name", "tiny"]
    command = [*torchrun, str(SCRIPT), "--save", str(save_dir), *wandb, "--ckpt-format", "torch"]
    done = subprocess.run(
        [sys.executable, "-m", "nemotron_exec", "--", *command],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [line for line in done.stderr.splitlines() if "nemotron-exec: warning" in line] == []
    found = [read.read_version(str(store), "megatron", number) for number in listing.versions(str(store), "megatron")]
    assert [one.manifest["metadata"]["iteration"] for one in found] == [2, 4]
    for one, name in zip(found, ("iter_0000002", "iter_0000004"), strict=True):
        assert one.manifest["path"] == str(save_dir)
        assert one.manifest["metadata"]["checkpoint_path"] == str(save_dir / name)
        assert one.manifest["metadata"]["framework"] == "megatron-lm"
        assert one.manifest["metadata"]["framework_version"].partition("+")[0] == "0.19.2"
    assert listing.names(str(store)) == ["megatron"]
    assert "a local checkpoint of Megatron-LM is no artifact" in done.stderr
    assert outbox.entries(outbox.directory_of(str(save_dir))) == []
    versions = wandb_backend.model.entities["team"]["nemotron"].collections["megatron"].versions
    assert [version.metadata["iteration"] for version in versions] == [2, 4]
    assert {version.metadata["absolute_path"] for version in versions} == {str(save_dir)}
