"""Times four artifacts of 64 MB from a W&B server with 100 ms of latency, and counts processes that import wandb."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.row import Row, emit

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests"))

from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.origin import Origin
from nemotron_exec.stores.wandb.store import WandbStore
from wandb_backend import Backend
from wandb_backend.model import Blob

NAMES = ("a", "b", "c", "d")
SIZE = 64 << 20
LATENCY = 0.1
RUNS = 3

BY_HAND = """
import os, sys, wandb
api = wandb.Api()
for name in sys.argv[2:]:
    api.artifact(f"team/bench/{name}:latest").download(root=os.path.join(sys.argv[1], name))
os._exit(0)
"""


def main() -> None:
    with Backend() as backend, tempfile.TemporaryDirectory() as scratch:
        for name in NAMES:
            backend.seed(f"team/bench/{name}", files={"data.bin": Blob(os.urandom(4096) + name.encode(), SIZE)})
        backend.latency = LATENCY
        downloads(backend, scratch)
        backend.latency = 0.0
        imports(backend, scratch)


def downloads(backend: Backend, scratch: str) -> None:
    """Measure the wall time of one call that resolves and downloads, into an empty cache and with a full one."""
    singles: dict[str, list[float]] = {name: [] for name in NAMES}
    ways: dict[str, Callable[[Backend, str], None]] = {
        "ours": lambda backend, home: resolve(backend, home, *NAMES),
        "wandb.Api() and Artifact.download()": download_by_hand,
        "wandb artifact get": get_by_hand,
    }
    cold: dict[str, list[float]] = {way: [] for way in ways}
    warm: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(RUNS):
        for name in NAMES:
            with tempfile.TemporaryDirectory(dir=scratch) as home:
                singles[name].append(seconds_of(resolve, backend, home, name))
        for way, work in ways.items():
            with tempfile.TemporaryDirectory(dir=scratch) as home:
                cold[way].append(seconds_of(work, backend, home))
                warm[way].append(seconds_of(work, backend, home))
    slowest = max(statistics.median(seconds) for seconds in singles.values())
    ours = statistics.median(cold.pop("ours"))
    note = f"64 MB each, {LATENCY * 1000:.0f} ms before every answer, medians of {RUNS}, start of the client included"
    emit(
        Row(
            "four artifacts at once",
            "s",
            ours,
            slowest,
            bar="at most 1.3 times the slowest alone",
            met=ours <= 1.3 * slowest,
            against="the slowest of the four alone",
            pairs=RUNS,
            note=note,
        )
    )
    for way, seconds in cold.items():
        theirs = statistics.median(seconds)
        emit(Row(f"four artifacts, beside {way}", "s", ours, theirs, against=way, pairs=RUNS, note=note))
    ours = statistics.median(warm.pop("ours"))
    for way, seconds in warm.items():
        theirs = statistics.median(seconds)
        emit(Row(f"the same with a full cache, beside {way}", "s", ours, theirs, against=way, pairs=RUNS, note=note))


def seconds_of(work: Callable[..., None], *given: object) -> float:
    """Wall seconds of one call."""
    started = time.monotonic()
    work(*given)
    return time.monotonic() - started


def resolve(backend: Backend, home: str, *names: str) -> None:
    """Resolve and download as the launcher does, every byte checked."""
    environ = {**os.environ, **backend.environ()}
    store = WandbStore(project="bench", entity="team", cache_directory=os.path.join(home, "cache"), environ=environ)
    references = [parse_reference(name, f"{name}:latest", Origin("bench")) for name in names]
    for artifact in store.resolve(references, progress=lambda *_: None, timeout=120):
        assert os.path.getsize(os.path.join(artifact.path, "data.bin")) == SIZE


def download_by_hand(backend: Backend, home: str) -> None:
    """A script that people write: one artifact after the other, into a directory that is empty each time."""
    with tempfile.TemporaryDirectory(dir=home) as into:
        run([sys.executable, "-c", BY_HAND, into, *NAMES], backend, home)


def get_by_hand(backend: Backend, home: str) -> None:
    """The client's own command, once for each artifact."""
    with tempfile.TemporaryDirectory(dir=home) as into:
        for name in NAMES:
            get = ["artifact", "get", f"team/bench/{name}:latest", "--root", os.path.join(into, name)]
            run([sys.executable, "-m", "wandb", *get], backend, home)


def run(command: list[str], backend: Backend, home: str) -> None:
    environ = {**os.environ, **backend.environ(), "WANDB_CACHE_DIR": home, "WANDB_DATA_DIR": home, "HOME": home}
    subprocess.run(command, env=environ, cwd=home, check=True, capture_output=True)


def imports(backend: Backend, scratch: str) -> None:
    """Check that processes which do not talk to W&B do not import its client."""
    config = os.path.join(scratch, "cfg.yaml")
    with open(config, "w", encoding="utf-8") as file:
        file.write("run:\n  a: small:latest\n  wandb: {project: bench, entity: team}\npath: ${art:a,path}\n")
    backend.seed("team/bench/small", files={"x": b"x"})
    state = os.path.join(scratch, "state")
    os.mkdir(state)
    command = (sys.executable, "-c", "import sys", config)
    store = os.path.join(scratch, "store")
    data = ("add", "small", scratch, "--store", store)
    subprocess.run([sys.executable, "-m", "nemotron_exec.artifact_cli", *data], check=True, capture_output=True)
    waiters = [
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(i), "SLURM_NTASKS": "4", "SLURM_NNODES": "1"}
        for i in range(4)
    ]
    cases = {
        "plain exec and interpreter start": [((sys.executable, "-c", "import sys"), {})],
        "a job of the manifest store": [(("--backend", "manifest", "--store", store, *command), {})],
        "four ranks of a W&B job": [(("--backend", "wandb", "--state-dir", state, *command), one) for one in waiters],
    }
    for name, starts in cases.items():
        # The variable makes every Python print its imports, except the isolated child that talks to W&B.
        environ = {**os.environ, **backend.environ(), "HOME": scratch, "PYTHONPROFILEIMPORTTIME": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "nemotron_exec", *words],
                env={**environ, **more},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for words, more in starts
        ]
        said = [process.communicate(timeout=120)[1] for process in started]
        if any(process.returncode for process in started):
            raise SystemExit(f"{name}: {said[0][-2000:]}")
        modules = [line.rpartition("|")[2].strip() for text in said for line in text.splitlines() if "|" in line]
        count = sum(module == "wandb" or module.startswith("wandb.") for module in modules)
        emit(Row(f"modules of wandb in {name}", "modules", count, bar="none", met=count == 0 and bool(modules)))


if __name__ == "__main__":
    main()
