"""Pins: what resumes in a directory keeps the versions with which it was begun."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from nemotron_exec.artifact import Artifact
from nemotron_exec.job import JobIdentity
from nemotron_exec.message import Messages
from nemotron_exec.pin import Pins, holds_checkpoint
from nemotron_exec.rank import Place
from nemotron_exec.reference import Origin, parse_reference
from nemotron_exec.state import StateDirectory


def reference(text: str, key: str = "data"):
    return parse_reference(key, text, Origin("cfg.yaml", 2))


def artifact(text: str, version: str, path: Path, key: str = "data") -> Artifact:
    name = text.partition(":")[0]
    return Artifact(key, text, "manifest", name, version, "dataset", str(path), f"{name}:{version}")


def completed(directory: Path, framework: str = "megatron") -> None:
    directory.mkdir(exist_ok=True)
    if framework == "megatron":
        (directory / "latest_checkpointed_iteration.txt").write_text("20")
    else:
        (directory / "step_20").mkdir()


@pytest.fixture
def said():
    return io.StringIO()


@pytest.fixture
def pins(tmp_path, said):
    def pins(job: str = "slurm-1.0", save: Path | None = tmp_path / "save", attempt: int = 0, **more) -> Pins:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        return Pins(
            StateDirectory(str(state), "--state-dir", "ext4", os.geteuid(), False),
            JobIdentity(job, "SLURM_JOB_ID", True),
            Place(0, 1, 0, 1, 0, 1, attempt, "test"),
            save_directory=None if save is None else str(save),
            file=more.pop("file", None),
            refresh=more.pop("refresh", False),
            messages=Messages(stream=said),
        )

    return pins


LATEST = [reference("blend:latest")]


@pytest.mark.parametrize("framework", ["megatron", "nemo-rl"])
def test_a_chain_of_jobs_with_new_ids_keeps_its_versions(pins, tmp_path, said, framework):
    pins("slurm-1.0").write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save", framework)

    pinned = pins("slurm-2.0").apply(LATEST)

    assert [item.version for item in pinned.artifacts] == ["v3"]
    assert pinned.open == []
    assert said.getvalue().count("\n") == 1
    assert "blend:latest is v3" in said.getvalue()


def test_a_job_without_any_slurm_variable_keeps_them_too(pins, tmp_path):
    pins("slurm-1.0").write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")

    assert [item.version for item in pins("process-1-2-3").apply(LATEST).artifacts] == ["v3"]


def test_a_fresh_output_directory_does_not(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")

    assert pins("slurm-2.0", tmp_path / "fresh").apply(LATEST).open == LATEST


def test_an_output_directory_in_which_nothing_was_completed_does_not(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    (tmp_path / "save" / "tmp_step_20").mkdir()

    assert pins("slurm-2.0").apply(LATEST).open == LATEST


def test_a_pin_file_counts_whatever_lies_beside_it(pins, tmp_path):
    file = str(tmp_path / "pins" / "my.json")
    pins(file=file).write([artifact("blend:latest", "v3", tmp_path)])

    assert pins("slurm-2.0", None, file=file).apply(LATEST).artifacts[0].version == "v3"


def test_another_version_in_the_config_wins(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    explicit = [reference("blend:v7")]

    assert pins("slurm-2.0").apply(explicit).open == explicit

    pins("slurm-2.0").write([artifact("blend:v7", "v7", tmp_path)])
    assert pins("slurm-3.0").apply(LATEST).open == LATEST


def test_only_what_the_pin_names_is_pinned(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    both = [*LATEST, reference("base:latest", "model")]

    pinned = pins("slurm-2.0").apply(both)

    assert [item.version for item in pinned.artifacts] == ["v3"]
    assert pinned.open == both[1:]


def test_refresh_asks_again_and_pins_that(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    again = pins("slurm-2.0", refresh=True)
    assert again.apply(LATEST).open == LATEST

    again.write([artifact("blend:latest", "v4", tmp_path)])
    assert pins("slurm-3.0").apply(LATEST).artifacts[0].version == "v4"


def test_data_that_is_gone_is_asked_for_in_its_pinned_version(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path / "gone")])
    completed(tmp_path / "save")
    pinned = pins("slurm-2.0").apply(LATEST)

    assert pinned.artifacts == []
    assert [(item.name, item.alias) for item in pinned.open] == [("blend", "v3")]


def test_a_restart_with_a_changed_config_keeps_the_versions_of_its_job(pins, tmp_path):
    pins(save=None).write([artifact("blend:latest", "v3", tmp_path)])

    assert pins(save=None, attempt=1).apply(LATEST).artifacts[0].version == "v3"
    assert pins("slurm-2.0", None, attempt=1).apply(LATEST).open == LATEST


def test_a_second_command_in_the_same_attempt_is_not_a_restart(pins, tmp_path):
    pins(save=None).write([artifact("blend:latest", "v3", tmp_path)])

    assert pins(save=None).apply(LATEST).open == LATEST


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"schema": 9, "artifacts": {}}',
        '{"schema": 1, "artifacts": {"blend:latest": 3}}',
        '{"schema": 1, "artifacts": {"blend:latest": {"path": "/x"}}}',
        "[" * 100_000,
    ],
)
def test_a_pin_that_is_none_is_ignored_with_one_line(pins, tmp_path, said, content):
    completed(tmp_path / "save")
    (tmp_path / "save" / ".nemotron-exec").mkdir()
    (tmp_path / "save" / ".nemotron-exec" / "pin.json").write_text(content)

    assert pins().apply(LATEST).open == LATEST
    assert said.getvalue().count("ignoring the pin") == 1


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_a_pin_that_is_no_file_is_neither_followed_nor_waited_for(pins, tmp_path, said, kind):
    completed(tmp_path / "save")
    path = tmp_path / "save" / ".nemotron-exec" / "pin.json"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other.json").write_text(json.dumps({"schema": 1, "artifacts": {}}))
        path.symlink_to(tmp_path / "other.json")
    else:
        path.mkdir()

    assert pins().apply(LATEST).open == LATEST
    assert said.getvalue().count("ignoring the pin") == 1


def test_an_output_directory_that_cannot_be_written_is_one_warning(pins, tmp_path, said):
    (tmp_path / "file").write_text("")
    pins(save=tmp_path / "file" / "save").write([artifact("blend:latest", "v3", tmp_path)])

    assert said.getvalue().count("warning") == 1
    assert "cannot be pinned" in said.getvalue()


def test_holds_checkpoint(tmp_path):
    assert not holds_checkpoint(None)
    assert not holds_checkpoint(str(tmp_path / "absent"))
    (tmp_path / "iter_0000020").mkdir()
    (tmp_path / "tmp_step_2").mkdir()
    assert not holds_checkpoint(str(tmp_path))
    completed(tmp_path)
    assert holds_checkpoint(str(tmp_path))
