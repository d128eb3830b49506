"""The shell commands that the Nemotron CLI makes out of the keys of a profile (docs/nemotron.md).

The forms are those of nemo_runspec/execution.py at e27b371: startup commands stand in braces before the script's
command, and `run_command` is a format of script and config, followed by the passed-through words.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from nemotron_exec.sitecustomize.payload.manifest import register

SCRIPT = """
import sys
from omegaconf import OmegaConf
print(sys.argv[3:], OmegaConf.load(sys.argv[2]).path)
"""
PASSED_THROUGH = ["train.train_iters=5"]


@pytest.fixture
def shipped(tmp_path):
    """Makes main.py and config.yaml in one directory, as the CLI ships them; runs a command there in bash."""
    job = tmp_path / "code"
    (tmp_path / "data").mkdir()
    job.mkdir()
    (job / "main.py").write_text(SCRIPT)
    (job / "config.yaml").write_text("run: {data: 'blend:latest'}\npath: ${art:data,path}\n")
    store = str(tmp_path / "store")
    register.register(store, "blend", type="dataset", path=str(tmp_path / "data"), metadata={})

    def run(command):
        names = {"nemotron-exec": f"{shlex.quote(sys.executable)} -m nemotron_exec", "python": sys.executable}
        words = " ".join(names.get(word, word) for word in command.split(" "))
        return subprocess.run(
            ["bash", "-c", words],
            cwd=job,
            env={**os.environ, "NEMOTRON_EXEC_STORE": store},
            capture_output=True,
            text=True,
            check=False,
        )

    run.data = str(tmp_path / "data")
    return run


def test_a_startup_command_that_is_the_job_replaces_the_shell_and_what_was_passed_through_is_lost(shipped):
    startup = "exec nemotron-exec python main.py --config config.yaml"
    own = shlex.join(["python", "main.py", "--config", "config.yaml", *PASSED_THROUGH])
    done = shipped(f"{{ {startup}; }} && {own}")
    assert done.stdout.splitlines() == [f"[] {shipped.data}"], done.stderr


def test_a_run_command_keeps_what_was_passed_through(shipped):
    profile = "nemotron-exec env python {script} --config {config}"
    command = profile.format(script="main.py", config="config.yaml") + " " + " ".join(PASSED_THROUGH)
    done = shipped(command)
    assert done.stdout.splitlines() == [f"['train.train_iters=5'] {shipped.data}"], done.stderr
