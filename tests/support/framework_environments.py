"""Makes environments with a whole training framework under `.venvs/`, once a checkout, for all tests.

uv installs them, in a third of pip's time for the gigabytes of a framework. A variable can name a Python to use in
place of an environment: `NEMOTRON_EXEC_TEST_PRETRAIN`, `…_PRETRAIN_06`, `…_AUTOMODEL`, `…_TRAINERS`, `…_AWS`.

`python tests/support/framework_environments.py` makes all.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

from places import ROOT

REQUIREMENTS = ROOT / "requirements"
# The variables of the person who runs the tests. A test's own home has no uv cache and no pyenv.
_ENVIRON = dict(os.environ)

# Name: (the variable, the Python, the file to install with requirements, the file to install without, or None).
ENVIRONMENTS = {
    "pretrain": ("PRETRAIN", "3.11", "pretrain.txt", "frameworks.txt"),
    "pretrain-0.6": ("PRETRAIN_06", "3.12", "pretrain-0.6.txt", "frameworks-0.6.txt"),
    "automodel": ("AUTOMODEL", "3.11", "automodel.txt", "frameworks-automodel.txt"),
    "trainers": ("TRAINERS", "3.11", "trainers.txt", None),
    "aws": ("AWS", "3.11", "aws.txt", None),
}


def python_of(name: str) -> str:
    """The Python of an environment. The environment is made if it is missing."""
    variable, version, requirements, frameworks = ENVIRONMENTS[name]
    named = _ENVIRON.get(f"NEMOTRON_EXEC_TEST_{variable}")
    if named:
        return named
    venv = ROOT / ".venvs" / name
    python = venv / "bin" / "python"
    wanted = "".join((REQUIREMENTS / name).read_text() for name in (requirements, frameworks) if name)
    venv.parent.mkdir(exist_ok=True)
    with (venv.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = venv / ".made"
        if not made.exists() or made.read_text() != wanted:
            shutil.rmtree(venv, ignore_errors=True)
            _uv("venv", "--quiet", "--python", _interpreter(version), str(venv))
            install(python, "--requirement", str(REQUIREMENTS / requirements))
            if frameworks:
                install(python, "--no-deps", "--requirement", str(REQUIREMENTS / frameworks))
            made.write_text(wanted)
    return str(python)


def install(python: Path | str, *arguments: str) -> None:
    """`uv pip install` into an environment."""
    _uv("pip", "install", "--quiet", "--python", str(python), *arguments)


def alone(name: str, requirement: str) -> str:
    """A directory for PYTHONPATH with one package, to use in place of the version in environment `name`."""
    python = python_of(name)
    directory = ROOT / ".venvs" / requirement
    with (ROOT / ".venvs" / f"{requirement}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / ".made").exists():
            shutil.rmtree(directory, ignore_errors=True)
            install(python, "--no-deps", "--target", str(directory), requirement)
            (directory / ".made").touch()
    return str(directory)


def _uv(*arguments: str) -> None:
    # uv reads only UV_FIND_LINKS, not pip's variable, for further places of wheels.
    environ = {"UV_FIND_LINKS": _ENVIRON.get("PIP_FIND_LINKS", ""), **_ENVIRON}
    subprocess.run([sys.executable, "-m", "uv", *arguments], env=environ, check=True)


def _interpreter(version: str) -> str:
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        return sys.executable
    pyenv = _ENVIRON.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    found = sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python3"))
    return found[-1] if found else version


if __name__ == "__main__":  # make all, so that no test waits for an environment
    for each in ENVIRONMENTS:
        print(python_of(each))
