"""The launcher and its W&B child ignore the settings of the job's Python. The job gets them unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec.environment import injector_directory

PROGRAM = Path(sys.executable).parent / "nemotron-exec"
# Each import from PYTHONPATH is logged, with the command line of the importing process.
WITNESS = """
import os, sys
with open({log!r}, "a") as log:
    log.write("%s %s\\n" % ({name!r}, open("/proc/self/cmdline", "rb").read().split(b"\\0")))
{more}
"""


@pytest.fixture
def foreign(tmp_path):
    """A directory for PYTHONPATH, as for another Python: it breaks all imports of the launcher."""
    directory = tmp_path / "foreign"
    directory.mkdir()
    log = tmp_path / "log"
    for name in ("yaml", "click", "rich", "filelock", "fsspec", "omegaconf", "psutil", "wandb", "requests"):
        text = WITNESS.format(log=str(log), name=name, more="raise ImportError('for another Python')")
        (directory / f"{name}.py").write_text(text)
    (directory / "sitecustomize.py").write_text(WITNESS.format(log=str(log), name="sitecustomize", more=""))
    return directory


def _imported(tmp_path):
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def _start(tmp_path, *words, how=(str(PROGRAM),), **environ):
    return subprocess.run(
        [*how, *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "NEMO_ARTIFACT_ROOT": str(tmp_path / "store"), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def config(tmp_path):
    (tmp_path / "data").mkdir()
    added = _start(tmp_path, "add", "blend", "data", how=(str(PROGRAM.with_name("nemotron-artifact")),))
    assert added.returncode == 0, added.stderr
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")


@pytest.mark.parametrize("how", [(str(PROGRAM),), (sys.executable, "-m", "nemotron_exec")], ids=["script", "-m"])
def test_nothing_of_pythonpath_is_imported_by_the_launcher_and_the_job_gets_it(tmp_path, config, foreign, how):
    done = _start(tmp_path, sys.executable, "-c", "print(open('cfg.yaml'))", "cfg.yaml", how=how)
    assert done.returncode == 0, done.stderr
    job = "import json, os, sys; print(json.dumps([os.environ['PYTHONPATH'], open(sys.argv[1]).read()]))"
    done = _start(tmp_path, sys.executable, "-c", job, "cfg.yaml", how=how, PYTHONPATH=str(foreign))
    assert done.returncode == 0, done.stderr
    path, text = json.loads(done.stdout)
    assert path == os.pathsep.join([injector_directory(), str(foreign)])
    assert f"path: {tmp_path}/data" in text
    # Only the job's process may import from it, and with -m the first process, which then starts again.
    launcher = [line for line in _imported(tmp_path) if job not in line and "-m" not in how]
    assert launcher == []


@pytest.mark.parametrize("name", ["PYTHONHOME", "PYTHONEXECUTABLE"])
def test_a_variable_of_the_jobs_python_is_the_jobs_alone(tmp_path, config, name):
    done = _start(tmp_path, "sh", "-c", f'echo "${name}"; grep path "$0"', "cfg.yaml", **{name: "/nonexistent"})
    assert (done.returncode, done.stdout) == (0, f"/nonexistent\npath: {tmp_path}/data\n"), done.stderr


def test_the_child_that_talks_to_wandb_imports_its_own_client(tmp_path, foreign, wandb_backend, wandb_environ):
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"})
    (tmp_path / "cfg.yaml").write_text(
        "run: {data: 'data:latest', wandb: {project: nemotron}}\npath: ${art:data,path}\n"
    )
    job = {"PYTHONPATH": str(foreign), "PYTHONEXECUTABLE": "/nonexistent"}
    done = _start(tmp_path, "cat", "cfg.yaml", **wandb_environ, **job)
    assert done.returncode == 0, done.stderr
    assert "path: /" in done.stdout
    assert _imported(tmp_path) == []


def test_the_script_is_found_through_links_and_from_other_directories(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nemotron-exec").symlink_to(PROGRAM)
    (tmp_path / "second").symlink_to("bin/nemotron-exec")
    for how in ("bin/nemotron-exec", "./bin/nemotron-exec", str(tmp_path / "bin/nemotron-exec"), "./second"):
        done = _start(tmp_path, "--version", how=(how,))
        assert done.stdout.startswith("nemotron-exec "), (how, done.stderr)
    done = _start(tmp_path, "--version", how=("nemotron-exec",), PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.stdout.startswith("nemotron-exec ")
