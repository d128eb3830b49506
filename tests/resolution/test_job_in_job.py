"""A launcher inside a job must not take the outer launcher's variables for the user's."""

from __future__ import annotations

import os
import sys

import pytest

from nemotron_exec.environment import job_environment, without_given
from nemotron_exec.sitecustomize.payload.manifest.register import register

INNER = """
import os, subprocess, sys
os.environ.update(dict(pair.split("=", 1) for pair in sys.argv[2:]))
subprocess.run([sys.executable, "-m", "nemotron_exec", sys.executable, "show.py", sys.argv[1]], check=True)
"""
SHOW = """
import os, sys
names = ("NEMOTRON_EXEC_STORE", "NEMOTRON_EXEC_BACKEND", "WANDB_PROJECT", "WANDB_ENTITY")
print(open(sys.argv[1]).read())
for name in names:
    print(name, os.environ.get(name))
"""


@pytest.fixture
def job(nemotron_exec, tmp_path):
    for name in ("one", "two", "fallback"):
        (tmp_path / name).mkdir()
        register(str(tmp_path / f"store-{name}"), "blend", type="dataset", path=str(tmp_path / name), metadata={})
    config = (
        "artifacts: {{manifest: {{root: {here}/store-{name}}}}}\n"
        "run:\n  data: blend:v1\n  wandb: {{project: {name}, entity: {name}}}\n"
        "p: ${{art:data,path}}\n"
    )
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(config.format(here=tmp_path, name=name))
    (tmp_path / "bare.yaml").write_text("run: {data: 'blend:v1'}\np: ${art:data,path}\n")
    (tmp_path / "inner.py").write_text(INNER)
    (tmp_path / "show.py").write_text(SHOW)

    def run(*words, options=(), **env):
        env = {"NEMO_ARTIFACT_ROOT": str(tmp_path / "store-fallback"), **env}
        done = nemotron_exec(*options, sys.executable, "inner.py", *words, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_inner_config_says_store_and_project(job, tmp_path):
    out = job("two.yaml", "A=outer is one.yaml", options=("-c", "one.yaml"))
    assert f"p: {tmp_path}/two" in out
    assert f"NEMOTRON_EXEC_STORE {tmp_path}/store-two" in out
    assert "WANDB_PROJECT two\nWANDB_ENTITY two" in out


def test_an_inner_config_that_says_neither_gets_the_users_own(job, tmp_path):
    out = job("bare.yaml", options=("-c", "one.yaml"))
    assert f"p: {tmp_path}/fallback" in out
    assert "WANDB_PROJECT None\nWANDB_ENTITY None" in out


def test_what_the_user_or_the_job_has_set_stays(job, tmp_path):
    out = job("bare.yaml", options=("-c", "one.yaml"), WANDB_PROJECT="mine")
    assert "WANDB_PROJECT mine\nWANDB_ENTITY None" in out
    out = job("bare.yaml", f"NEMOTRON_EXEC_STORE={tmp_path}/store-two", "WANDB_ENTITY=job", options=("-c", "one.yaml"))
    assert f"p: {tmp_path}/two" in out
    assert "WANDB_ENTITY job" in out


def test_what_a_launcher_has_set_is_known_at_any_depth():
    user = {"PATH": os.environ["PATH"], "WANDB_ENTITY": "mine"}
    one = job_environment(
        user, store="/one", backend="wandb", defaults={"WANDB_PROJECT": "one", "WANDB_ENTITY": "one"}, strict=True
    )
    assert (one["WANDB_PROJECT"], one["WANDB_ENTITY"]) == ("one", "mine")
    assert one["NEMOTRON_EXEC_STRICT"] == "1"
    assert "NEMOTRON_EXEC_STRICT" not in without_given(one)
    assert {name for name in without_given(one) if name.startswith("WANDB")} == {"WANDB_ENTITY"}
    two = job_environment(without_given(one), store="/two", backend="manifest")
    assert (two["NEMOTRON_EXEC_STORE"], two["NEMOTRON_EXEC_BACKEND"]) == ("/two", "manifest")
    left = without_given(two)
    assert not [name for name in left if name in ("NEMOTRON_EXEC_STORE", "NEMOTRON_EXEC_BACKEND", "WANDB_PROJECT")]
    # An inner job without a config keeps the record of the outer launcher's variables.
    inside = job_environment(one, store=None)
    assert without_given({**inside, "NEMOTRON_EXEC_STORE": "/other"})["NEMOTRON_EXEC_STORE"] == "/other"
    assert "NEMOTRON_EXEC_STORE" not in without_given(inside)
