"""`--lock FILE` writes the resolved versions; `--locked FILE` starts with exactly those, or reports the differences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

CONFIG = "run: {data: 'mine:latest'}\npath: ${art:data,path}\n"


@pytest.fixture
def environ(tmp_path):
    return {"NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state"), "NEMOTRON_EXEC_STORE": str(tmp_path / "store")}


@pytest.fixture
def add(environ, tmp_path):
    def run(name, path):
        (tmp_path / path).mkdir(exist_ok=True)
        words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "add", name, path]
        subprocess.run(words, env={**os.environ, **environ}, cwd=tmp_path, check=True, capture_output=True)

    return run


@pytest.fixture
def launch(nemotron_exec, environ, tmp_path):
    def run(*options, text=CONFIG, command=("cat", "cfg.yaml")):
        (tmp_path / "cfg.yaml").write_text(text)
        return nemotron_exec(*options, *command, env=environ)

    return run


@pytest.fixture
def locked(add, launch, tmp_path):
    """A lock of `mine:v1`; `mine:v2` was added after it."""
    add("mine", "one")
    assert launch("--lock", "l.yaml").returncode == 0
    add("mine", "two")
    return tmp_path / "l.yaml"


def test_a_lock_names_reference_version_digest_and_config(locked, tmp_path):
    lock = yaml.safe_load(locked.read_text())
    assert lock["run"] == {"data": "mine:v1"}
    (found,) = lock["lock"]["artifacts"].values()
    assert (found["reference"], found["version"], found["store"]) == ("mine:latest", "mine:v1", "manifest")
    assert len(found["digest"]) == 64
    assert list(lock["lock"]["configs"]) == ["cfg.yaml"]


def test_a_locked_start_has_the_versions_of_the_lock(locked, launch, tmp_path):
    assert f"path: {tmp_path}/two\n" in launch().stdout
    done = launch("--locked", "l.yaml")
    assert done.returncode == 0, done.stderr
    assert f"path: {tmp_path}/one\n" in done.stdout


def test_a_lock_is_a_config_that_names_its_versions(locked, launch):
    done = launch("--resolve-only", "-c", "l.yaml", command=())
    assert json.loads(done.stdout)["artifacts"][0]["qualified_name"] == "mine:v1", done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONFIG + "more: 1\n", "cfg.yaml has changed"),
        (
            CONFIG.replace("latest'}", "latest', again: 'mine:v1'}") + "b: ${art:again,path}\n",
            "run.again (mine:v1) is new",
        ),
    ],
)
def test_a_config_that_differs_is_named_before_the_job_starts(locked, launch, tmp_path, text, said):
    done = launch("--locked", "l.yaml", text=text, command=("touch", "started", "cfg.yaml"))
    assert done.returncode == 125
    assert said in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_version_that_is_gone_or_made_anew_is_named(locked, add, launch, tmp_path):
    manifest = tmp_path / "store/mine/v1/manifest.json"
    kept = manifest.read_text()
    manifest.write_text(kept.replace('"created_at": "20', '"created_at": "19'))
    assert "mine:v1 of run.data has another content: digest" in launch("--locked", "l.yaml").stderr
    shutil.rmtree(tmp_path / "store/mine/v1")
    done = launch("--locked", "l.yaml")
    assert done.returncode == 125
    assert "mine:v1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "it is no YAML"),
        ("run: {a: b}\n", "it has no `lock` section with a schema"),
        ("lock: {schema: 7}\n", "its schema is 7, and this is 1"),
        ("lock: {schema: 1, artifacts: {data: 7}, configs: {}}\n", "lacks artifacts, versions or configs"),
    ],
)
def test_what_is_no_lock_is_one_error(add, launch, tmp_path, text, said):
    add("mine", "one")
    if text is not None:
        (tmp_path / "l.yaml").write_text(text)
    done = launch("--locked", "l.yaml")
    assert done.returncode == 125
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_another_version_beside_the_lock_and_a_lock_that_cannot_be_written_are_errors(locked, launch):
    assert (
        "and the lock has mine:v1. Leave out one" in launch("--locked", "l.yaml", "--artifact", "data=mine:v2").stderr
    )
    assert "to write the lock no/l.yaml" in launch("--lock", "no/l.yaml").stderr
