"""`from nemotron_exec import record_checkpoint`, in the scripts of real jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemotron_exec.sitecustomize.payload.manifest import listing, read

PLAIN = """
import os, sys
from nemotron_exec import record_checkpoint

for step in (10, 20):
    path = os.path.join("out", "run", "step_%d" % step)
    os.makedirs(path)
    open(os.path.join(path, "model.pt"), "w").close()
    print(record_checkpoint(path, metrics={"loss": 1.0 / step}))
"""


@pytest.fixture
def job(nemotron_exec, tmp_path):
    """Run a script as a job: `job(TEXT, python=…, env={…}) -> CompletedProcess`; its store is `job.store`."""

    def run(text, *words, python=sys.executable, env=None, options=()):
        (tmp_path / "train.py").write_text(text)
        environ = {"NEMOTRON_EXEC_STORE": str(run.store), **(env or {})}
        return nemotron_exec(*options, python, "train.py", *words, env=environ)

    run.store = tmp_path / "store"
    return run


def manifest(job, name, number=1):
    return read.read_version(str(job.store), name, number, skip_gone=False).manifest


def test_each_checkpoint_is_a_version_that_the_next_job_finds(job, nemotron_exec, tmp_path):
    done = job(PLAIN)
    assert done.stdout.split() == ["run:v1", "run:v2"]
    assert f"nemotron-exec: run:v2 is the checkpoint {tmp_path}/out/run/step_20\n" in done.stderr
    found = manifest(job, "run", 2)
    assert found["path"] == str(tmp_path / "out/run/step_20")
    assert found["aliases"] == ["step_20"]
    assert found["metadata"]["iteration"] == 20
    assert found["metadata"]["metrics.loss"] == 0.05
    (tmp_path / "cfg.yaml").write_text(
        "run: {model: 'run:latest'}\nload: ${art:model,path}\nat: ${art:model,iteration}\n"
    )
    printed = nemotron_exec("cat", "cfg.yaml", env={"NEMOTRON_EXEC_STORE": str(job.store)}).stdout
    assert f"load: {tmp_path}/out/run/step_20\nat: 20\n" in printed


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("record_checkpoint('out/model', iteration=5)", "model"),
        ("record_checkpoint('out/model.pt')", "model"),
        ("record_checkpoint('out/exp/checkpoint-500')", "exp"),
        ("record_checkpoint('out/exp/epoch=1-step=200.ckpt')", "exp"),
        ("record_checkpoint('out/model', name='team/best')", "team/best"),
    ],
)
def test_the_name_is_the_calls_else_the_checkpoints_own_else_that_of_the_directory_of_numbered_ones(
    job, tmp_path, call, name
):
    for directory in ("out/model", "out/exp/checkpoint-500"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("out/model.pt", "out/exp/epoch=1-step=200.ckpt"):
        (tmp_path / file).write_text("weights")
    done = job(f"from nemotron_exec import record_checkpoint\nprint({call})\n")
    assert done.stdout == f"{name}:v1\n", done.stderr


def test_run_publish_names_it(job, tmp_path):
    (tmp_path / "out/model").mkdir(parents=True)
    (tmp_path / "cfg.yaml").write_text("run: {publish: my-model}\n")
    text = "from nemotron_exec import record_checkpoint\nprint(record_checkpoint('out/model'))\n"
    assert job(text, "cfg.yaml").stdout == "my-model:v1\n"


def test_one_path_and_iteration_is_recorded_once_and_a_later_iteration_again(job, tmp_path):
    (tmp_path / "last").mkdir()
    done = job(
        "from nemotron_exec import record_checkpoint as record\n"
        "print([record('last', iteration=number) for number in (1, 1, 2)])\n"
    )
    assert done.stdout == "['last:v1', None, 'last:v2']\n", done.stderr
    # Both saves have the same directory, so only the newest version still has its data.
    assert (job.store / "last/v1/pruned").exists()


def test_what_the_framework_deletes_after_its_last_checkpoint_is_marked_when_the_process_ends(job, tmp_path):
    # Megatron-Bridge deletes after its last save, and no later record would lead to a look.
    for number in (1, 2):
        (tmp_path / f"out/checkpoint-{number}").mkdir(parents=True)
    done = job(
        "import shutil, sys\n"
        "from nemotron_exec import record_checkpoint\n"
        "print([record_checkpoint(f'out/checkpoint-{number}') for number in (1, 2)])\n"
        "commit = next(module for name, module in sys.modules.items() if name.endswith('.checkpoints.commit'))\n"
        "assert commit.committer().settle(60)\n"
        "shutil.rmtree('out/checkpoint-1')\n"
    )
    assert done.stdout == "['out:v1', 'out:v2']\n", done.stderr
    assert [(job.store / f"out/v{number}/pruned").exists() for number in (1, 2)] == [True, False]


def test_rank_0_records_and_the_others_do_nothing(job, tmp_path):
    (tmp_path / "last").mkdir()
    text = "from nemotron_exec import record_checkpoint\nprint(record_checkpoint('last', iteration=1))\n"
    assert job(text, env={"RANK": "1", "WORLD_SIZE": "2"}).stdout == "None\n"
    assert not job.store.exists() or listing.names(str(job.store)) == []
    assert job(text, env={"RANK": "0", "WORLD_SIZE": "2"}).stdout == "last:v1\n"


@pytest.mark.parametrize(
    ("path", "said", "raised"),
    [
        ("nowhere", "there is nothing of that name", "FileNotFoundError"),
        ("", "the path is empty", "ValueError"),  # Lightning's last_model_path before the first save
    ],
)
def test_a_path_that_does_not_exist_is_one_warning_and_training_goes_on(job, path, said, raised):
    done = job(f"from nemotron_exec import record_checkpoint\nprint(record_checkpoint({path!r}, iteration=3))\n")
    assert (done.returncode, done.stdout) == (0, "None\n")
    (line,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert f"checkpoint {path} is not recorded" in line
    assert said in line
    strict = job(f"from nemotron_exec import record_checkpoint\nrecord_checkpoint({path!r})\n", options=["--strict"])
    assert strict.returncode == 1
    assert raised in strict.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("name='../up'", "to name an artifact"), ("metrics={'loss': 'low'}", "give a number"), ("iteration='x'", "'x'")],
)
def test_an_argument_that_cannot_be_recorded_is_one_warning(job, tmp_path, arguments, said):
    (tmp_path / "last").mkdir()
    done = job(f"from nemotron_exec import record_checkpoint\nprint(record_checkpoint('last', {arguments}))\n")
    assert (done.returncode, done.stdout) == (0, "None\n")
    (line,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert said in line


def test_outside_a_job_it_does_nothing(tmp_path):
    (tmp_path / "last").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "from nemotron_exec import record_checkpoint as r; print(r('last'), r('nowhere'))"],
        env={**os.environ, "NEMOTRON_EXEC_STORE": str(tmp_path / "store")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("None None\n", "")
    assert not (tmp_path / "store").exists()


def test_a_job_without_the_package_has_the_function_too(job, tmp_path):
    (tmp_path / "last").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    text = "import sys\nfrom nemotron_exec import record_checkpoint\nprint(record_checkpoint('last', iteration=1))\n"
    done = job(text, python=tmp_path / "venv/bin/python")
    assert done.stdout == "last:v1\n", done.stderr
    entry = json.loads((job.store / "last/v1/manifest.json").read_text())
    assert entry["metadata"]["framework"] == "script"
