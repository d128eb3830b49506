"""Drive the real CheckpointManager of a NeMo-RL checkout through the events that the patch must see.

Usage: python tests/frameworks/try_nemo_rl.py CHECKOUT

It needs the imports of `nemo_rl/utils/checkpoint.py` (torch, numpy, PyYAML, pydantic). Only that file of NeMo-RL is
imported. Prints one line for each promise, and exits with 1 if one is broken.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path


def import_module(checkout: Path) -> types.ModuleType:
    """`nemo_rl.utils.checkpoint` of the checkout, without the packages above it."""
    import importlib

    for name, path in (("nemo_rl", checkout / "nemo_rl"), ("nemo_rl.utils", checkout / "nemo_rl" / "utils")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    return importlib.import_module("nemo_rl.utils.checkpoint")


def save(manager, step: int, info: dict, wait_fn=None) -> None:
    """Save a checkpoint as the algorithms of that generation do."""
    path = manager.init_tmp_checkpoint(step, info)
    if hasattr(manager, "begin_finalization"):
        manager.begin_finalization(path, wait_fn)
        manager.shutdown()
    else:
        if wait_fn is not None:
            wait_fn()
        manager.finalize_checkpoint(path)


def main(checkout: Path) -> int:
    """Run all events; returns the exit code."""
    work = Path(tempfile.mkdtemp())
    os.environ["NEMOTRON_EXEC_STORE"] = str(work / "store")
    from nemotron_exec.sitecustomize.payload.checkpoints import commit
    from nemotron_exec.sitecustomize.payload.manifest import listing, read
    from nemotron_exec.sitecustomize.payload.patches import nemo_rl as patch

    commits = subprocess.run(
        ["git", "-C", str(checkout), "log", "-1", "--format=%H %cs"], capture_output=True, text=True, check=False
    )
    print("checkout", commits.stdout.strip() or "without git history")
    module = import_module(checkout)
    status = patch.apply(module)
    print("patch", status.state, status.reason)
    wrapped = next((name for name in patch.STEPS if name in vars(module.CheckpointManager)), None)
    print("wraps", wrapped)
    config = {
        "checkpoint_dir": str(work / "grpo"),
        "metric_name": "val:reward",
        "higher_is_better": True,
        "keep_top_k": 2,
        "save_period": 10,
        "save_optimizer": True,
        "enabled": True,
    }
    manager = module.CheckpointManager(config)
    for step, reward in ((10, 0.2), (20, 0.9), (30, 0.9), (40, 0.1)):
        save(manager, step, {"step": step, "val:reward": reward})

    def broken() -> None:
        raise OSError("writer died")

    failed = None
    try:
        save(manager, 50, {"step": 50, "val:reward": 1.0}, broken)
    except (OSError, RuntimeError) as error:
        failed = error
    commit.committer().settle(60)
    store = str(work / "store")
    found = [
        (
            read.read_version(store, "grpo", number, skip_gone=False).manifest["metadata"]["step"],
            (work / "store" / "grpo" / f"v{number}" / "pruned").exists(),
        )
        for number in listing.versions(store, "grpo")
    ]
    best = read.read_version(store, "grpo", "best").manifest["metadata"]["step"]
    theirs = manager.get_best_checkpoint_path()
    promises = {
        "one version for each completed checkpoint": [step for step, _ in found] == [10, 20, 30, 40],
        "what keep_top_k deleted is marked": [step for step, gone in found if gone]
        == [step for step in (10, 20, 30, 40) if not (work / "grpo" / f"step_{step}").exists()],
        "best is what the framework keeps as best": best == 30,
        "its get_best_checkpoint_path agrees, or ties by chance (released)": Path(theirs).name
        in ("step_20", "step_30"),
        "a failed finalization reaches its caller and is no checkpoint": failed is not None,
    }
    for promise, kept in promises.items():
        print("ok  " if kept else "FAIL", promise)
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]).resolve()))
