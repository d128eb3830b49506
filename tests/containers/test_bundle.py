"""`make bundle` makes a directory that works when it is mounted into unchanged containers."""

from __future__ import annotations

import glob
import json
import os
import subprocess

import pytest

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

# Read here, because a test has a home without pyenv.
PYENV = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")

INJECTED = (
    "import os, sys; print(bool(os.environ.get('NEMOTRON_EXEC_ACTIVE')), any('sitecustomize' in p for p in sys.path))"
)


def mounted(bundle: str, where: str = "/mnt/any where/tool") -> tuple[str, ...]:
    """Options that mount the bundle read-only and make it the entrypoint."""
    return ("-v", f"{bundle}:{where}:ro", "--entrypoint", f"{where}/bin/nemotron-exec")


def test_mounted_anywhere_it_runs_under_the_containers_python(engine, base, bundle):
    done = engine.run(base("debian-python"), "python3", "-c", INJECTED, options=mounted(bundle))
    assert (done.stdout, done.returncode) == ("True True\n", 0), done.stderr


def test_it_runs_as_any_user_without_a_home_on_a_read_only_root(engine, base, bundle):
    options = (*mounted(bundle), "--user", "4711", "--env", "HOME=/nonexistent", "--read-only",
               "--read-only-tmpfs=false")  # fmt: skip
    done = engine.run(base("debian-python"), "python3", "-c", INJECTED, options=options)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_its_tini_is_pid_1_where_the_engine_has_none(engine, base, bundle):
    options = ("-v", f"{bundle}:/tool:ro", "--entrypoint", "/tool/bin/tini")
    words = ("-g", "--", "/tool/bin/nemotron-exec", "cat", "/proc/1/comm")
    assert engine.run(base("debian-python"), *words, options=options).stdout == "tini\n"


def test_the_launchers_own_python_finds_the_launchers_packages(engine, base, bundle):
    code = "import sys, wandb, yaml.cyaml, pydantic_core, omegaconf, nemotron_exec; print(sys.executable)"
    options = ("-v", f"{bundle}:/tool:ro", "--entrypoint", "/tool/bin/python")
    done = engine.run(base("debian-python"), "-c", code, options=options)
    assert done.stdout == "/tool/bin/python\n", done.stderr


def test_the_job_finds_none_of_the_launchers_packages(engine, base, bundle):
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('wandb', 'yaml', 'click', 'filelock')])"
    done = engine.run(base("debian-python"), "python3", "-c", code, options=mounted(bundle))
    assert done.stdout == "[None, None, None, None]\n"


@pytest.mark.parametrize("name", ["debian", "debian-old"])
def test_without_a_python_it_says_so_in_one_line(engine, base, bundle, name):
    done = engine.run(base(name), "echo", "hi", options=mounted(bundle))
    assert done.returncode == 125
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "Python 3.10" in line
    assert "PYTHON_FROM" in line


def test_a_link_on_path_leads_into_the_bundle(bundle, tmp_path):
    link = tmp_path / "bin" / "nemotron-exec"
    link.parent.mkdir()
    link.symlink_to(os.path.join(bundle, "bin", "nemotron-exec"))
    relative = tmp_path / "relative"
    relative.symlink_to("bin/nemotron-exec")
    for path in (link, relative):
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        assert done.stdout.strip(), done.stderr


def test_every_python_of_this_machine_runs_it(bundle):
    found = interpreters()
    assert found
    code = "import sys, yaml.cyaml, psutil, pydantic_core, wandb; print('%d.%d' % sys.version_info[:2])"
    for version, path in found.items():
        environment = {**os.environ, "NEMOTRON_EXEC_BUNDLE_PYTHON": path}
        command = [os.path.join(bundle, "bin", "python"), "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == version, done.stderr


def interpreters() -> dict[str, str]:
    """The Pythons of this machine that the launcher supports, on PATH or pyenv's."""
    found = {}
    roots = os.environ.get("PATH", "").split(":") + sorted(glob.glob(os.path.join(PYENV, "versions", "*", "bin")))
    for version in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        for folder in roots:
            path = os.path.join(folder, "python" + version)
            if os.access(path, os.X_OK):
                done = subprocess.run([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                                      capture_output=True, text=True)  # fmt: skip
                if done.stdout.strip() == version:
                    found[version] = path
                    break
    return found


def test_the_other_architecture_is_assembled_and_its_programs_are_for_it(make_bundle, cache, arch):
    other = "aarch64" if arch == "x86_64" else "x86_64"
    directory = make_bundle(other, TINI=os.path.join(cache, "tini-" + other))
    with open(os.path.join(directory, "bundle.json")) as file:
        made_of = json.load(file)
    assert made_of["arch"] == other
    assert made_of["programs"] > 20  # bundle.py checks the header of each, and stops at a wrong one
    header = open(os.path.join(directory, "bin", "tini"), "rb").read(20)  # noqa: SIM115
    assert int.from_bytes(header[18:20], "little") == {"aarch64": 183, "x86_64": 62}[other]  # e_machine of elf(5)
