"""Megatron-Bridge's own `pretrain()` and `finetune()` under nemotron-exec: synchronous, asynchronous, one rank and two.

It runs in CI only, because a framework's whole environment has gigabytes (framework_environments.py).
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from framework_environments import python_of
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from places import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1500)]

SCRIPT = ROOT / "tests" / "frameworks" / "pretrain_tiny_gpt.py"


@pytest.mark.parametrize("ranks", [1, 2], ids=["one rank", "two ranks"])
@pytest.mark.parametrize("environment", ["pretrain", "pretrain-0.6"], ids=["0.3", "0.6"])
def test_each_checkpoint_of_pretrain_is_an_artifact_once_in_both_stores(
    tmp_path, wandb_backend, wandb_environ, environment, ranks
):
    # Run all trainings in one process, because the imports take most of its time.
    options = ["--wandb", "--then-async", tmp_path / "asynchronous", "--then-finetune", tmp_path / "finetuned"]
    if ranks == 1:
        options += ["--then-keep-one", tmp_path / "kept"]
    python, save_dir = python_of(environment), tmp_path / "synchronous"
    done = run(python, wandb_environ, tmp_path / "store", ranks, save_dir, options, tmp_path)
    check(done, tmp_path, wandb_backend, ["synchronous", "asynchronous", "finetuned"])
    if ranks == 1:
        check_deleted(tmp_path)


def check(done, tmp_path, wandb_backend, names):
    assert done.returncode == 0, done.stderr[-4000:]
    assert [line for line in done.stderr.splitlines() if "nemotron-exec: warning" in line] == []
    collections = wandb_backend.model.entities["team"]["nemotron"].collections
    for name in names:
        assert recorded(tmp_path / "store", name) == [2, 4]
        assert outbox.entries(outbox.directory_of(str(tmp_path / name))) == []
        versions = collections[name].versions
        assert [version.metadata["iteration"] for version in versions] == [2, 4]
        for version in versions:
            assert version.metadata["absolute_path"] == str(tmp_path / name)
            assert version.metadata["framework"] == "megatron-bridge"


def check_deleted(tmp_path):
    """Exactly the checkpoints that `most_recent_k` has deleted are marked."""
    store = tmp_path / "store"
    assert recorded(store, "kept") == [2, 4, 6]
    gone = [number for number in (1, 2, 3) if (store / "kept" / f"v{number}" / "pruned").exists()]
    kept = {path.name for path in (tmp_path / "kept").glob("iter_*")}
    assert "iter_0000006" in kept
    assert len(kept) + len(gone) == 3


def run(python, wandb_environ, store, ranks, save_dir, options, tmp_path):
    environ = {
        **wandb_environ,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "NEMOTRON_EXEC_STORE": str(store),
        "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "120",
    }
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*torchrun, str(SCRIPT), str(save_dir), *map(str, options)]
    launcher = [sys.executable, "-m", "nemotron_exec", "--"]
    return subprocess.run(
        [*launcher, *command], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False
    )


def recorded(store, name):
    return [
        read.read_version(str(store), name, number, skip_gone=False).manifest["metadata"]["iteration"]
        for number in listing.versions(str(store), name)
    ]
