"""`run.outputs`: a directory becomes an artifact when the command has ended with exit code 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read

WRITE = """
import atexit, os, sys
os.makedirs("out/model", exist_ok=True)
open("out/model/config.json", "w").write("{}")
atexit.register(lambda: open("out/model/late.txt", "w").write("at the exit"))
"""


@pytest.fixture
def job(nemotron_exec, tmp_path):
    """Run a script with `outputs` in its config: `job(TEXT, outputs=…, command=[…]) -> CompletedProcess`."""

    def run(text, *, outputs="{my-model: out/model}", command=(sys.executable,), options=(), env=None):
        (tmp_path / "train.py").write_text(text)
        (tmp_path / "cfg.yaml").write_text(f"run:\n  outputs: {outputs}\nsize: 3\n")
        environ = {"NEMOTRON_EXEC_STORE": str(run.store), **(env or {})}
        return nemotron_exec(*options, *command, "train.py", "cfg.yaml", env=environ)

    run.store = tmp_path / "store"
    return run


def versions(store, name="my-model"):
    return listing.versions(str(store), name) if store.exists() else []


def left(store):
    return sorted(path.name for path in (store / outbox.DIRECTORY).glob("*"))


@pytest.mark.parametrize("end", ["", "sys.exit()", "raise SystemExit(0)"], ids=["ends", "sys.exit", "SystemExit"])
def test_what_stands_there_when_the_script_ends_well_is_a_version(job, tmp_path, end):
    done = job(WRITE + end)
    assert done.returncode == 0
    assert f"nemotron-exec: my-model:v1 is the output {tmp_path}/out/model\n" in done.stderr
    found = read.read_version(str(job.store), "my-model", 1).manifest
    assert found["path"] == str(tmp_path / "out/model")
    assert found["metadata"]["format"] == "hf"
    inventory = json.dumps([path.read_text() for path in (job.store / "my-model/v1").iterdir()])
    assert "late.txt" in inventory  # the script's own exit hooks have run
    assert left(job.store) == []
    assert {path.name for path in (tmp_path / "out/model").iterdir()} == {"config.json", "late.txt"}


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(3)",
        "raise SystemExit(3)",
        "raise SystemExit('no')",
        "1 / 0",
        "os._exit(0)",
        "os.kill(os.getpid(), 15)",
    ],
)
def test_a_command_that_fails_or_dies_registers_nothing(job, nemotron_exec, end):
    done = job(WRITE + end)
    assert "is the output" not in done.stderr
    assert versions(job.store) == []
    assert left(job.store) == []
    again = nemotron_exec("true", "cfg.yaml", env={"NEMOTRON_EXEC_STORE": str(job.store)})
    assert (again.returncode, versions(job.store)) == (0, [])


def test_a_second_run_is_a_second_version_and_the_first_one_has_lost_its_data(job, tmp_path):
    job(WRITE)
    job(WRITE)
    assert versions(job.store) == [1, 2]
    assert (job.store / "my-model/v1/pruned").exists()


def test_what_the_end_could_not_register_the_next_start_does(job, nemotron_exec, tmp_path):
    # Start no child that registers, as if the container ended with its first process.
    done = job(WRITE + "del os.environ['NEMOTRON_EXEC_PYTHON']\n")
    assert done.returncode == 0
    assert versions(job.store) == []
    assert len(left(job.store)) == 2
    (tmp_path / "next.yaml").write_text("run: {model: 'my-model:latest'}\nload: ${art:model,path}\n")
    printed = nemotron_exec("cat", "next.yaml", env={"NEMOTRON_EXEC_STORE": str(job.store)})
    assert f"load: {tmp_path}/out/model\n" in printed.stdout, printed.stderr
    assert left(job.store) == []


def test_a_flush_does_it_as_well(job, nemotron_exec, tmp_path):
    job(WRITE + "del os.environ['NEMOTRON_EXEC_PYTHON']\n")
    done = subprocess.run(
        [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", "--store", str(job.store)],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert versions(job.store) == [1]


def test_an_output_that_is_not_there_is_one_warning(job):
    done = job("pass\n")
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert "is empty or missing at the end" in line
    assert "my-model gets no version" in line


def test_what_the_script_has_recorded_itself_is_not_registered_twice(job):
    recorded = "from nemotron_exec import record_checkpoint\nrecord_checkpoint('out/model', name='my-model')\n"
    job(WRITE + recorded)
    assert versions(job.store) == [1]


def test_the_directory_is_relative_to_the_jobs_working_directory(job, tmp_path):
    done = job(WRITE, outputs="{a/b: ./out/../out/model}")
    assert f"a/b:v1 is the output {tmp_path}/out/model\n" in done.stderr


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ("out/model", "not a mapping"),
        ("[out/model]", "not a mapping"),
        ("{../up: out}", "no artifact name"),
        ("{my-model: }", "the directory of my-model is None"),
        ("{my-model: [out]}", "the directory of my-model is ['out']"),
        ("{my-model: 's3://bucket/out'}", "not a local directory"),
        ("{a: out, b: ./out}", "a and b are one directory"),
    ],
)
def test_bad_outputs_are_one_error_before_the_start(job, tmp_path, outputs, said):
    done = job("open('started', 'w')\n", outputs=outputs)
    assert done.returncode == 125, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("nemotron-exec:")]
    assert said in line
    assert not (tmp_path / "started").exists()


def test_a_command_that_is_no_python_is_warned_about_and_one_that_becomes_one_registers(job, tmp_path):
    for end, found in (("; true", []), ("", [1])):
        shell = ["bash", "-c", f'{"" if end else "exec "}{sys.executable} "$@"{end}', "bash"]
        done = job(WRITE, command=shell)
        assert "warning: run.outputs: bash is no Python" in done.stderr
        assert versions(job.store) == found
    assert job(WRITE, command=shell, options=["--strict"]).returncode == 125


def test_an_output_may_be_called_hf(job):
    done = job(WRITE, outputs="{hf: out/model}")
    assert "hf:v1 is the output" in done.stderr


TORCHRUN = """
import os, sys
if os.environ["RANK"] == "0":
    os.makedirs("out/model")
    open("out/model/weights.pt", "w").write("weights")
sys.exit(int(os.environ.get("FAIL", "0")) if os.environ["RANK"] == "1" else 0)
"""


@pytest.mark.ci
@pytest.mark.parametrize("fail", ["0", "1"])
def test_torchrun_registers_once_for_all_workers_and_only_if_all_ended_well(job, fail):
    pytest.importorskip("torch")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = job(TORCHRUN, command=torchrun, env={"FAIL": fail})
    assert done.returncode == int(fail)
    assert versions(job.store) == ([] if fail == "1" else [1])
    assert done.stderr.count("is the output") == (0 if fail == "1" else 1)
