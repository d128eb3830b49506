"""Measures the time of a checkpoint on the training thread, with a W&B server that takes 2 s to commit an artifact.

Two trainers save in turn, one with nemotron-exec's patch, one without. Each is a process with Megatron-Bridge's own
callback and the real wandb client. A third trainer waits for the commit, as upstream's patch does.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.pairs import Comparison
from benchmarks.row import Row, emit

sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
sys.path.insert(0, os.path.join(ROOT, "tests"))
from trainers import Trainer
from wandb_backend import Backend

SAVES = 50
BLOCKING_SAVES = 3
COMMIT = 2.0  # seconds
BAR = 10.0  # ms


def main() -> None:
    with Backend() as backend, tempfile.TemporaryDirectory() as scratch:
        backend.commit_delay = COMMIT
        alone = start(backend, scratch, "alone", nemotron_exec_injected="1")
        ours = start(backend, scratch, "ours")
        blocking = start(backend, scratch, "blocking", NEMOTRON_EXEC_CHECKPOINT_WAIT="block")
        try:
            result = Comparison()
            order = random.Random(20)
            for number in range(1, SAVES + 1):
                pair = [(alone, result.baseline), (ours, result.case)]
                order.shuffle(pair)
                for trainer, times in pair:
                    times.append(save(trainer, number))
            waits = [save(blocking, number) for number in range(1, BLOCKING_SAVES + 1)]
        finally:
            for trainer in (alone, ours, blocking):
                trainer.close()
    emit(
        Row.of(
            "training thread, per checkpoint",
            result,
            against="the framework's own callback",
            bar=f"at most +{BAR:g} ms",
            met=result.added <= BAR,
        )
    )
    emit(
        Row(
            "a blocking wait for the commit",
            "ms",
            statistics.median(waits),
            statistics.median(result.baseline),
            against="the framework's own callback",
            pairs=BLOCKING_SAVES,
        )
    )


def start(backend: Backend, scratch: str, name: str, **variables: str) -> Trainer:
    """Start a trainer in directories of its own."""
    home = os.path.join(scratch, name)
    environ = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        **backend.environ(Path(home, "wandb")),
        "NEMOTRON_EXEC_STORE": os.path.join(home, "store"),
        "NEMOTRON_EXEC_BACKEND": "wandb",
        "SAVE_DIR": os.path.join(home, "out", "pretrain"),
        **variables,
    }
    return Trainer.start(environ, wandb=True)


def save(trainer: Trainer, number: int) -> float:
    """Save a checkpoint; returns the milliseconds that the training thread spent in the callback."""
    return float(trainer.do(f"save {number * 10}")) * 1000


if __name__ == "__main__":
    main()
