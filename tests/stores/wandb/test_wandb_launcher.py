"""W&B through the launcher: one look-up for a job of many ranks, and no trace of the client in the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from wandb_backend import API_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from wandb_backend import Backend

CONFIG = """\
run:
  data: data:latest
  model: pretrain:v0
  wandb: {project: nemotron}
blend: ${art:data,path}/blend.json
step: ${art:model,iteration}
"""

# Prints the job's config, environment and children.
JOB = """
import json, os, sys
import psutil
print(json.dumps({
    "config": open(sys.argv[1]).read(),
    "service": os.environ.get("WANDB_SERVICE"),
    "backend": os.environ.get("NEMOTRON_EXEC_BACKEND"),
    "children": [child.name() for child in psutil.Process().children(recursive=True)],
}))
"""


class Job:
    """A directory with a config and a script, and launchers in it."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self.environ = environ
        (directory / "cfg.yaml").write_text(CONFIG)
        (directory / "job.py").write_text(JOB)

    def start(self, *options: str, python: tuple[str, ...] = (), **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *python, "-m", "nemotron_exec", *options, sys.executable, "job.py", "cfg.yaml"],
            cwd=self.directory,
            env={**os.environ, **self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*options, **environ)
        output, error = process.communicate(timeout=120)
        return process.returncode, output, error


@pytest.fixture
def job(wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path) -> Job:
    (tmp_path / "ckpt" / "iter_30").mkdir(parents=True)
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"})
    wandb_backend.seed("team/nemotron/pretrain", metadata={"absolute_path": f"{tmp_path}/ckpt/iter_30"}, type="model")
    return Job(tmp_path, wandb_environ)


def slurm(index: int, count: int, nodes: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(index),
        "SLURM_NTASKS": str(count),
        "SLURM_NODEID": str(index * nodes // count),
        "SLURM_LOCALID": str(index % (count // nodes)),
        "SLURM_NNODES": str(nodes),
    }


def test_sixteen_ranks_ask_once_and_a_restart_not_at_all(wandb_backend: Backend, job: Job, tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    for start in ("first", "restart"):
        # -X importtime names every module that a process imports, on its stderr.
        ranks = [job.start(*state, python=("-X", "importtime"), **slurm(i, 16, 2)) for i in range(16)]
        done = [(*process.communicate(timeout=200), process.returncode) for process in ranks]
        assert [code for _, _, code in done] == [0] * 16, [error[-2000:] for _, error, code in done if code]
        configs = {json.loads(output)["config"] for output, _, _ in done}
        assert len(configs) == 1, start
        assert "step: 30" in configs.pop()
        imported = {
            line.rpartition("|")[2].strip() for _, error, _ in done for line in error.splitlines() if "|" in line
        }
        assert "nemotron_exec.cli" in imported
        assert "wandb" not in imported
        # One client, and not 16, looks each of the two references up once.
        assert wandb_backend.operations("ArtifactMembershipByName") == 2
        assert len([one for one in wandb_backend.log if one.name == "Viewer" and "W&B" in one.user_agent]) == 1
        assert wandb_backend.operations("GET data/blend.json") == 1


def test_the_job_has_nothing_of_the_client(job: Job) -> None:
    code, output, error = job.run()
    assert code == 0, error
    seen = json.loads(output)
    assert (seen["service"], seen["backend"], seen["children"]) == (None, "wandb", [])
    assert "data: data:v0 -> " in error
    assert API_KEY not in error + seen["config"]


@pytest.mark.parametrize("environ", [{"WANDB_MODE": "offline"}, {"WANDB_API_KEY": ""}], ids=["offline", "no key"])
def test_auto_uses_the_manifest_store_and_says_so_in_one_line(
    wandb_backend: Backend, job: Job, tmp_path: Path, environ: dict[str, str]
) -> None:
    for name in ("data", "pretrain"):
        version = tmp_path / "store" / name / "v0"
        version.mkdir(parents=True)
        (tmp_path / "store" / name / "latest").write_text("v0")
        path = f"{tmp_path}/ckpt"
        (version / "metadata.json").write_text(json.dumps({"path": path, "type": "model", "iteration": 30}))
        (version / "manifest.json").write_text(
            json.dumps({"name": name, "version": 0, "type": "model", "path": path, "metadata": {"iteration": 30}})
        )
    code, output, error = job.run("--store", str(tmp_path / "store"), **environ)
    assert code == 0, error
    assert json.loads(output)["backend"] == "manifest"
    assert error.count("looked up in the manifest store") == 1
    assert wandb_backend.log == []


def test_backend_wandb_without_a_key_says_what_to_do(wandb_backend: Backend, job: Job) -> None:
    code, _, error = job.run("--backend", "wandb", WANDB_API_KEY="")
    assert code == 125
    assert "WANDB_API_KEY" in error
    assert "wandb login" in error
    assert wandb_backend.log == []


def _wait_for_the_end_of(processes: list[psutil.Process]) -> None:
    """Wait for the end. A zombie counts as ended: in many containers PID 1 reaps no processes."""
    until = time.monotonic() + 60
    while alive := [one for one in processes if _runs(one)]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.ci
def test_a_signal_in_the_middle_of_a_download_leaves_nothing_half(wandb_backend: Backend, job: Job) -> None:
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"x" * 3_000_000})
    wandb_backend.fail("GET data/blend.json", stall=300_000, times=None)
    cache = os.path.join(job.environ["XDG_CACHE_HOME"], "nemotron-exec", "wandb")
    for count, number in enumerate((signal.SIGINT, signal.SIGTERM), start=1):
        process = job.start()
        wandb_backend.wait_for(r"\w*Files", count, timeout=60)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == -number, error
        assert "Traceback" not in error
        _wait_for_the_end_of(children)
        assert [name for name in os.listdir(cache) if not name.startswith(".")] == []
        assert [name for name in os.listdir(os.path.join(cache, ".lease")) if name.endswith(".lock")] == []
    wandb_backend.faults.clear()
    code, _, error = job.run()
    assert code == 0, f"{error}\n{wandb_backend.log[-8:]}"  # shows the server's view if it stalls again


def test_the_launcher_that_is_killed_takes_its_child_along(wandb_backend: Backend, job: Job) -> None:
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"x" * 3_000_000})
    wandb_backend.fail("GET data/blend.json", stall=300_000, times=None)
    process = job.start()
    wandb_backend.wait_for(r"\w*Files", timeout=60)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate(timeout=30)
    _wait_for_the_end_of(children)


@pytest.mark.parametrize(("options", "says"), [((), True), (("-q",), False)], ids=["a line", "quiet"])
def test_a_download_is_shown_unless_quiet(
    wandb_backend: Backend, job: Job, options: tuple[str, ...], says: bool
) -> None:
    code, _, error = job.run(*options)
    assert code == 0
    assert ("downloaded data:v0: 2 B in" in error) is says
    assert says or error == ""


@pytest.mark.ci
def test_a_file_that_stalls_again_and_again_is_the_error_and_not_the_leaders_silence(
    job: Job, wandb_backend: Backend
) -> None:
    wandb_backend.fail("GET data/blend.json", stall=0, times=None)
    # The look-up before the download has the same bound, and must have enough time.
    code, _, error = job.run("--stall", "9", "--timeout", "100")
    assert code == 75
    assert "blend.json: the download stalled for 3 s: trying again" in error
    assert error.splitlines()[-1].count("blend.json: the download stalled for 3 s. Start the job again") == 1
    assert "--stall" not in error
    assert len(wandb_backend.find("GET data/blend.json")) >= 5  # the last request may still be open


@pytest.mark.ci
def test_verbose_shows_what_the_client_says_and_never_the_key(job: Job) -> None:
    # The client's warning quotes a value, which here is the key, as a careless message would.
    environ = {"WANDB_ANONYMOUS": "allow", "WANDB_X_HISTORY_VALUE_ENCODING": API_KEY}
    code, _, error = job.run("-v", **environ)
    assert code == 0
    said = [line for line in error.splitlines() if line.startswith("nemotron-exec: W&B's client: ")]
    assert any("'***'" in line for line in said), error
    assert API_KEY not in error
    code, _, error = job.run(**environ)
    assert code == 0
    assert "W&B's client" not in error
