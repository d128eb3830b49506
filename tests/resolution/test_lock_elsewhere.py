"""`--lock` and `--locked` with W&B and the Hugging Face hub: versions, digests and commits of real servers."""

from __future__ import annotations

import json

import pytest
import yaml

WANDB = "run: {data: 'data:latest', wandb: {project: nemotron, entity: team}}\npath: ${art:data,path}\n"
HUB = "run: {model: 'hf://org/tiny'}\npath: ${art:model,path}\n"
SOME = "run: {model: {hf: org/tiny, include: ['config.json']}}\npath: ${art:model,path}\n"


def launch(nemotron_exec, tmp_path, environ, text, *options):
    (tmp_path / "cfg.yaml").write_text(text)
    state = {"NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state"), "NEMOTRON_EXEC_CACHE_DIR": str(tmp_path / "cache")}
    return nemotron_exec(*options, "cat", "cfg.yaml", env={**environ, **state})


def content_of(done, name):
    """The content of a file in the job's directory."""
    path = yaml.safe_load(done.stdout)["path"]
    with open(f"{path}/{name}", "rb") as file:
        return file.read()


@pytest.mark.ci
def test_a_lock_holds_a_version_of_wandb_by_its_digest(nemotron_exec, tmp_path, wandb_backend, wandb_environ):
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"first"})
    done = launch(nemotron_exec, tmp_path, wandb_environ, WANDB, "--lock", "l.yaml")
    assert done.returncode == 0, done.stderr
    (locked,) = yaml.safe_load((tmp_path / "l.yaml").read_text())["lock"]["artifacts"].values()
    assert (locked["version"], locked["store"]) == ("team/nemotron/data:v0", "wandb")
    assert locked["digest"]
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"second"})
    assert content_of(launch(nemotron_exec, tmp_path, wandb_environ, WANDB), "blend.json") == b"second"
    done = launch(nemotron_exec, tmp_path, wandb_environ, WANDB, "--locked", "l.yaml")
    assert done.returncode == 0, done.stderr
    assert content_of(done, "blend.json") == b"first"


@pytest.mark.ci
def test_a_version_that_wandb_lost_or_that_has_another_content_is_one_error(
    nemotron_exec, tmp_path, wandb_backend, wandb_environ
):
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"first"})
    assert launch(nemotron_exec, tmp_path, wandb_environ, WANDB, "--lock", "l.yaml").returncode == 0
    text = (tmp_path / "l.yaml").read_text()
    (tmp_path / "gone.yaml").write_text(text.replace("data:v0", "data:v7"))
    done = launch(nemotron_exec, tmp_path, wandb_environ, WANDB, "--locked", "gone.yaml")
    assert (done.returncode, done.stdout) == (125, "")
    assert "data:v7" in done.stderr
    lock = yaml.safe_load(text)
    lock["lock"]["artifacts"]["data"]["digest"] = "0" * 32
    (tmp_path / "other.yaml").write_text(json.dumps(lock))
    done = launch(nemotron_exec, tmp_path, wandb_environ, WANDB, "--locked", "other.yaml")
    assert (done.returncode, done.stdout) == (125, "")
    assert "team/nemotron/data:v0 of run.data has another content" in done.stderr


def test_a_lock_holds_a_commit_of_the_hub(nemotron_exec, tmp_path, hub):
    first = hub.seed("org/tiny", {"config.json": b'{"first": 1}'})
    environ = hub.environ(tmp_path / "hf")
    done = launch(nemotron_exec, tmp_path, environ, HUB, "--lock", "l.yaml")
    assert done.returncode == 0, done.stderr
    (locked,) = yaml.safe_load((tmp_path / "l.yaml").read_text())["lock"]["artifacts"].values()
    assert (locked["store"], locked["digest"]) == ("huggingface", first)
    second = hub.seed("org/tiny", {"config.json": b'{"second": 2}'})
    assert second in yaml.safe_load(launch(nemotron_exec, tmp_path, environ, HUB).stdout)["path"]
    done = launch(nemotron_exec, tmp_path, environ, HUB, "--locked", "l.yaml")
    assert done.returncode == 0, done.stderr
    assert first in yaml.safe_load(done.stdout)["path"]


@pytest.mark.ci
def test_a_commit_that_the_hub_lost_is_one_error(nemotron_exec, tmp_path, hub):
    first = hub.seed("org/tiny", {"config.json": b"{}"})
    assert launch(nemotron_exec, tmp_path, hub.environ(tmp_path / "hf"), HUB, "--lock", "l.yaml").returncode == 0
    hub.model.find("model", "org/tiny").commits.clear()
    hub.seed("org/tiny", {"config.json": b'{"rewritten": 1}'})
    elsewhere = hub.environ(tmp_path / "another-cache")
    done = launch(nemotron_exec, tmp_path, elsewhere, HUB, "--locked", "l.yaml")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert first[:7] in done.stderr


@pytest.mark.ci
def test_a_lock_of_some_files_of_a_repository_needs_the_commit_in_the_config(nemotron_exec, tmp_path, hub):
    first = hub.seed("org/tiny", {"config.json": b'{"first": 1}', "big.bin": b"0"})
    environ = hub.environ(tmp_path / "hf")
    assert launch(nemotron_exec, tmp_path, environ, SOME, "--lock", "l.yaml").returncode == 0
    hub.seed("org/tiny", {"config.json": b'{"second": 2}'})
    done = launch(nemotron_exec, tmp_path, environ, SOME, "--locked", "l.yaml", "--refresh")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert f"and was hf://org/tiny@{first}" in done.stderr
    done = launch(nemotron_exec, tmp_path, environ, HUB, "--resolve-only", "-c", "l.yaml")
    assert first in done.stdout
