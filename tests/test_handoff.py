"""The injector believes a hand-off only if it is this job's, whole, and of a schema that it knows."""

from __future__ import annotations

import json
import os

import pytest

from nemotron_exec.sitecustomize.payload import handoff

DOCUMENT = {"schema": 1, "job": {"id": "slurm-7.0", "environment": {"SLURM_JOB_ID": "7"}}, "artifacts": []}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "handoff.json"


def _read(path, **environ):
    return handoff.read({"NEMOTRON_EXEC_HANDOFF": str(path), **environ})


def test_reads_what_the_launcher_wrote(path):
    path.write_text(json.dumps(DOCUMENT))
    assert _read(path, SLURM_JOB_ID="7") == DOCUMENT


def test_a_job_that_has_lost_its_scheduler_variables_still_reads_it(path):
    path.write_text(json.dumps(DOCUMENT))
    assert _read(path) == DOCUMENT


def test_without_a_hand_off_there_is_nothing_to_say(capfd):
    assert handoff.read({}) == {}
    assert capfd.readouterr().err == ""


REFUSED = {
    "an older job's": (json.dumps(DOCUMENT), "SLURM_JOB_ID 7, and this is 8"),
    "a later schema": (json.dumps({**DOCUMENT, "schema": 2}), "its schema is 2"),
    "cut off": (json.dumps(DOCUMENT)[:-3], "not JSON"),
    "a list": ("[]", "no schema"),
    "empty": ("", "not JSON"),
    "nested without end": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_what_must_not_be_believed_is_one_warning(path, capfd, row):
    text, reason = row
    path.write_text(text)
    assert _read(path, SLURM_JOB_ID="8") == {}
    assert _read(path, SLURM_JOB_ID="8") == {}
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("nemotron-exec: warning: ")
    assert reason in lines[0]


def test_a_link_is_not_followed(path, tmp_path, capfd):
    (tmp_path / "real.json").write_text(json.dumps(DOCUMENT))
    path.symlink_to("real.json")
    assert _read(path) == {}
    assert "is not used" in capfd.readouterr().err


def test_a_fifo_does_not_hang(path, capfd):
    os.mkfifo(path)
    assert _read(path) == {}
    assert "no regular file" in capfd.readouterr().err


def test_a_missing_one_is_one_warning(path, capfd):
    assert _read(path) == {}
    assert "No such file" in capfd.readouterr().err
