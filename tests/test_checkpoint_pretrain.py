"""Megatron-Bridge's own `pretrain()` under nemotron-exec: synchronous and asynchronous saves, one rank and two.

In CI only: the framework's whole environment is 2.8 GB (requirements/pretrain.txt). `NEMOTRON_EXEC_TEST_PRETRAIN` names
a Python that has it; without it the test makes one under `.venvs/pretrain`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec.sitecustomize.payload import manifest, outbox

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tests" / "frameworks" / "pretrain_tiny_gpt.py"


@pytest.fixture(scope="session")
def python():
    """The Python of an environment with all of Megatron-Bridge."""
    named = os.environ.get("NEMOTRON_EXEC_TEST_PRETRAIN")
    if named:
        return named
    venv = ROOT / ".venvs" / "pretrain"
    venv.parent.mkdir(exist_ok=True)
    with (venv.parent / "pretrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / ".made").exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "-r", str(ROOT / "requirements" / "pretrain.txt")], check=True)
            subprocess.run([*pip, "--no-deps", "-r", str(ROOT / "requirements" / "frameworks.txt")], check=True)
            (venv / ".made").touch()
    return str(venv / "bin" / "python")


@pytest.mark.parametrize("ranks", [1, 2], ids=["one rank", "two ranks"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_each_checkpoint_of_pretrain_is_an_artifact_once_in_both_stores(
    python, tmp_path, wandb_backend, wandb_environ, ranks, asynchronous
):
    save_dir, store = tmp_path / "out" / "pretrain", tmp_path / "store"
    options = ["--wandb", *(["--async"] if asynchronous else [])]
    done = run(python, wandb_environ, store, ranks, save_dir, options, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [line for line in done.stderr.splitlines() if "nemotron-exec: warning" in line] == []
    assert recorded(store) == [2, 4]
    assert outbox.entries(outbox.directory_of(str(save_dir))) == []
    versions = wandb_backend.model.entities["team"]["nemotron"].collections["pretrain"].versions
    assert [version.metadata["iteration"] for version in versions] == [2, 4]
    assert {version.metadata["absolute_path"] for version in versions} == {str(save_dir)}
    assert (save_dir / "latest_wandb_artifact_path.txt").read_text() == "team/nemotron"


def test_what_most_recent_k_deletes_is_marked(python, tmp_path, wandb_environ):
    save_dir, store = tmp_path / "out" / "pretrain", tmp_path / "store"
    options = ["--iterations", "6", "--every", "2", "--keep", "1"]
    done = run(python, wandb_environ, store, 1, save_dir, options, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert recorded(store) == [2, 4, 6]
    gone = [number for number in (1, 2, 3) if (store / "pretrain" / f"v{number}" / "pruned").exists()]
    kept = {path.name for path in save_dir.glob("iter_*")}
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
    command = [*torchrun, str(SCRIPT), str(save_dir), *options]
    launcher = [sys.executable, "-m", "nemotron_exec", "--"]
    return subprocess.run(
        [*launcher, *command], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False
    )


def recorded(store):
    return [
        manifest.read_version(str(store), "pretrain", number, skip_gone=False).manifest["metadata"]["iteration"]
        for number in manifest.versions(str(store), "pretrain")
    ]
