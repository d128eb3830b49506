"""The profile of docs/nemotron.md, in the commands that the Nemotron CLI makes out of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from nemotron_exec.config.env_toml import read_env_toml
from support.places import ROOT

CONFIG = "run: {data: 'blend:latest'}\npath: ${art:data,path}\n"
SCRIPT = "import sys\nprint(sys.argv[3:], open(sys.argv[2]).read())\n"


@pytest.fixture
def profile(tmp_path):
    """`run.env` of a profile of the page."""
    text = re.search(r'```toml title="env.toml"\n(.*?)```', (ROOT / "docs/nemotron.md").read_text(), re.DOTALL)[1]
    (tmp_path / "env.toml").write_text(text)
    return lambda name: read_env_toml(str(tmp_path / "env.toml"), name).profile


@pytest.fixture
def shell(tmp_path):
    """Runs a command beside `main.py` and `config.yaml`, as torchrun does; returns its output."""
    from nemotron_exec.sitecustomize.payload.manifest import register

    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "main.py").write_text(SCRIPT)
    register.register(str(tmp_path / "store"), "blend", type="dataset", path=str(tmp_path), metadata={})
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (
        ("nemotron-exec", f'exec {sys.executable} -m nemotron_exec --store {tmp_path}/store "$@"'),
        ("uv", 'shift; exec "$@"'),  # `uv run python …`
        ("python", f'exec {sys.executable} "$@"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(0o755)

    def run(command):
        path = f"{programs}:{os.environ['PATH']}"
        words = ["bash", "-c", command]
        done = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_startup_command_starts_the_clis_own_command_with_its_overrides(profile, shell, tmp_path):
    (startup,) = profile("my-cluster")["startup_commands"]
    # as by prepend_startup_to_cmd of nemo_runspec/execution.py
    said = shell(f"{{ {startup}; }} && python main.py --config config.yaml train.train_iters=5 'x=a b'")
    assert said.startswith("['train.train_iters=5', 'x=a b']")
    assert f"path: {tmp_path}\n" in said


def test_the_startup_command_leaves_data_preparation_alone(profile, shell):
    (startup,) = profile("my-cluster")["startup_commands"]
    assert "${art:data,path}" in shell(f"{{ {startup}; }} && uv run python main.py --config config.yaml")


def test_the_run_command_of_rl_is_filled_in_by_the_cli(profile, shell, tmp_path):
    env = profile("my-cluster-rl")
    (startup,) = env["startup_commands"]  # the profile inherits them
    command = env["run_command"].format(script="main.py", config="config.yaml") + " grpo.seed=1"
    said = shell(f"{{ {startup}; }} && {command}")
    assert said.startswith("['grpo.seed=1']")
    assert f"path: {tmp_path}\n" in said


def test_the_run_command_of_a_cloud_survives_the_clis_format():
    page = (ROOT / "docs/nemotron.md").read_text()
    (command,) = re.findall(r"`run_command = \"(nemotron-exec torchrun .*?)\"`", page)
    filled = command.format(script="main.py", config="config.yaml")
    assert filled.endswith("main.py --config config.yaml")
    assert "${NODE_RANK:-0}" in filled


def test_what_the_cli_drops_of_run_is_said_behind_the_script_and_taken_out_again(shell):
    page = (ROOT / "docs/nemotron.md").read_text()
    (startup,) = re.findall(r"`'(python\(\) \{[^`]*run\.publish=my-model[^`]*)'`", page)
    said = shell(f"{{ {startup}; }} && python main.py --config config.yaml --mock")
    assert said.startswith("['--mock']")
    assert "publish: my-model" in said
