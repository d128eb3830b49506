"""Times four artifacts of 64 MB from a W&B server with 100 ms of latency, and counts processes that import wandb."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.row import Row, emit

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
    """Measure the wall time of one call that resolves and downloads, into an empty cache each time."""
    singles: dict[str, list[float]] = {name: [] for name in NAMES}
    together, by_hand = [], []
    for _ in range(RUNS):
        for name in NAMES:
            singles[name].append(resolve(backend, scratch, name))
        together.append(resolve(backend, scratch, *NAMES))
        by_hand.append(download_by_hand(backend, scratch))
    slowest = max(statistics.median(seconds) for seconds in singles.values())
    ours = statistics.median(together)
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
    emit(
        Row(
            "four artifacts, bytes checked",
            "s",
            ours,
            statistics.median(by_hand),
            against="wandb.Api() by hand, one after the other, unchecked",
            pairs=RUNS,
            note=note,
        )
    )


def resolve(backend: Backend, scratch: str, *names: str) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as home:
        environ = {**os.environ, **backend.environ()}
        store = WandbStore(project="bench", entity="team", cache_directory=os.path.join(home, "cache"), environ=environ)
        references = [parse_reference(name, f"{name}:latest", Origin("bench")) for name in names]
        started = time.monotonic()
        found = store.resolve(references, progress=lambda *_: None, timeout=120)
        seconds = time.monotonic() - started
        for artifact in found:
            assert os.path.getsize(os.path.join(artifact.path, "data.bin")) == SIZE
    return seconds


def download_by_hand(backend: Backend, scratch: str) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as home:
        environ = {**os.environ, **backend.environ(), "WANDB_CACHE_DIR": home, "WANDB_DATA_DIR": home}
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", BY_HAND, home, *NAMES], env=environ, check=True, capture_output=True)
        return time.monotonic() - started


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
