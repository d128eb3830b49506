"""The whole main job: an artifact in the manifest store, the real torchrun, two stages, unchanged scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LAUNCHER = [sys.executable, "-m", "nemotron_exec"]

# A worker that prints its rank, and the path and the content of its config.
WORKER = """
import json, os, sys, yaml
with open(sys.argv[1]) as file:
    config = yaml.safe_load(file)
line = json.dumps({"rank": os.environ.get("RANK"), "config": sys.argv[1], "path": config["path"]})
os.write(1, (line + "\\n").encode())
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A manifest store with one artifact `blend:v1`."""
    monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(tmp_path / "store"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "blend.json").write_text("{}")
    _artifact("add", "blend", data, "--type", "dataset", "--meta", "pack_size=4096")
    return data


def _artifact(*words):
    done = subprocess.run(
        [sys.executable, "-m", "nemotron_exec.artifact_cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def job(tmp_path, store):
    """A worker script and its config, in a directory of their own."""
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:latest'}\npath: ${art:data,path}/blend.json\n")
    return tmp_path


def test_every_worker_of_torchrun_reads_the_same_resolved_config(job, store):
    done = _run("torchrun", "--standalone", "--nproc-per-node", "2", "worker.py", "cfg.yaml", cwd=job)
    workers = _lines(done)
    assert sorted(worker["rank"] for worker in workers) == ["0", "1"]
    assert {worker["path"] for worker in workers} == {f"{store}/blend.json"}
    assert len({worker["config"] for worker in workers}) == 1


def test_as_the_command_of_every_worker_one_resolves_for_all(job, store):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "--no-python"]
        + [*LAUNCHER, sys.executable, "worker.py", "cfg.yaml"],
        cwd=job,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    workers = _lines(done)
    assert sorted(worker["rank"] for worker in workers) == ["0", "1", "2"]
    assert {worker["path"] for worker in workers} == {f"{store}/blend.json"}
    assert len({worker["config"] for worker in workers}) == 1
    assert done.stderr.count("data: blend:v1") == 1


def test_of_two_nodes_with_a_shared_directory_one_resolves(job, store, tmp_path):
    # Two launchers act as two nodes, by the node rank in torchrun's arguments. A script stands in for torchrun, which
    # would wait for the other node's agent.
    fake = tmp_path / "bin" / "torchrun"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nwhile [ "$1" != worker.py ]; do shift; done\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    nodes = [
        subprocess.Popen(
            [*LAUNCHER, "--state-dir", tmp_path / "state", "--job-id", "two", "-v", fake]
            + ["--nnodes", "2", "--node-rank", str(rank), "worker.py", "cfg.yaml"],
            cwd=job,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    answers = [json.loads(out) for out, _ in outputs]
    assert answers[0] == answers[1]
    assert answers[0]["path"] == f"{store}/blend.json"
    assert sum(err.count("data: blend:v1 ->") for _, err in outputs) == 1


def test_a_config_keeps_its_name_and_is_private_and_the_original_is_untouched(job):
    before = (job / "cfg.yaml").read_bytes()
    (worker,) = _lines(_run(sys.executable, "worker.py", "cfg.yaml", cwd=job))
    assert os.path.basename(worker["config"]) == "cfg.yaml"
    assert worker["config"] != str(job / "cfg.yaml")
    assert os.stat(worker["config"]).st_mode & 0o777 == 0o600
    assert (job / "cfg.yaml").read_bytes() == before


def test_only_the_config_argument_is_replaced(job, nemotron_exec):
    done = nemotron_exec("sh", "-c", 'printf "%s\\n" "$@"', "sh", "x", "--config=cfg.yaml", "lr=1", "", "run.a=b")
    words = done.stdout.split("\n")[:-1]
    assert words[0] == "x"
    assert re.fullmatch(r"--config=/.*/cfg\.yaml", words[1])
    assert words[2:] == ["lr=1", ""]


COMMANDS = {
    "python script": [sys.executable, "worker.py", "cfg.yaml"],
    "python module": [sys.executable, "-m", "pkg.worker", "cfg.yaml"],
    "shell script": ["sh", "run.sh", "cfg.yaml"],
    "any other program": ["./prog", "cfg.yaml"],
    "after two dashes": ["--", sys.executable, "worker.py", "cfg.yaml"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_kind_of_command_gets_the_resolved_config(job, store, words):
    (job / "pkg").mkdir()
    (job / "pkg" / "__init__.py").write_text("")
    (job / "pkg" / "worker.py").write_text(WORKER)
    for name in ("run.sh", "prog"):
        (job / name).write_text(f'#!/bin/sh\nexec {sys.executable} worker.py "$1"\n')
        (job / name).chmod(0o755)
    (worker,) = _lines(_run(*words, cwd=job))
    assert worker["path"] == f"{store}/blend.json"


def test_resolve_only_prints_the_answer_and_starts_nothing(job, store):
    done = _run("--resolve-only", "-o", "out.yaml", "touch", "started", "cfg.yaml", cwd=job)
    answer = json.loads(done.stdout)
    assert not (job / "started").exists()
    (artifact,) = answer["artifacts"]
    assert (artifact["key"], artifact["version"], artifact["path"]) == ("data", "v1", str(store))
    assert yaml.safe_load((job / "out.yaml").read_text())["path"] == f"{store}/blend.json"
    assert (job / "out.yaml").stat().st_mode & 0o777 == 0o600


def test_resolve_only_needs_no_command(job, store):
    answer = json.loads(_run("--resolve-only", "-c", "cfg.yaml", cwd=job).stdout)
    with open(answer["configs"][0]["resolved"]) as file:
        assert yaml.safe_load(file)["path"] == f"{store}/blend.json"


def test_dry_run_prints_the_plan_and_starts_nothing(job, store):
    done = _run("--dry-run", "touch", "started", "cfg.yaml", cwd=job, env={"WANDB_API_KEY": "s3cret" * 7})
    assert not (job / "started").exists()
    assert f"+path: {store}/blend.json" in done.stdout
    assert "-path: ${art:data,path}/blend.json" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    as_json = json.loads(_run("--dry-run", "--log-format", "json", "touch", "started", "cfg.yaml", cwd=job).stdout)
    assert as_json["command"][:2] == ["touch", "started"]


def _run(*words, cwd, env=None):
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = subprocess.run(
        [*LAUNCHER, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PATH": path, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def _lines(done):
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_launcher_inside_a_launcher_keeps_what_the_first_has_pinned(job, store):
    # This is like an ENTRYPOINT and a prefix in the job script. Between the two, `latest` moves on.
    script = (
        f"{sys.executable} -m nemotron_exec.artifact_cli add blend /moved >/dev/null 2>&1; "
        f'exec {sys.executable} -m nemotron_exec {sys.executable} show.py "$1"'
    )
    (job / "show.py").write_text(
        "import json, os, sys\n"
        "handoff = json.load(open(os.environ['NEMOTRON_EXEC_HANDOFF']))\n"
        "print(json.dumps({'config': sys.argv[1], 'versions': [one['version'] for one in handoff['artifacts']]}))\n"
    )
    (shown,) = _lines(_run("sh", "-c", script, "sh", "cfg.yaml", cwd=job))
    assert shown["versions"] == ["v1"]
    assert yaml.safe_load(Path(shown["config"]).read_text())["path"] == f"{store}/blend.json"
