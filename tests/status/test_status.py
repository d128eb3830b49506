"""`--status [JOB]`: the state of a job that runs, has ended, or never got an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from nemo_rl_job import nemo_rl_environ
from nemotron_exec.sitecustomize.payload import job, noted
from nemotron_exec.sitecustomize.payload.checkpoints import outbox

SAVE = """\
import os, sys, time
from nemo_rl.utils.checkpoint import CheckpointManager
config = dict.fromkeys(("metric_name", "keep_top_k", "save_optimizer"))
manager = CheckpointManager(config | {"checkpoint_dir": "grpo", "higher_is_better": True, "save_period": 10})
manager.finalize_checkpoint(manager.init_tmp_checkpoint(10, {"step": 10}, None))
print("saved", flush=True)
sys.stdin.read()
"""
CONFIG = "run: {data: 'mine:latest'}\npath: ${art:data,path}\ncheckpoint: {save: grpo}\n"


@pytest.fixture
def environ(tmp_path):
    return nemo_rl_environ(tmp_path)


@pytest.fixture
def status(nemotron_exec, environ):
    def ask(*words, **variables):
        return nemotron_exec("--status", *words, env={**environ, **variables})

    return ask


@pytest.fixture
def launch(nemotron_exec, environ, tmp_path):
    def start(job, *command, text=CONFIG):
        (tmp_path / "data").mkdir(exist_ok=True)
        if not (tmp_path / "store/mine").exists():
            words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "add", "mine", "data"]
            subprocess.run(words, env={**os.environ, **environ}, cwd=tmp_path, check=True, capture_output=True)
        (tmp_path / "cfg.yaml").write_text(text)
        return nemotron_exec("--job-id", job, *command, "cfg.yaml", env=environ)

    return start


def wait_until(what, seconds=30.0):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def test_of_a_running_job_launchers_versions_patches_and_checkpoints_are_told(launch, status, environ, tmp_path):
    launch("first", "true")
    (tmp_path / "save.py").write_text(SAVE)
    words = [sys.executable, "-m", "nemotron_exec", "--job-id", "slurm-4242", sys.executable, "save.py", "cfg.yaml"]
    job = subprocess.Popen(
        words, env={**os.environ, **environ}, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert job.stdout.readline() == "saved\n"

    def of_job():
        return json.loads(status("--json", "slurm-4242").stdout)

    wait_until(lambda: of_job()["starts"][0]["checkpoints"]["delivered"])
    found = of_job()
    assert found["running"] is True
    (start,) = found["starts"]
    assert [one["pid"] for one in start["launchers"]] == [job.pid]
    assert start["command"][1:] == ["save.py", "cfg.yaml"]
    assert start["resolved"][0]["qualified_name"] == "mine:v1"
    (process,) = start["processes"]
    assert (process["pid"], process["alive"]) == (job.pid, True)
    assert {"patch": "nemo-rl", "state": "installed", "reason": ""} in process["patches"]
    assert "megatron-bridge" in process["waiting_for"]
    assert start["checkpoints"]["recorded"][0]["path"] == str(tmp_path / "grpo/step_10")
    assert start["checkpoints"]["waiting"] == []
    text = status("4242").stdout
    assert "job slurm-4242: running" in text
    assert "patch nemo-rl: installed" in text
    assert f"grpo: {tmp_path}/grpo/step_10: in store" in text
    job.communicate("")
    assert "job slurm-4242: over" in status("4242").stdout
    assert [line.split()[:2] for line in status().stdout.splitlines()] == [["first", "over"], ["slurm-4242", "over"]]


def test_a_checkpoint_that_waits_is_told_with_the_reason_and_the_command(launch, status, tmp_path):
    launch("j", "true")
    entry = {"event": outbox.new_event(), "name": "grpo", "checkpoint_path": "/x/step_1", "save_dir": "/x"}
    path = outbox.write(outbox.directory_of(str(tmp_path / "grpo")), entry)
    told = status("j").stdout
    assert "0 recorded, 0 delivered, 1 waiting" in told
    assert f"waiting: /x/step_1 (grpo): W&B has not confirmed it yet; nemotron-artifact flush {path}" in told


def test_a_job_that_failed_is_told_with_its_error(launch, status, environ, tmp_path):
    bad = CONFIG.replace("mine", "another")
    assert launch("alone", "true", text=bad).returncode == 125
    assert "a start that ended without an answer: its own output says why" in status("alone").stdout
    words = [sys.executable, "-m", "nemotron_exec", "--job-id", "together", "true", "cfg.yaml"]
    started = [
        subprocess.Popen(
            words, cwd=tmp_path, stderr=subprocess.DEVNULL,
            env={**os.environ, **environ, "NEMOTRON_EXEC_NODE_RANK": rank, "NEMOTRON_EXEC_NNODES": "2"},
        )
        for rank in "01"
    ]  # fmt: skip
    assert [one.wait(60) for one in started] == [125, 125]
    assert "no artifact of that name" in status("together").stdout
    assert "no artifact of that name" in status().stdout


def test_an_unknown_or_ambiguous_job_is_one_error_that_names_the_jobs(launch, status):
    for name in ("job-1", "job-2"):
        launch(name, "true")
    for word, said in (("nothing", "it has the jobs job-1, job-2"), ("job", "2 jobs have that in their id")):
        done = status(word)
        assert done.returncode == 125
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert status("job-1").returncode == 0


def test_without_a_state_directory_nothing_is_made_and_one_line_says_so(status, tmp_path):
    assert status().stdout == f"no job in {tmp_path}/state/nemotron-exec-{os.geteuid()}\n"
    assert not (tmp_path / "state").exists()
    assert status("a", "b").returncode == 2


def test_damaged_files_of_a_job_hide_nothing_else(launch, status, tmp_path):
    launch("one", "true")
    launch("two", "true")
    (answer,) = tmp_path.glob("state/*/jobs/one-*/*/answer.1.json")
    answer.write_text('{"schema": 1')
    done = status()
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"one", "two"}


@pytest.fixture
def noting(tmp_path, monkeypatch):
    """Write notes as a process of a job; `noted_files` are the files."""
    monkeypatch.setenv("NEMOTRON_EXEC_HANDOFF", str(tmp_path / "handoff.json"))
    monkeypatch.setattr(job, "_parts", {})
    return lambda: noted.note("patch", patch="x", state="installed", reason="")


@pytest.mark.parametrize(("rank", "files"), [("0", 1), ("7", 1), (None, 1), ("1", 0), ("6", 0)])
def test_of_the_ranks_the_first_and_the_last_note(noting, tmp_path, monkeypatch, rank, files):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.delenv("RANK", raising=False)
    if rank:
        monkeypatch.setenv("RANK", rank)
    noting()
    noting()
    found = list(tmp_path.glob("processes/*.jsonl"))
    assert len(found) == files
    assert all(len(file.read_text().splitlines()) == 3 for file in found)


def test_no_more_than_64_processes_note_and_none_through_a_link(noting, tmp_path, monkeypatch):
    (tmp_path / "processes").mkdir()
    for number in range(64):
        (tmp_path / f"processes/h.{number}.jsonl").touch()
    noting()
    assert len(list((tmp_path / "processes").iterdir())) == 64
    (tmp_path / "processes").rename(tmp_path / "elsewhere")
    for file in (tmp_path / "elsewhere").iterdir():
        file.unlink()
    (tmp_path / "processes").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(job, "_parts", {})
    noting()
    assert list((tmp_path / "elsewhere").iterdir()) == []
