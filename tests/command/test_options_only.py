"""Commands without a program: only a launcher and its options."""

from __future__ import annotations

import json
import os

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.place.job import ProcessIdentity, identify
from nemotron_exec.place.rank import place

COMMANDS = [
    ["torchrun"],
    ["torchrun", "--nnodes=2"],
    ["torchrun", "--nnodes"],
    ["torchrun", "-m"],
    ["torchrun", "--no-python"],
    ["torchrun", "--nnodes=2", "--"],
    ["ft_launcher", "--nnodes=2"],
    ["python"],
    ["python", "-m"],
    ["python", "-u"],
    ["python", "-m", "torch.distributed.run"],
    ["python", "-m", "torch.distributed.run", "--nnodes=2"],
    ["python", "-m", "torch.distributed.run", "--nnodes"],
    ["uv", "run"],
    ["uv", "run", "torchrun", "--nnodes=2"],
    ["env"],
    ["env", "A=1", "torchrun", "--nnodes=2"],
    ["bash", "-c"],
]


@pytest.mark.parametrize("config", [(), ("cfg.yaml",)], ids=["no config", "-c"])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_without_its_program_is_read(words, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text("a: 1\n")
    command = read(words, config, {})
    assert list(command.argv) == words
    assert len(command.configs) == len(config)
    here = place({}, command)
    assert here.attempt == 0
    assert identify({}, command, here, explicit=None, nemo_run=None, process=ProcessIdentity.current()).id


def test_a_dry_run_shows_it(nemotron_exec, tmp_path):
    (tmp_path / "torchrun").write_text("#!/bin/sh\n")
    (tmp_path / "torchrun").chmod(0o755)
    (tmp_path / "c.yaml").write_text("a: 1\n")
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    options = ["--log-format", "json", "--state-dir", str(tmp_path), "--job-id", "j", "--dry-run", "-c", "c.yaml"]
    done = nemotron_exec(*options, "torchrun", "--nnodes=2", env=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == ["torchrun", "--nnodes=2"]
