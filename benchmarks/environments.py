"""Makes the environments to compare under `.venvs/`, each installed from wheels, as a person would install it.

No environment has pip or setuptools: setuptools has a .pth file that costs every interpreter 0.3 ms.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

__all__ = ["ROOT", "bare", "bin_of", "clean_environ", "job_environ", "launcher", "peer", "site_packages_of"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENVS = os.path.join(ROOT, ".venvs")

# Versions are pinned, because a figure belongs to a version. Without instrumentors, OpenTelemetry's figure is a lower
# bound.
PEERS = {
    "opentelemetry": ["opentelemetry-distro==0.66b2", "opentelemetry-instrumentation==0.66b2", "setuptools==80.9.0"],
    "ddtrace": ["ddtrace==4.16.0"],
    "newrelic": ["newrelic==14.1.0"],
    "autowrapt": ["autowrapt==2.0.0", "wrapt==2.5.2"],
    "kit": ["omegaconf==2.4.0", "wandb==0.31.0", "typer==0.29.2", "fsspec==2026.9.0", "pydantic_settings==2.16.3"],
    "transformers": ["transformers==5.24.0", "PyYAML==6.0.3"],
}


def bare(python: str = "") -> str:
    """An environment without packages."""
    name = "bench-bare" + (f"-{os.path.basename(os.path.dirname(os.path.dirname(python)))}" if python else "")
    return _environment(name, [], python)


def peer(name: str) -> str:
    """The environment of a peer."""
    return _environment(f"bench-{name}", PEERS[name])


def launcher(*, compile_on_install: bool = True) -> str:
    """nemotron-exec from its wheel, and the console scripts that it is compared with.

    Args:
        compile_on_install: False installs as `pip install --no-compile` does under PYTHONDONTWRITEBYTECODE=1: then only
            the wheel's own .pyc files exist.
    """
    name = "bench-launcher" if compile_on_install else "bench-launcher-as-shipped"
    wheels = [_wheel(ROOT), _wheel(os.path.join(ROOT, "benchmarks", "baseline"))]
    path = _environment(name, ["omegaconf>=2.4,<2.5"])
    options = [] if compile_on_install else ["--no-compile"]
    _pip(path, *options, *wheels)
    _pip(path, *options, "--force-reinstall", "--no-deps", *wheels)
    return path


def bin_of(environment: str, program: str) -> str:
    """Path of a program of the environment."""
    return os.path.join(environment, "bin", program)


def site_packages_of(environment: str) -> str:
    """Path of the environment's site-packages."""
    (found,) = glob.glob(os.path.join(environment, "lib", "python*", "site-packages"))
    return found


def clean_environ(environment: str, home: str) -> dict[str, str]:
    """The variables of a process in the environment, without those of the person who runs the benchmark."""
    return {"PATH": f"{environment}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": home, "LANG": "C.UTF-8"}


def job_environ(command: list[str], environ: dict[str, str]) -> dict[str, str]:
    """The variables that a launcher gives to its command, as `LAUNCHER env -0` prints them."""
    printed = subprocess.run([*command, "env", "-0"], env=environ, stdout=subprocess.PIPE, check=True).stdout
    return dict(entry.split("=", 1) for entry in printed.decode().split("\0") if "=" in entry)


def _environment(name: str, requirements: list[str], python: str = "") -> str:
    path = os.path.join(VENVS, name)
    stamp = os.path.join(path, "requirements.txt")
    wanted = "\n".join([*requirements, ""])
    if not _same(stamp, wanted):
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([python or _base_python(), "-m", "venv", "--without-pip", path], check=True)
        if requirements:
            _pip(path, *requirements)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    return path


def _pip(path: str, *words: str) -> None:
    subprocess.run(
        [_installer(), "-m", "pip", "--python", bin_of(path, "python"), "install", "--quiet", *words],
        check=True,
        stdout=sys.stderr,
    )


def _installer() -> str:
    # pip is pinned, because it writes the console scripts. Scripts of old releases import re, which costs 5 ms and
    # would hide the launcher's own imports.
    path = os.path.join(VENVS, "bench-pip")
    python = bin_of(path, "python")
    if not os.path.exists(os.path.join(path, "made")):
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([_base_python(), "-m", "venv", path], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pip==26.0"], check=True, stdout=sys.stderr)
        open(os.path.join(path, "made"), "w").close()
    return python


def _base_python() -> str:
    return os.path.realpath(os.path.join(sys.base_prefix, "bin", "python3"))


def _wheel(project: str) -> str:
    out = os.path.join(ROOT, "build", "bench-" + os.path.basename(project))
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(
        [_installer(), "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, project],
        check=True,
        stdout=sys.stderr,
    )
    (wheel,) = glob.glob(os.path.join(out, "*.whl"))
    return wheel


def _same(path: str, text: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read() == text
    except OSError:
        return False
