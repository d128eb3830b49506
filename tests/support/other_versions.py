"""Repeats some tests in an environment that has another version of one package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from places import ROOT


def environment(name: str, *install: str) -> Path:
    """The interpreter of an environment in build/, made once.

    For all other packages, also pytest and nemotron-exec, it uses those of this environment.

    Args:
        name: Name of its directory.
        install: Arguments of `pip install`.
    """
    home = ROOT / "build" / name
    python = home / "bin" / "python"
    ready = home / f"ready-{sys.version_info.minor}"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=300)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *install], check=True, timeout=600)
        fall_back(home)
        ready.touch()
    return python


def fall_back(home: Path) -> None:
    """Make an environment use this environment's packages after its own."""
    (here,) = home.glob("lib/python*/site-packages")
    (here / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")


def version_of(python: Path | str, package: str) -> str:
    """The version of a package in that environment. Checks that nemotron-exec can be imported there, too."""
    shown = subprocess.run(
        [python, "-W", "ignore", "-c", f"import {package}, nemotron_exec; print({package}.__version__)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return shown.stdout.strip()


def passed_again(python: Path | str, mark: str, *words: str, basetemp: Path, timeout: float) -> int:
    """Run tests there; returns the number that passed. None may fail.

    Args:
        python: The interpreter.
        mark: `-m` of pytest.
        words: Further words for pytest, paths among them.
        basetemp: The place for temporary directories.
        timeout: Bound on the whole, seconds.
    """
    done = subprocess.run(
        [
            *(python, "-m", "pytest", "-m", mark, "-n", "2", "-q", "-p", "no:cacheprovider"),
            f"--basetemp={basetemp}",
            *words,
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-2000:]}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-2000:]
    return int(passed.group(1))
