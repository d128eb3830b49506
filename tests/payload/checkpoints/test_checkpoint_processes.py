"""Checkpoints that child processes of the command save: each process inherits the injector."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from checkpoint_job import TESTS
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing

# An actor saves with NeMo-RL's manager, as on its main branch.
ACTOR = """
import os, sys

def save(root, name):
    from nemo_rl.utils.checkpoint import CheckpointManager
    config = {"checkpoint_dir": os.path.join(root, name), "metric_name": None, "higher_is_better": True}
    config.update(keep_top_k=None, save_period=10, save_optimizer=True)
    manager = CheckpointManager(config)
    manager.begin_finalization(manager.init_tmp_checkpoint(10, {}))
    manager.finalize_pending()

def torch_worker(index, root):
    save(root, "worker-%d" % index)

if __name__ == "__main__":
    save(*sys.argv[1:])
"""

DRIVERS = {
    "spawn": """
import multiprocessing, actor, sys
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=actor.save, args=(sys.argv[1], "grpo"))
    process.start(); process.join(); sys.exit(process.exitcode)
""",
    "fork": """
import multiprocessing, actor, sys
process = multiprocessing.get_context("fork").Process(target=actor.save, args=(sys.argv[1], "grpo"))
process.start(); process.join(); sys.exit(process.exitcode)
""",
    "fork after a checkpoint of its own": """
import multiprocessing, actor, sys
actor.save(sys.argv[1], "driver")
process = multiprocessing.get_context("fork").Process(target=actor.save, args=(sys.argv[1], "grpo"))
process.start(); process.join(); sys.exit(process.exitcode)
""",
    "subprocess": """
import actor, subprocess, sys
sys.exit(subprocess.call([sys.executable, actor.__file__, sys.argv[1], "grpo"]))
""",
    "subprocess of another environment": """
import actor, os, subprocess, sys
sys.exit(subprocess.call([os.environ["OTHER_PYTHON"], actor.__file__, sys.argv[1], "grpo"]))
""",
}


@pytest.fixture
def run(nemotron_exec, tmp_path):
    """Run a driver under the launcher; returns the checkpoints in the store, by name."""

    def run(driver, **environ):
        (tmp_path / "actor.py").write_text(ACTOR)
        (tmp_path / "driver.py").write_text(driver)
        path = [str(TESTS / "doubles" / "nemo_rl_main"), str(tmp_path)]
        done = nemotron_exec(
            *("--state-dir", tmp_path / "state", sys.executable, "driver.py", tmp_path / "out"),
            env={"NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "PYTHONPATH": os.pathsep.join(path), **environ},
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        store = str(tmp_path / "store")
        for name in listing.names(store):
            assert outbox.entries(outbox.directory_of(str(tmp_path / "out" / name))) == []
        return {name: len(listing.versions(store, name)) for name in listing.names(store)}

    return run


@pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)
def test_a_checkpoint_of_a_child_process_is_recorded_once(run, driver, tmp_path):
    environ = {}
    if "OTHER_PYTHON" in driver:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
        environ["OTHER_PYTHON"] = str(tmp_path / "venv" / "bin" / "python")
    expected = {"grpo": 1, "driver": 1} if "driver" in driver else {"grpo": 1}
    assert run(driver, **environ) == expected


@pytest.mark.ci
@pytest.mark.torch
def test_workers_of_torch_multiprocessing_record_theirs(run):
    driver = """
import actor, sys
import torch.multiprocessing
if __name__ == "__main__":
    torch.multiprocessing.spawn(actor.torch_worker, args=(sys.argv[1],), nprocs=2)
"""
    assert run(driver) == {"worker-0": 1, "worker-1": 1}
