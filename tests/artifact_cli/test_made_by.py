"""`show X --command` prints a command that starts the job of a version again, and the command works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from nemo_rl_job import nemo_rl_environ
from nemotron_exec.sitecustomize.payload.checkpoints import surroundings

TRAIN = """\
import sys, yaml
from nemo_rl.utils.checkpoint import CheckpointManager
path = next(word for word in sys.argv if word.endswith(".yaml"))
print("data:", yaml.safe_load(open(path))["path"])
config = dict.fromkeys(("metric_name", "keep_top_k", "save_optimizer"))
manager = CheckpointManager(config | {"checkpoint_dir": "grpo", "higher_is_better": True, "save_period": 10})
step = int(sys.argv[1])
manager.finalize_checkpoint(manager.init_tmp_checkpoint(step, {"step": step}, None))
"""
CONFIG = "run: {data: 'mine:latest'}\npath: ${art:data,path}\n"


@pytest.fixture
def environ(tmp_path):
    return {
        **os.environ,
        **nemo_rl_environ(tmp_path),
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "NCCL_DEBUG": "INFO",
        "HF_TOKEN": "hf_NobodysTokenAtAllHere",
    }


@pytest.fixture
def artifact(environ, tmp_path):
    def run(*words):
        return subprocess.run(
            ["nemotron-artifact", *words], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def trained(environ, tmp_path, artifact):
    """A checkpoint of a job with the data `mine:v1`; `mine:v2` was added after it."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert artifact("add", "mine", "one").returncode == 0
    words = ["nemotron-exec", "--timeout", "60", "--job-id", "j", sys.executable, "train.py", "10", "cfg.yaml", "x y"]
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert artifact("add", "mine", "two").returncode == 0
    return "grpo:v1"


def test_the_command_of_a_checkpoint_starts_the_same_job_with_the_same_versions(trained, artifact, environ, tmp_path):
    shown = artifact("show", trained, "--command")
    assert shown.returncode == 0, shown.stderr
    (line,) = shown.stdout.splitlines()
    assert line.startswith(f"cd {tmp_path} && env ")
    assert " NCCL_DEBUG=INFO " in line
    assert "--artifact data=mine:v1 -- " in line
    assert "--timeout 60 " in line
    assert "--job-id" not in line
    assert "Nobodys" not in shown.stdout + shown.stderr
    elsewhere = {name: environ[name] for name in ("PATH", "HOME") if name in environ}
    done = subprocess.run(["sh", "-c", line], env=elsewhere, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert f"data: {tmp_path}/one\n" in done.stdout


def test_what_has_changed_since_is_said(trained, artifact, tmp_path):
    assert artifact("show", trained, "--command").stderr == ""
    (tmp_path / "cfg.yaml").write_text(CONFIG + "# more\n")
    assert f"{tmp_path}/cfg.yaml has changed since" in artifact("show", trained, "--command").stderr
    (tmp_path / "cfg.yaml").unlink()
    assert f"{tmp_path}/cfg.yaml is gone since" in artifact("show", trained, "--command").stderr


def test_a_version_without_a_run_record_is_one_error(trained, artifact, tmp_path):
    done = artifact("show", "mine:v1", "--command")
    assert done.returncode == 125
    assert "to say what made mine:v1: it names no run record" in done.stderr
    for record in (tmp_path / "grpo/.nemotron-exec/runs").iterdir():
        record.write_text("[]")
    done = artifact("show", trained, "--command")
    assert done.returncode == 125
    assert "cannot be read here" in done.stderr


@pytest.fixture
def two(trained, artifact, environ, tmp_path):
    """`grpo:v1` and, with other data, config, command, code and environment, `grpo:v2`."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "train.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "train.py").write_text(TRAIN + "# api_key = 'sk1234567890abcdefghij'\n# more\n")
    (tmp_path / "cfg.yaml").write_text(CONFIG + "optimizer: {lr: 2, api_key: abc}\n")
    words = ["nemotron-exec", "--job-id", "k", sys.executable, "train.py", "20", "cfg.yaml"]
    changed = {**environ, "NCCL_DEBUG": "WARN", "SLURM_JOB_NAME": "sft"}
    subprocess.run(words, env=changed, cwd=tmp_path, capture_output=True, check=True)
    return "grpo:v1", "grpo:v2"


def test_diff_says_in_what_two_versions_and_their_jobs_differ(two, artifact):
    done = artifact("diff", *two, "--json")
    assert done.returncode == 0, done.stderr
    found = {(one["what"], one["name"]): (one["a"], one["b"]) for one in json.loads(done.stdout)["differences"]}
    assert found["input", "mine"] == ("v1", "v2")
    assert found["version", "iteration"] == (10, 20)
    assert found["config", "optimizer.lr"] == (None, 2)
    assert found["config", "optimizer.api_key"] == (None, "***")
    assert found["environment", "NCCL_DEBUG"] == ("INFO", "WARN")
    assert found["run", "command"][1].endswith("train.py 20 cfg.yaml")
    assert found["run", "commit"][0] is None
    assert len(found["run", "commit"][1]) == 40
    assert ("run", "changes not committed") in found
    assert not [name for what, name in found if what == "package"]
    text = artifact("diff", *two)
    assert "optimizer.lr" in text.stdout
    assert "sk1234567890" not in text.stdout + done.stdout
    assert artifact("diff", "grpo:v1", "grpo:v1").stdout == ""


def test_the_run_record_has_the_changes_packages_and_what_the_scheduler_says(two, tmp_path):
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "grpo/.nemotron-exec/runs").glob("job-k-*"))
    assert "+# more" in record["code"]["diff"]
    assert "sk1234567890" not in json.dumps(record)
    assert record["packages"]["pyyaml"]
    assert record["scheduler"] == {"SLURM_JOB_NAME": "sft"}
    assert record["gpus"] == []


def test_versions_without_a_run_record_are_compared_by_what_they_are(trained, artifact, tmp_path):
    done = artifact("diff", "mine:v1", "mine:v2", "--json")
    assert [(one["what"], one["name"]) for one in json.loads(done.stdout)["differences"]] == [("version", "path")]
    assert "it names no run record" in done.stderr


def test_a_config_that_is_gone_is_compared_by_its_digest(two, artifact, tmp_path):
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "cfg.yaml").unlink()
    done = artifact("diff", *two, "--json")
    assert "have changed or are gone since: only the digest is compared" in done.stderr
    found = {(one["what"], one["name"]): one["a"] for one in json.loads(done.stdout)["differences"]}
    assert len(found["config", str(tmp_path / "cfg.yaml")]) == 64


def test_a_diff_is_bounded_and_can_be_left_out_and_gpus_are_those_of_the_driver(tmp_path):
    assert surroundings.diff("+x\n" * 200_000, {}).endswith(f"… {600_000 - surroundings.DIFF_LIMIT} characters more")
    assert surroundings.diff("+x\n", {"NEMOTRON_EXEC_CODE_DIFF": "0"}) is None
    for number in (1, 2):
        (tmp_path / f"gpus/{number}").mkdir(parents=True)
        (tmp_path / f"gpus/{number}/information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 7\n")
    assert surroundings.gpus(str(tmp_path / "gpus")) == ["NVIDIA H100 80GB HBM3"] * 2


def test_show_says_what_has_changed_since_the_version_before(two, artifact):
    shown = artifact("show", "grpo:v2")
    assert re.search(r"^CHANGED +NAME +grpo:v1 +grpo:v2$", shown.stdout, re.MULTILINE), shown.stdout + shown.stderr
    assert re.search(r"^input +mine +v1 +v2$", shown.stdout, re.MULTILINE)
    changed = json.loads(artifact("show", "grpo:v2", "--json").stdout)["changed"]
    assert changed["since"] == "grpo:v1"
    assert {"what": "input", "name": "mine", "a": "v1", "b": "v2"} in changed["differences"]
    assert "CHANGED" not in artifact("show", "grpo:v1").stdout
    assert json.loads(artifact("show", "grpo:v1", "--json").stdout)["changed"] is None


def test_the_lineage_page_says_what_has_changed_since_the_version_before(two, artifact, tmp_path):
    assert artifact("graph", "grpo:v2", "-o", "l.html").returncode == 0
    page = (tmp_path / "l.html").read_text()
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    (node,) = [one for one in data["nodes"] if one["id"] == "grpo:v2"]
    assert node["changed"]["since"] == "grpo:v1"
    assert {"what": "input", "name": "mine", "a": "v1", "b": "v2"} in node["changed"]["differences"]
    assert "sk1234567890abcdefghij" not in page
