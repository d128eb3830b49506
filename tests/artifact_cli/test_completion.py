"""Completion in fish, which prints its offers, and in zsh, by typed keys. test_artifact_cli.py has bash."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from nemotron_exec.artifact_cli.completion import script
from nemotron_exec.artifact_cli.main import cli

pytestmark = pytest.mark.ci


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "train.py").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    torchrun = programs / "torchrun-here"
    torchrun.write_text("#!/bin/sh\n")
    torchrun.chmod(0o755)
    path = os.pathsep.join([os.path.dirname(sys.executable), str(programs), os.environ["PATH"]])
    store = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store")}
    add = ["nemotron-artifact", "add", "team/blend", "train.py"]
    subprocess.run(add, cwd=tmp_path, env={**os.environ, "PATH": path, **store}, check=True, capture_output=True)
    return {**os.environ, "PATH": path, "TERM": "dumb", **store}


#    what was typed: what it becomes
TABLE = {
    "nemotron-artifact sho": "show",
    "nemotron-artifact show te": "team/blend",
    "nemotron-exec --dry": "--dry-run",
    "nemotron-exec --backend man": "manifest",
    "nemotron-exec --timeout 5 --ref": "--refresh",
    "nemotron-exec --store trai": "train.py",
    "nemotron-exec --dry-run torchrun-h": "torchrun-here",
    "nemotron-exec -- torchrun-h": "torchrun-here",
    "nemotron-exec cat trai": "train.py",
}


@pytest.mark.parametrize("typed", TABLE)
def test_fish_offers_options_then_what_the_command_takes(environ, tmp_path, typed):
    (tmp_path / "completion.fish").write_text(script("fish", cli))
    ask = ["fish", "--no-config", "-c", 'source completion.fish; complete --do-complete="$argv[1]"', typed]
    done = subprocess.run(ask, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [TABLE[typed]]


def test_zsh_completes_options_then_what_the_command_takes(environ, tmp_path):
    (tmp_path / "completion.zsh").write_text(script("zsh", cli))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], environ)

    def until(text):
        seen, deadline = "", time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode()

    os.write(terminal, b"autoload -Uz compinit; compinit -u -D; source completion.zsh; echo is''set\n")
    until("isset")
    for typed, becomes in TABLE.items():
        os.write(terminal, typed.encode() + b"\t")
        until(typed[: typed.rindex(" ") + 1] + becomes)
        os.write(terminal, b"\x15")
    os.write(terminal, b"exit\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
