"""`--artifact KEY=REF` and `--artifacts FILE` name artifacts for scripts whose YAML must not have a `run` section."""

from __future__ import annotations

import json

import pytest

CONFIG = "data: ${art:data,path}\nlr: 1.0e-4\n"


@pytest.fixture
def launch(nemotron_exec, tmp_path):
    """Run a command with two versions of `blend` in the store."""
    env = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "NEMOTRON_EXEC_BACKEND": "manifest"}
    manifests = tmp_path / "store" / "blend"
    for number in (1, 2):
        (tmp_path / f"data{number}").mkdir()
        version = manifests / f"v{number}"
        version.mkdir(parents=True)
        data = {"path": str(tmp_path / f"data{number}"), "type": "dataset", "metadata": {}}
        (version / "manifest.json").write_text(json.dumps({"name": "blend", "version": number, **data}))
        (version / "metadata.json").write_text(json.dumps(data))
    (manifests / "latest").write_text("v2")
    (tmp_path / "cfg.yaml").write_text(CONFIG)

    def run(*words, **more):
        return nemotron_exec(*words, env={**env, **more})

    return run


def body(done):
    """The output of `cat cfg.yaml` without the header."""
    return "".join(line + "\n" for line in done.stdout.splitlines() if not line.startswith("#"))


def test_an_artifact_of_the_command_line_needs_no_run_section_and_writes_none(launch, tmp_path):
    done = launch("--artifact", "data=blend:v1", "cat", "cfg.yaml", WANDB_PROJECT="team-project", WANDB_ENTITY="team")
    assert body(done) == f"data: {tmp_path}/data1\nlr: 1.0e-4\n", done.stderr
    assert f"data: blend:v1 -> {tmp_path}/data1" in done.stderr


def test_a_file_names_them_as_well_and_the_option_wins(launch, tmp_path):
    for text in ("data: blend:v1\n", "run:\n  data: blend:v1\n"):
        (tmp_path / "artifacts.yaml").write_text(text)
        done = launch("--artifacts", "artifacts.yaml", "cat", "cfg.yaml")
        assert body(done) == f"data: {tmp_path}/data1\nlr: 1.0e-4\n", done.stderr
    done = launch("--artifacts", "artifacts.yaml", "--artifact", "data=blend:latest", "cat", "cfg.yaml")
    assert body(done).startswith(f"data: {tmp_path}/data2\n")


def test_it_wins_over_the_config(launch, tmp_path):
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v1'}\n" + CONFIG)
    done = launch("--artifact", "data=blend:v2", "cat", "cfg.yaml")
    assert f"data: {tmp_path}/data2\n" in done.stdout, done.stderr


def test_a_command_without_a_config_has_its_overrides_filled_in(launch, tmp_path):
    done = launch("--artifact", "data=blend:v1", "echo", "dataset.path=${art:data,path}")
    assert done.stdout == f"dataset.path={tmp_path}/data1\n", done.stderr


def test_the_environment_names_one_a_line(launch, tmp_path):
    done = launch("cat", "cfg.yaml", NEMOTRON_EXEC_ARTIFACT="data=blend:v1\nmore=blend:v2\n")
    assert body(done).startswith(f"data: {tmp_path}/data1\n"), done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--artifact", "data"], "it is not KEY=REFERENCE"),
        (["--artifact", "=blend:v1"], "it is not KEY=REFERENCE"),
        (["--artifact", "wandb=blend:v1"], "is a setting of run"),
        (["--artifact", "data=blend:v1", "--artifact", "data=blend:v2"], "another --artifact says data=blend:v1"),
        (["--artifact", "data=blend:v9"], "v9"),
        (["--artifacts", "missing.yaml"], "No such file"),
        (["--artifacts", "list.yaml"], "it is no mapping"),
        (["--artifacts", "nested.yaml"], "data is no reference"),
    ],
)
def test_what_names_no_artifact_is_one_error(launch, tmp_path, options, said):
    (tmp_path / "list.yaml").write_text("- blend:v1\n")
    (tmp_path / "nested.yaml").write_text("data: [blend]\n")
    done = launch(*options, "cat", "cfg.yaml")
    assert done.returncode in (2, 125)
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
