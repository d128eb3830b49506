"""Bad input gives one clear error (wanted, found, what to do), the right exit code, and no half-written file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CONFIG = "run: {data: 'blend:latest'}\npath: ${art:data,path}\n"

#    name: config text (None: no file), words in the message
TABLE = {
    "a missing file of -c": (None, ["cfg.yaml", "No such file"]),
    "YAML that does not parse": ("run:\n  data: [1, 2\npath: x\n", ["cfg.yaml:3"]),
    "run is a list": ("run: [a, b]\npath: ${art:a,path}\n", ["run", "cfg.yaml", "mapping"]),
    "run is a string": ("run: data\npath: ${art:a,path}\n", ["run", "cfg.yaml", "mapping"]),
    "unknown key": ("run: {data: 'blend:v1'}\na: 1\npath: ${art:nope,path}\n", ["nope", "cfg.yaml:3", "data"]),
    "unknown field": ("run: {data: 'blend:v1'}\npath: ${art:data,nope}\n", ["nope", "cfg.yaml:2", "pack_size"]),
    "unknown artifact": ("run: {data: 'blnd:v1'}\n", ["blnd", "blend", "cfg.yaml:1"]),
    "unknown version": ("run: {data: 'blend:v7'}\n", ["v7", "v1", "cfg.yaml:1"]),
    "a reference with path parts": ("run: {data: '../../x:v1'}\np: ${art:data}\n", ["../../x:v1", "cfg.yaml:1"]),
    "an absolute reference": ("run: {data: '/etc/x:v1'}\np: ${art:data}\n", ["/etc/x:v1", "cfg.yaml:1"]),
    "an empty part": ("run: {data: 'a//b:v1'}\np: ${art:data}\n", ["a//b:v1", "cfg.yaml:1"]),
    "a misspelt key": ("run: {data: 'blend:v1'}\np: ${art:dat}\n", ["cfg.yaml:2", "Did you mean data?"]),
    "a misspelt field": (
        "run: {data: 'blend:v1'}\np: ${art:data,pack_sice}\n",
        ["cfg.yaml:2", "Did you mean pack_size?"],
    ),
    "no run section": ("p: ${art:data,path}\n", ["cfg.yaml:1", "no section `run`", "--artifact data="]),
    "a mapping in place of a text": (
        "run:\n  data: {name: blend}\np: ${art:data}\n",
        ["run.data (", "cfg.yaml:2", "is a mapping", "`data: blend:latest`"],
    ),
    "a list in place of a text": ("run:\n  data: ['blend:v1']\np: ${art:data}\n", ["is a list", "`data: blend:v1`"]),
    "a tab": ("run:\n\tdata: blend:v1\np: ${art:data}\n", ["cfg.yaml:2", "indented with a tab"]),
    "a missing brace": ("run: {data: 'blend:v1'}\np: ${art:data,path\n", ["cfg.yaml:2", "no closing `}`"]),
    "two arguments too many": ("run: {data: 'blend:v1'}\np: ${art:data,path,x,y}\n", ["art", "cfg.yaml:2"]),
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    from nemotron_exec.sitecustomize.payload.manifest import register

    root = tmp_path / "store"
    (tmp_path / "data").mkdir()
    register.register(str(root), "blend", type="dataset", path=str(tmp_path / "data"), metadata={"pack_size": 1})
    monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(root))
    # The launcher writes here. After an error the directory must be empty again.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    return root


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_bad_input_is_one_error_and_starts_nothing(nemotron_exec, tmp_path, store, row):
    text, words = row
    if text is not None:
        (tmp_path / "cfg.yaml").write_text(text)
    options = ["-c", "cfg.yaml"] if text is None else []
    done = nemotron_exec(*options, "touch", "started", "--config", "cfg.yaml")
    _refused(done, 125, words, tmp_path)


STORES = {
    "a manifest that is not JSON": ("v1/manifest.json", "{", ["manifest.json", "JSON"]),
    "a manifest that is no object": ("v1/manifest.json", "[]", ["manifest.json"]),
    "a manifest without a path": ("v1/manifest.json", '{"name": "blend", "version": 1}', ["manifest.json", "path"]),
}


@pytest.mark.parametrize("row", STORES.values(), ids=STORES)
def test_a_broken_manifest_is_named(nemotron_exec, tmp_path, store, row):
    name, text, words = row
    (store / "blend" / name).write_text(text)
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    _refused(nemotron_exec("touch", "started", "cfg.yaml"), 125, words, tmp_path)


def test_a_store_that_cannot_be_read_is_named(tmp_path, store):
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    store.chmod(0)
    # root may read every file, unless it gives up these two capabilities.
    give_up = "-dac_override,-dac_read_search"
    as_anybody = ["setpriv", f"--bounding-set={give_up}", f"--inh-caps={give_up}"] if os.geteuid() == 0 else []
    try:
        done = subprocess.run(
            [*as_anybody, sys.executable, "-m", "nemotron_exec", "touch", "started", "cfg.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        store.chmod(0o755)
    assert done.returncode == 125, done.stderr
    assert str(store) in done.stderr
    assert "Traceback" not in done.stderr


def test_an_override_of_run_without_a_config_is_an_error(nemotron_exec, tmp_path, store):
    _refused(nemotron_exec("touch", "started", "run.data=blend:v1"), 125, ["run.data=blend:v1", "-c"], tmp_path)


def test_verbose_shows_the_traceback_that_is_hidden_otherwise(nemotron_exec, tmp_path, store):
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v7'}\n")
    assert "Traceback" in nemotron_exec("-v", "true", "cfg.yaml").stderr


def test_json_messages_are_one_object_a_line(nemotron_exec, tmp_path, store):
    import json

    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v7'}\n")
    done = nemotron_exec("--log-format", "json", "true", "cfg.yaml")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[-1]["level"] == "error"
    assert lines[-1]["exit_code"] == 125


def _refused(done, code, words, tmp_path):
    assert done.returncode == code, done.stderr
    assert not (tmp_path / "started").exists()
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("nemotron-exec: error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]
    resolved = [path for path in (tmp_path / "scratch").rglob("*") if path.name in ("cfg.yaml", "handoff.json")]
    assert resolved == []
    assert not list(tmp_path.rglob("*.tmp"))
