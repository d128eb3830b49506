"""The sdist and the wheel of `make dist` have the right files, and work in an empty environment of each Python."""

from __future__ import annotations

import glob
import os
import re
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
    """The sdist of a copy of this tree, and the wheel that was built out of it."""
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
    """A Python of this version on this machine, under pyenv or on PATH."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    for python in [*glob.glob(f"{pyenv}/versions/{minor}.*/bin/python3"), shutil.which(f"python{minor}")]:
        if python and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0:
            return python
    return None


# Looked up here, because a test has a home without pyenv.
PYTHONS = {minor: _interpreter(minor) for minor in MINORS}


def test_the_wheel_holds_the_package_and_nothing_else(dist):
    with zipfile.ZipFile(dist[1]) as wheel:
        names = wheel.namelist()
    ours = f"nemotron_exec-{__version__}"
    assert {name.split("/")[0] for name in names} == {"nemotron_exec", f"{ours}.dist-info", f"{ours}.data"}
    scripts = {name.rpartition("/")[2] for name in names if name.startswith(f"{ours}.data/scripts/")}
    assert scripts == {"nemotron-exec", "nemotron-artifact", "nemotron-python"}
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
    # Only bytecode of the wheel's own modules is there (hatch_build.py).
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


def test_the_page_of_an_index_has_addresses_and_links_that_lead_to_the_repository(dist):
    from nemotron_exec import __url__

    with zipfile.ZipFile(dist[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        head, _, page = wheel.read(name).decode().partition("\n\n")
    assert f"Project-URL: Homepage, {__url__}\n" in head
    for label in ("Documentation", "Changelog", "Issues"):
        assert f"Project-URL: {label}, {__url__}/" in head
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    assert f"{__url__}/blob/main/docs/getting-started.md#install" in targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


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


WAYS = {
    "into the user's directory": ([], ".local/bin"),
    "with --target": (["--target", "there"], "there/bin"),
    "with --prefix": (["--prefix", "prefix"], "prefix/bin"),
}


@pytest.mark.parametrize("way", WAYS)
def test_its_programs_find_their_interpreter_however_it_was_installed(dist, way, tmp_path):
    """They never use the job's PYTHONPATH and PYTHONHOME, though no virtual environment names their interpreter."""
    options, programs = WAYS[way]
    python = PYTHONS["3.12"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "a home")}
    (tmp_path / "a home").mkdir()
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-warn-script-location", *options, dist[1]]
    if not options:
        install.insert(4, "--user")
        programs = f"a home/{programs}"
    subprocess.run(install, cwd=tmp_path, env={**os.environ, **environ}, check=True, capture_output=True)
    done = subprocess.run(
        [tmp_path / programs / "nemotron-exec", "env"],
        cwd=tmp_path,
        env={**environ, "PYTHONHOME": "/nonexistent", "PYTHONPATH": "/job"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PYTHONHOME=/nonexistent\n" in done.stdout
    assert "sitecustomize:/job\n" in done.stdout
    assert f"NEMOTRON_EXEC_PYTHON={os.path.realpath(python)}" in done.stdout.replace(
        "/bin/python3\n", "/bin/python3.12\n"
    )


@pytest.mark.ci
def test_getting_started_works_in_a_fresh_environment_with_another_python_for_the_job(dist, tmp_path):
    """Runs the page's commands, also its installation. The launcher's own Python is not on the job's PATH."""
    page = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh([^\n]*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    install = next(text for info, text in blocks if "venv" in text)
    scripts = [text for info, text in blocks if "needs" not in info]
    job = next(
        Path(python) for minor, python in PYTHONS.items() if python and minor != "{}.{}".format(*sys.version_info)
    )
    (tmp_path / "job").mkdir()
    (tmp_path / "job/python3").symlink_to(job)
    environ = {"HOME": str(tmp_path), "LANG": "C.UTF-8", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "SSL_CERT_FILE"):
        environ.update({name: os.environ[name]} if name in os.environ else {})
    assert "'.[wandb]'" in install
    installed = install.replace("'.[wandb]'", f"'{dist[1]}'")

    def shell(script, path):
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={**environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shell(installed, environ["PATH"])
    path = f"{tmp_path}/.local/bin:{tmp_path}/job:/usr/bin:/bin"
    shown = shell("".join(scripts), path)
    assert f"path: {tmp_path}/blend/blend.json" in shown
    assert "seq_length: 4096" in shown
    assert "the job would work" in shown
    version = shell("nemotron-exec python3 -c 'import sys; print(sys.version_info[:2])'", path)
    assert version == shell(f"{job} -c 'import sys; print(sys.version_info[:2])'", path)
