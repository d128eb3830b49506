"""Files that are no configs never stop a command, and have no effect."""

from __future__ import annotations

import os
import sys

import pytest

from nemotron_exec.sitecustomize.payload.manifest.register import register

FOREIGN = {
    "Latin-1": b"# caf\xe9\nx: 1\n",
    "several documents": b"kind: A\n---\nkind: B\n",
    "a template": b"x: {{ value }}\n{% if y %}\nz: 1\n",
    "a tab": b"x:\n\ty: 1\n",
    "a text at the top": b"just text\n",
    "a number at the top": b"7\n",
    "a list at the top": b"- a\n- b\n",
    "nothing": b"",
    "a NUL": b"x: \0\n",
    "UTF-16 of something else": "x: 1\n".encode("utf-16"),
    "a workflow": b"jobs:\n  a:\n    steps:\n      - run: |\n          make\n---\nx: 1\n",
    "an unknown tag": b"x: !Ref y\n",
    "defaults of Hydra": b"defaults:\n  - model: small\n  - _self_\n",
    "defaults that are not there": b"defaults: none.yaml\nx: 1\n",
    "a text under run": b"run: baseline\n",
    "a truth under run": b"run: true\n",
    "a script under run": b"run: |\n  torchrun x\n",
    "a list under run": b"run: [a, b]\n",
    "a text under run that is used": b"run: train\nlog: logs/${run}\n",
    "a list under run that is used": b"run: [a, b]\nlog: logs/${run[0]}\n",
    "a template under run": b"run: {{ value }}\n",
    "an alias that is none": b"run: *nope\n",
    "a parent that is a number": b"defaults: 7\nrun: x\n",
    "a surrogate": b'run: "\\ud800"\n',
    "UTF-16 with a run": "run: baseline\n".encode("utf-16"),
    "lines of Windows": b"run: baseline\r\nx: 1\r\n",
    "keys that are collections": b"? [a, b]\n: run: x\n",
    "deep": b"run: x\ny: " + b"[" * 3000,
    "12 MB": b"x:\n" + b"- 0123456789\n" * 1_000_000,
}
SHOW = "import sys; print('STARTED', open(sys.argv[1]).read())"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "d1").mkdir()
    register(str(tmp_path / "store"), "blend", type="dataset", path=str(tmp_path / "d1"), metadata={})
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v1'}\nroot: ${art:data,path}\ntrain: ${root}/train\n")
    return {"NEMOTRON_EXEC_STORE": str(tmp_path / "store")}


def test_no_foreign_file_stops_a_command_or_changes_the_config_beside_it(nemotron_exec, tmp_path, store):
    names = []
    for number, content in enumerate(FOREIGN.values()):
        names.append(f"f{number}.yaml")
        (tmp_path / names[-1]).write_bytes(content)
    (tmp_path / "root.yaml").write_text("root: x\n")
    words = [sys.executable, "-c", SHOW, "cfg.yaml", "root.yaml", *names]
    for env in ({}, {"NEMOTRON_EXEC_QUIET": "1"}):
        done = nemotron_exec(*words, env={**store, **env})
        assert done.returncode == 0, done.stderr
        assert f"train: {tmp_path}/d1/train" in done.stdout


TEMPLATES = {
    "ERB": "run:\n  data: <% x %>\nx: @VAR@\ny: ${art:data,path}\n",
    "Python": "run:\n  data: %(x)s\ny: ${art:data,path}\n",
    "quoted": "run:\n  data: '{{ name }}:v1'\ny: ${art:data,path}\n",
    "Helm": "run:\n  image: {{ .Values.image }}\n{{- if .Values.x }}\nx: ${art:data,path}\n{{- end }}\n",
    "Jinja": "run:\n  data: blend:v1\n{% for one in all %}\n{{ one }}: ${art:data,path}\n{% endfor %}\n",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_names_artifacts_starts_with_one_warning_and_stops_where_it_is_meant(
    nemotron_exec, tmp_path, store, name
):
    (tmp_path / "f.yaml").write_text(TEMPLATES[name])
    done = nemotron_exec("echo", "STARTED", "f.yaml", env=store)
    assert (done.returncode, done.stdout) == (0, "STARTED f.yaml\n"), done.stderr
    assert done.stderr.count("warning") == 1
    assert "f.yaml is a template, no YAML yet" in done.stderr
    assert nemotron_exec("-c", "f.yaml", "echo", "f.yaml", env=store).returncode == 125


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "12 MB"])
def test_alone_it_starts_whatever_brings_the_parser(nemotron_exec, tmp_path, name):
    (tmp_path / "f.yaml").write_bytes(FOREIGN[name])
    done = nemotron_exec("echo", "STARTED", "f.yaml", env={"NEMOTRON_EXEC_QUIET": "1"})
    assert (done.returncode, done.stdout) == (0, "STARTED f.yaml\n"), done.stderr


def test_braces_in_a_command_of_the_run_section_make_no_template(nemotron_exec, tmp_path, store):
    hook = "docker inspect -f '{{ .Id }}' job; true"
    text = f'run: {{data: "blend:v1", on_checkpoint: "{hook}"}}\npath: ${{art:data,path}}\n'
    (tmp_path / "f.yaml").write_text(text)
    done = nemotron_exec("cat", "f.yaml", env=store)
    assert f"path: {tmp_path}/d1" in done.stdout, done.stderr


NOT_REGULAR = {
    "a directory": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a device that never ends": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: path.symlink_to("/dev/null"),
}


def test_what_is_no_regular_file_is_not_read(nemotron_exec, tmp_path, store):
    words = []
    for number, make in enumerate(NOT_REGULAR.values()):
        for name in (f"f{number}.yaml", f"f{number}.json", f"f{number}.py", f"g{number}.yaml"):
            make(tmp_path / name)
            words.append(f"--data={name}" if name[0] == "g" else name)
    for first in ("t.txt", "cfg.yaml"):
        done = nemotron_exec("echo", "STARTED", first, *words, env=store)
        assert done.returncode == 0, done.stderr
        assert "STARTED" in done.stdout


OURS = {
    "a reference in what cannot be read": b"p: ${art:data,path}\nx:\n\ty: 1\n",
    "a run section in what cannot be read": b"run:\n  data: blend:v1\nx:\n\ty: 1\n",
    "a text under run that is used": b"run: baseline\np: ${art:data,path}\n",
}


@pytest.mark.parametrize("name", OURS)
def test_what_was_meant_as_a_config_stops_it(nemotron_exec, tmp_path, store, name):
    (tmp_path / "f.yaml").write_bytes(OURS[name])
    done = nemotron_exec("echo", "STARTED", "f.yaml", env=store)
    assert done.returncode == 125
    assert "f.yaml" in done.stderr


NO_ARTIFACTS = ["cuda:0", "cpu:0", "mps:0", "localhost:29500", "10.0.0.1:80", "node-0.cluster:8080", "node:29500"]


def test_devices_and_hosts_under_run_are_no_artifacts(nemotron_exec, tmp_path, store):
    pairs = "".join(f"  k{number}: '{text}'\n" for number, text in enumerate(NO_ARTIFACTS))
    (tmp_path / "cfg.yaml").write_text(f"run:\n  data: blend:v1\n{pairs}p: ${{art:data,path}}\n")
    done = nemotron_exec("cat", "cfg.yaml", env=store)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize("text", ["ubuntu:latest", "redis:7", "blend:9", "vllm/vllm-openai:latest", "rayproject/ray:2"])
def test_what_the_store_lacks_and_nothing_uses_is_a_warning(nemotron_exec, tmp_path, store, text):
    (tmp_path / "cfg.yaml").write_text(f"run: {{data: 'blend:v1', image: '{text}'}}\np: ${{art:data,path}}\n")
    done = nemotron_exec("cat", "cfg.yaml", env=store)
    assert done.returncode == 0, done.stderr
    assert f"{text} is taken for no artifact" in done.stderr
    (tmp_path / "cfg.yaml").write_text(f"run: {{image: '{text}'}}\np: ${{art:image,path}}\n")
    assert nemotron_exec("cat", "cfg.yaml", env=store).returncode == 125


def test_an_env_toml_that_is_none_stops_only_what_needs_it(nemotron_exec, tmp_path, store):
    (tmp_path / "env.toml").write_text("[wandb\n")
    done = nemotron_exec("echo", "STARTED", "none.txt", env=store)
    assert (done.returncode, done.stdout) == (0, "STARTED none.txt\n")
    assert "warning: to read" in done.stderr
    assert "--env-file /dev/null" in done.stderr
    done = nemotron_exec("cat", "cfg.yaml", env=store)
    assert done.returncode == 125
    assert "--env-file /dev/null" in done.stderr
    assert nemotron_exec("--env-file", "/dev/null", "cat", "cfg.yaml", env=store).returncode == 0


def test_a_host_with_its_port_is_no_artifact(nemotron_exec, tmp_path, store):
    (tmp_path / "f.yaml").write_text("run: {data: 'blend:v1', addr: 'head:6379'}\np: ${art:data,path}\n")
    done = nemotron_exec("cat", "f.yaml", env=store)
    assert done.returncode == 0
    assert "warning" not in done.stderr
