"""Times one node: 64 launchers with a rank each, and a job of 1, 8 and 64 ranks under one launcher.

The wall time runs from the first start to the end of the last rank, on all processors. Bare ranks are the baseline.

NVIDIA's kit is measured, too, where BENCH_KIT names a checkout of NVIDIA-NeMo/Nemotron: its rank 0
resolves with wandb and the other ranks look once a second.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import environments
from benchmarks.resolving import CONFIG, write_store
from benchmarks.row import Row, emit

sys.path.insert(0, os.path.join(environments.ROOT, "tests"))

from wandb_backend import Backend

RANKS = (1, 8, 64)
RUNS = 5
RUNS_OF_A_JOB = 3
KIT = os.environ.get("BENCH_KIT", "")
# Half of what 64 launchers took before they were made cheap, as multiples of the bare ranks in the same run: 11.3, 8.7.
FIRST, RESTART = 5.6, 4.4

SPAWN = """
import os, subprocess, sys
ranks = int(sys.argv[1])
started = [subprocess.Popen(sys.argv[2:], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks)})
           for rank in range(ranks)]
sys.exit(any([process.wait() for process in started]))
"""
LOAD = """
import sys
from omegaconf import OmegaConf
OmegaConf.to_container(OmegaConf.load(sys.argv[1]), resolve=True)
"""
LOAD_WITH_KIT = """
import sys
from nemo_runspec.config.resolvers import clear_artifact_cache, register_resolvers_from_config
from omegaconf import OmegaConf
config = OmegaConf.load(sys.argv[1])
clear_artifact_cache()
register_resolvers_from_config(config=config, artifacts_key="run", mode="pre_init")
OmegaConf.to_container(config, resolve=True)
"""
WANDB_CONFIG = "run: {data: 'blend:latest', model: 'base:latest'}\npath: ${art:data,path}\nmodel: ${art:model,path}\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        launchers(home)
        ranks_of_one_launcher(home)


def launchers(home: str) -> None:
    """Measure 64 launchers of one Slurm step: the first start, then a restart of the same job."""
    environment = environments.launcher()
    write_store(os.path.join(home, "store"))
    environ = {
        **environments.clean_environ(environment, home),
        "TMPDIR": home,
        "NEMO_ARTIFACT_ROOT": os.path.join(home, "store"),
    }
    worker = [environments.bin_of(environment, "python"), "-c", "pass", CONFIG]
    ours = [environments.bin_of(environment, "nemotron-exec"), *worker]
    bare, first, restart = [], [], []
    for run in range(RUNS):
        step = [
            {
                **environ,
                "SLURM_JOB_ID": str(run + 1),
                "SLURM_STEP_ID": "0",
                "SLURM_NNODES": "1",
                "SLURM_NODEID": "0",
                "SLURM_NTASKS": "64",
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
            }
            for rank in range(64)
        ]
        bare.append(together(worker, step))
        first.append(together(ours, step))
        restart.append(together(ours, step))
    for name, seconds, bar in (("first start", first, FIRST), ("restart", restart, RESTART)):
        ratio = statistics.median(seconds) / statistics.median(bare)
        emit(
            Row(
                f"64 launchers with a rank each, {name}",
                "s",
                statistics.median(seconds),
                statistics.median(bare),
                against="the 64 ranks alone",
                bar=f"at most {bar:g} times",
                met=ratio <= bar,
                pairs=RUNS,
                note="one launcher with 64 ranks under it is cheaper",
            )
        )


def together(argv: list[str], environs: list[dict[str, str]]) -> float:
    """Wall seconds of one process for each environment, started at once."""
    began = time.monotonic()
    started = [subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL) for environ in environs]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError(f"a process has failed: {' '.join(argv)}")
    return time.monotonic() - began


def ranks_of_one_launcher(home: str) -> None:
    """Measure ranks that load their config with OmegaConf: with artifacts by the launcher or the kit, and without."""
    plain = os.path.join(home, "plain.yaml")
    with open(plain, "w", encoding="utf-8") as file:
        file.write("path: /data/blend\nmodel: /data/base\n")
    config = os.path.join(home, "artifacts.yaml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(WANDB_CONFIG)
    python = environments.bin_of(environments.peer("kit"), "python")
    with Backend() as backend:
        for name in ("blend", "base"):
            backend.seed(f"team/bench/{name}", files={"data.bin": b"x"})
        for ranks in RANKS:
            spawn = [sys.executable, "-c", SPAWN, str(ranks), python, "-c"]
            under = [sys.executable, "-m", "nemotron_exec", "--backend", "wandb"]
            alone = [fresh(backend, [*spawn, LOAD, plain]) for _ in range(RUNS_OF_A_JOB)]
            ours = [fresh(backend, [*under, *spawn, LOAD, config]) for _ in range(RUNS_OF_A_JOB)]
            report(f"a node of {ranks} ranks, two artifacts of W&B", ours, alone, "the same ranks, nothing to resolve")
            if KIT:
                kit = [fresh(backend, [*spawn, LOAD_WITH_KIT, config], kit=KIT) for _ in range(RUNS_OF_A_JOB)]
                report(f"a node of {ranks} ranks, two artifacts of W&B", ours, kit, "the same ranks with NVIDIA's kit")
    if not KIT:
        sys.stderr.write("NVIDIA's kit is not measured: BENCH_KIT names no checkout of Nemotron\n")


def fresh(backend: Backend, argv: list[str], kit: str = "") -> float:
    """Wall seconds of a job with empty caches, whose job id is new."""
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, **backend.environ(), "HOME": home, "TMPDIR": home, "WANDB_CACHE_DIR": home}
        environ |= {"WANDB_PROJECT": "bench", "WANDB_ENTITY": "team", "WANDB_DATA_DIR": home, "WANDB_SILENT": "true"}
        if kit:
            environ["PYTHONPATH"] = os.path.join(kit, "src")
        began = time.monotonic()
        done = subprocess.run(argv, env=environ, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
        return time.monotonic() - began


def report(name: str, ours: list[float], others: list[float], against: str) -> None:
    mine, theirs = statistics.median(ours), statistics.median(others)
    emit(Row(f"{name}, beside {against}", "s", mine, theirs, against=against, pairs=RUNS_OF_A_JOB))


if __name__ == "__main__":
    main()
