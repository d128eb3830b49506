"""What `make dist` builds: it holds what belongs there, and works in an empty environment of each Python."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nemotron_exec import __version__

ROOT = Path(__file__).resolve().parent.parent
MINORS = ("3.10", "3.11", "3.12", "3.13")

pytestmark = [pytest.mark.ci, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The sdist, and the wheel that was built out of it, of a copy of this tree."""
    tree = tmp_path_factory.mktemp("tree") / "nemotron-exec"
    left_out = shutil.ignore_patterns(".git", ".venv*", "build", "dist", "site", "__pycache__", ".*_cache", ".demo")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=left_out)
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, tree], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def _interpreter(minor):
    """A Python of this version that is at hand, under pyenv or on PATH."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    for python in [*glob.glob(f"{pyenv}/versions/{minor}.*/bin/python3"), shutil.which(f"python{minor}")]:
        if python and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0:
            return python
    return None


# Found before a test has a home of its own, in which there is no pyenv.
PYTHONS = {minor: _interpreter(minor) for minor in MINORS}


def test_the_wheel_holds_the_package_and_nothing_else(dist):
    with zipfile.ZipFile(dist[1]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"nemotron_exec", f"nemotron_exec-{__version__}.dist-info"}
    assert "nemotron_exec/py.typed" in names
    tracked = subprocess.run(
        ["git", "ls-files", "entrypoint/nemotron_exec", "sitecustomize"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    expected = {
        name.removeprefix("entrypoint/") if name.startswith("entrypoint/") else f"nemotron_exec/{name}"
        for name in tracked
        if name != "entrypoint/nemotron_exec/sitecustomize"
    }
    package = {name for name in names if name.startswith("nemotron_exec/")}
    assert {name for name in package if not name.endswith(".pyc")} == expected
    # Bytecode of modules that are in it (hatch_build.py), and of nothing else.
    for name in package - expected:
        directory, _, cached = name.partition("__pycache__/")
        assert f"{directory}{cached.split('.')[0]}.py" in expected, name


def test_the_sdist_holds_its_licence_and_no_tests(dist):
    with tarfile.open(dist[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "hatch_build.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".venv"))]


def test_the_version_is_said_in_one_place(dist):
    assert dist[1].name.startswith(f"nemotron_exec-{__version__}-")
    assert "version =" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional")[0]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_ci_has_every_python():
    missing = [minor for minor, python in PYTHONS.items() if python is None]
    assert os.environ.get("CI") != "true" or missing == [], "install these for CI"


@pytest.mark.parametrize("minor", [minor for minor, python in PYTHONS.items() if python is not None])
def test_the_wheel_works_in_an_empty_environment(dist, minor, tmp_path):
    python = PYTHONS[minor]

    def run(*words):
        done = subprocess.run(
            list(map(str, words)),
            cwd=tmp_path,
            env={**os.environ, "NEMOTRON_EXEC_STORE": str(tmp_path / "store")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(python, "-m", "venv", "environment")
    programs = tmp_path / "environment/bin"
    run(programs / "pip", "install", "--quiet", dist[1])
    assert run(programs / "nemotron-exec", "--version") == f"nemotron-exec {__version__}\n"
    (tmp_path / "data").mkdir()
    run(programs / "nemotron-artifact", "add", "blend", "data", "--meta", "size=3")
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:latest'}\nsize: ${art:data,size}\npath: ${art:data}\n")
    look = "import sys; print(open(sys.argv[1]).read(), sys.modules['sitecustomize'].__file__)"
    printed = run(programs / "nemotron-exec", python, "-c", look, "cfg.yaml")
    assert "size: 3" in printed
    assert f"path: {tmp_path / 'data'}" in printed
    assert str(programs.parent) in printed, "the injector is the wheel's own"
    assert "blend" in run(programs / "nemotron-artifact", "ls")
