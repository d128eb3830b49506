"""Bounds on the modules, files and instructions of a start: counts, which do not depend on the machine's load.

`make bench` measures times. The bounds here are counts from a good release, with a little room.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory

ROOT = Path(__file__).resolve().parent.parent
ENTRYPOINT = ROOT / "entrypoint"

# Prints the modules that are imported before the command starts, and does not start it.
AT_EXEC = """
import sys
before = set(sys.modules)
import os
def show(*_):
    os.write(1, " ".join(sorted(set(sys.modules) - before)).encode())
    os._exit(0)
os.execvpe = show
sys.path.insert(0, {entrypoint!r})
sys.argv = ["nemotron-exec", *sys.argv[1:]]
from nemotron_exec.cli import main
main()
"""

# Each of these takes 1 to 340 ms of a start, and none is needed before exec.
SLOW = {
    "argparse", "asyncio", "click", "concurrent.futures", "dataclasses", "difflib", "filelock", "fsspec", "hydra",
    "hashlib", "importlib.metadata", "inspect", "logging", "multiprocessing", "omegaconf", "pathlib", "psutil",
    "random", "requests", "rich", "shutil", "socket", "subprocess", "tempfile", "threading", "typing",
    "urllib.request", "uuid", "wandb",
}  # fmt: skip


@pytest.fixture
def environ(tmp_path):
    """Two artifacts in a store of their own."""
    store = tmp_path / "store"
    for name, metadata in (("PretrainBlendsArtifact-bench", {"pack_size": 4096}), ("ModelArtifact-bench", {})):
        version = store / name / "v3"
        version.mkdir(parents=True)
        fields = {"path": str(tmp_path), "type": "model", "iteration": 7, "metadata": metadata}
        manifest = {**fields, "name": name, "version": 3, "created_at": "", "producer": "", "inputs": []}
        (version / "manifest.json").write_text(json.dumps({**manifest, "used_artifacts": []}))
        (version / "metadata.json").write_text(json.dumps(fields))
        (store / name / "latest").write_text("v3")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "NEMO_ARTIFACT_ROOT": str(store),
        "PYTHONHASHSEED": "0",
    }


def _modules_at_exec(environ, *words):
    return set(_at_exec(AT_EXEC, environ, *words).split())


def _at_exec(program, environ, *words):
    # The flags -I -S keep out the tests' environment and its .pth files.
    site_packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    program = program.format(entrypoint=str(ENTRYPOINT))
    program = program.replace("sys.path.insert", f"sys.path += {site_packages!r}\nsys.path.insert")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *words],
        env=environ,
        cwd=environ["HOME"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_with_nothing_to_resolve_loads_six_small_modules(environ, tmp_path):
    (tmp_path / "plain.yaml").write_text("train:\n  lr: 1.0e-4\n")
    loaded = _modules_at_exec(environ, "true", "plain.yaml")
    ours = {"cli", "command_scan", "environment", "errors", "message", "process"}
    assert {name for name in loaded if name.startswith("nemotron_exec.")} == {f"nemotron_exec.{name}" for name in ours}
    others = {name for name in loaded if not name.startswith("nemotron_exec")}
    # `site` loads these modules in every start; under -S the launcher loads them.
    assert others <= {"__future__", "os", "os.path", "posixpath", "stat", "genericpath", "_stat", "_collections_abc"}


def test_the_launcher_that_resolves_loads_nothing_slow(environ):
    loaded = _modules_at_exec(environ, "true", str(ROOT / "benchmarks" / "pretrain.yaml"))
    assert "nemotron_exec.document.splice" in loaded
    assert loaded & SLOW == set()
    # Fifteen of them are packages with only a docstring. Each module takes about 0.3 ms. `make bench` has the bar on
    # time.
    assert len(loaded) <= 182


def test_a_launcher_that_finds_the_answer_loads_nothing_that_reads_configs(environ):
    # 63 of the 64 launchers of a node are such. `make bench` has the bar on time.
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NNODES": "1", "SLURM_NTASKS": "2", "SLURM_NODEID": "0"}
    config = str(ROOT / "benchmarks" / "pretrain.yaml")
    first = _modules_at_exec({**environ, **step, "SLURM_PROCID": "0"}, "true", config)
    assert "nemotron_exec.resolution.lead" in first
    loaded = _modules_at_exec({**environ, **step, "SLURM_PROCID": "1"}, "true", config)
    assert "nemotron_exec.rendezvous.agree" in loaded
    assert loaded & (SLOW - {"random"}) == set()
    assert not any(name.partition(".")[0] == "yaml" or name.startswith("nemotron_exec.document") for name in loaded)


def test_the_launcher_that_resolves_compiles_the_expressions_that_it_asks(environ):
    # Each expression takes 0.05 to 6 ms, and the modules, with PyYAML's, have 100 of them.
    compiled = 'os.write(1, " ".join(map(repr, sys.modules["re"]._cache)).encode())'
    program = AT_EXEC.replace('os.write(1, " ".join(sorted(set(sys.modules) - before)).encode())', compiled)
    said = _at_exec(program, environ, "true", str(ROOT / "benchmarks" / "pretrain.yaml"))
    assert said.count("(<class ") in range(10, 56)


def test_the_finder_holds_on_to_no_large_module():
    # A module that a finder refers to lives until the interpreter ends and clears it, which takes 0.1 ms for os.
    code = (
        "import sys, types; finder = sys.meta_path[0]; assert finder.nemotron_exec; "
        "reached = [*vars(finder).values(), *finder.__globals__.values()]; "
        "print(sorted({v.__name__ for v in reached if isinstance(v, types.ModuleType)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=_job({"PATH": os.environ["PATH"]}), capture_output=True, text=True, check=True
    )
    assert done.stdout == "['sys']\n"


def _job(environ):
    return {**environ, "PYTHONPATH": injector_directory(), "NEMOTRON_EXEC_ACTIVE": __version__}


@pytest.fixture
def bare(tmp_path):
    """A Python without site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return str(tmp_path / "venv" / "bin" / "python")


def _system_calls(python, environ, tmp_path):
    log = tmp_path / "strace"
    for _ in range(2):  # the first run writes the .pyc files
        subprocess.run(["strace", "-f", "-o", log, python, "-c", "pass"], env=environ, check=True)
    lines = log.read_text().splitlines()
    return len(lines), sum("openat(" in line for line in lines)


@pytest.mark.ci
def test_a_start_with_the_injector_makes_few_system_calls_more(bare, environ, tmp_path):
    calls, opened = _system_calls(bare, environ, tmp_path)
    calls_with_ours, opened_with_ours = _system_calls(bare, _job(environ), tmp_path)
    assert calls_with_ours - calls <= 35
    assert opened_with_ours - opened <= 2  # its directory and two .pyc, for the two directories that no import lists


def _instructions(argv, environ, cwd):
    for _ in range(2):
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *argv],
            env=environ,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
        )
    (count,) = re.findall(r"Collected : (\d+)", done.stderr)
    return int(count)


@pytest.mark.ci
@pytest.mark.parametrize("active", [True, False], ids=["a job", "no job"])
def test_a_start_with_the_injector_executes_few_instructions_more(bare, environ, tmp_path, active):
    with_ours = _job(environ)
    if not active:
        del with_ours["NEMOTRON_EXEC_ACTIVE"]
    added = _instructions([bare, "-c", "pass"], with_ours, tmp_path) - _instructions(
        [bare, "-c", "pass"], environ, tmp_path
    )
    # A bare start executes 36 million. An empty directory on PYTHONPATH adds 0.2 million.
    assert added <= (600_000 if active else 250_000)


@pytest.mark.ci
def test_a_command_with_nothing_to_resolve_executes_few_instructions_before_exec(bare, environ, tmp_path):
    environ["PYTHONPATH"] = str(ENTRYPOINT)
    # End the process in place of exec, because valgrind reports its count at the end.
    end = "import os, sys; os.execvpe = lambda *_: os._exit(0); "
    launcher = [bare, "-c", end + "from nemotron_exec.cli import main; main()", "/bin/true"]
    least = [bare, "-c", end + "os.execvpe()", "/bin/true"]
    assert _instructions(launcher, environ, tmp_path) - _instructions(least, environ, tmp_path) <= 12_000_000
