"""Shows that a checkpoint of 20,000 files costs the training thread nothing more, and one pass over its directories.

Checkpoints of one file and of 20,000 in 20 directories are recorded and delivered in turn, as by a patch. Python's
audit events count how often a directory of the checkpoint is read, on any thread.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.pairs import Comparison
from benchmarks.row import Row, emit

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORIES = 20
FILES = 1000  # in each directory
SAVES = 20
BAR = 2.0  # ms
RATIO = 2.0


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(NEMOTRON_EXEC_STORE=os.path.join(scratch, "store"), NEMOTRON_EXEC_BACKEND="manifest")
        os.environ.update(NEMOTRON_EXEC_QUIET="1", NEMOTRON_EXEC_CODE_DIFF="0")
        measure(scratch)


def measure(scratch: str) -> None:
    """Save checkpoints of both kinds in turn, and emit three rows."""
    from nemotron_exec.sitecustomize.payload.checkpoints.commit import committer
    from nemotron_exec.sitecustomize.payload.manifest import inventory

    small, large = (os.path.join(scratch, name) for name in ("small", "large"))
    fill(os.path.join(small, "iter_0000000"), 0)
    fill(os.path.join(large, "iter_0000000"), DIRECTORIES)
    read: list[str] = []
    sys.addaudithook(lambda event, given: read.append(str(given[0])) if event in ("os.scandir", "os.listdir") else None)
    result, order = Comparison(), random.Random(20)
    most = 0
    for number in range(1, SAVES + 1):
        pair = [(small, result.baseline), (large, result.case)]
        order.shuffle(pair)
        for directory, times in pair:
            read.clear()
            times.append(save(directory, number))
            assert committer().settle(60), "the commit thread has not ended"
            if directory == large:
                most = max(most, passes(read, os.path.join(large, f"iter_{number:07d}")))
    last = os.path.join(large, f"iter_{SAVES:07d}")
    taken = [timed(lambda: inventory.take(last)) for _ in range(SAVES)]
    bare = [timed(lambda: one_pass(last)) for _ in range(SAVES)]
    ratio = statistics.median(taken) / statistics.median(bare)
    emit(
        Row.of(
            "training thread, 20,000 files",
            result,
            against="one file",
            bar=f"at most +{BAR:g} ms",
            met=result.added <= BAR,
        )
    )
    emit(Row("reads of each directory", "", most, bar="at most 1", met=most <= 1, pairs=SAVES))
    emit(
        Row(
            "names and sizes, 20,000 files",
            "ms",
            statistics.median(taken),
            statistics.median(bare),
            against="os.scandir and os.stat alone",
            bar=f"ratio at most {RATIO:g}",
            met=ratio <= RATIO,
            pairs=SAVES,
        )
    )


def fill(directory: str, directories: int) -> None:
    """Write a checkpoint: one file, or directories of a thousand files."""
    os.makedirs(directory)
    for number in range(directories):
        os.mkdir(os.path.join(directory, f"part_{number}"))
    for number in range(max(1, directories * FILES)):
        below = f"part_{number // FILES}/" if directories else ""
        with open(os.path.join(directory, f"{below}{number}.distcp"), "wb") as file:
            file.write(b"x")


def save(directory: str, number: int) -> float:
    """Record a completed checkpoint; returns the milliseconds on the training thread."""
    from nemotron_exec.sitecustomize.payload.checkpoints import deliver, describe, record

    path = os.path.join(directory, f"iter_{number:07d}")
    os.rename(os.path.join(directory, f"iter_{number - 1:07d}"), path)
    completed = describe.Completed(
        framework="megatron-bridge",
        versions={"megatron-bridge": "0"},
        save_dir=directory,
        checkpoint_path=path,
        number=number,
        alias=f"iter_{number:07d}",
        path_is_checkpoint=False,
        transient=False,
        best=None,
        extra={},
    )
    return timed(lambda: deliver.deliver(record.record(completed)))


def passes(read: list[str], checkpoint: str) -> int:
    """The number of reads of the checkpoint's most read directory."""
    inside = [os.path.normpath(path) for path in read if (os.path.normpath(path) + "/").startswith(checkpoint + "/")]
    return max((inside.count(path) for path in set(inside)), default=0)


def one_pass(directory: str) -> int:
    """The cheapest way to get names and sizes."""
    size = 0
    for entry in list(os.scandir(directory)):
        if entry.is_dir(follow_symlinks=False):
            size += one_pass(entry.path)
        else:
            size += entry.stat().st_size
    return size


def timed(work: Callable[[], object]) -> float:
    """The milliseconds that `work` takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
