"""Gives every test a home of its own, and lets no test skip on CI."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest_plugins = ["hub_backend.plugin", "wandb_backend.plugin"]

ROOT = Path(__file__).resolve().parent.parent


# A shell ignores SIGINT for programs in the background, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The tests of each of these files share a slow fixture, so one worker runs them all. The mark xdist_group has no
# effect: pytest-xdist 3.8 writes it into a field that pytest 9.2 does not read.
TOGETHER = ("tests/slurm/test_ray.py", "tests/payload/checkpoints/test_exports.py", "tests/test_demo.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadgroup`, with each of those files as a group."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    return ByFile(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """On CI a skip is a failure: CI has every part that the tests need."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where nothing may be: {report.longrepr}"


@pytest.fixture(scope="session")
def _temporary():
    """A TMPDIR for the tests' processes. Its path is short, because sockets lie in it."""
    directory = tempfile.mkdtemp(prefix="nx-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _signals():
    """Restore signal handlers: processes of later tests would inherit an ignored signal."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch, _temporary):
    """No test sees or changes the settings, caches and jobs of the person who runs it, nor those of an earlier run."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", _temporary)
    for name in list(os.environ):
        if name.startswith(
            ("HF_", "NEMOTRON_", "NEMO_", "WANDB_", "SLURM_", "XDG_", "PET_", "TORCHELASTIC_", "SKYPILOT_")
        ):
            monkeypatch.delenv(name)
    for name in ("PYTHONPATH", "RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nemotron_exec(tmp_path):
    """Run the real launcher: `nemotron_exec("python", "x.py", "cfg.yaml", env={...}) -> CompletedProcess`."""

    def run(*words, env=None, cwd=tmp_path, **options):
        options.setdefault("timeout", 120)
        return subprocess.run(
            [sys.executable, "-m", "nemotron_exec", *map(str, words)],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def bare_path(tmp_path):
    """A directory for PATH: `python` without packages, `env` and `sh`. The doctor imports each framework that it finds,
    and PyTorch alone takes seconds.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    for name in ("env", "sh", "cat", "true"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.fixture
def launchers(tmp_path):
    """Start launchers of one job that only agree on an answer: agree_launchers.Launchers."""
    from agree_launchers import Launchers

    started = Launchers(tmp_path)
    yield started
    started.close()
