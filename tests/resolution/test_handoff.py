"""The injector trusts a hand-off only if it belongs to this job, is complete, and has a known schema."""

from __future__ import annotations

import base64
import json
import os
import sys
import zlib

import pytest

from nemotron_exec.sitecustomize.payload import handoff
from nemotron_exec.sitecustomize.payload.manifest import register

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
    assert "it is not a regular file" in capfd.readouterr().err


def test_a_missing_one_is_one_warning(path, capfd):
    assert _read(path) == {}
    assert "No such file" in capfd.readouterr().err


def _packed(document):
    return base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()


def test_where_the_file_is_not_seen_the_environment_carries_it(path, capfd):
    assert _read(path, NEMOTRON_EXEC_HANDOFF_VALUE=_packed(DOCUMENT), SLURM_JOB_ID="7") == DOCUMENT
    assert capfd.readouterr().err == ""


def test_the_file_counts_where_there_is_one(path):
    path.write_text(json.dumps(DOCUMENT))
    assert _read(path, NEMOTRON_EXEC_HANDOFF_VALUE=_packed({**DOCUMENT, "store": "/other"})) == DOCUMENT


def test_what_the_environment_carries_is_checked_as_the_file_is(path, capfd):
    assert _read(path, NEMOTRON_EXEC_HANDOFF_VALUE=_packed(DOCUMENT), SLURM_JOB_ID="8") == {}
    assert "SLURM_JOB_ID 7, and this is 8" in capfd.readouterr().err


@pytest.mark.parametrize("value", ["", "é", "AAAA", base64.b64encode(b"x").decode()])
def test_where_neither_can_be_had_one_line_says_what_to_do(path, capfd, value):
    assert _read(path, NEMOTRON_EXEC_HANDOFF_VALUE=value) == {}
    (line,) = capfd.readouterr().err.splitlines()
    assert "--state-dir" in line
    assert "records no inputs" in line


def test_a_bomb_is_not_unpacked(path, capfd):
    bomb = base64.b64encode(zlib.compress(b"[" * (64 << 20))).decode()
    assert _read(path, NEMOTRON_EXEC_HANDOFF_VALUE=bomb) == {}
    assert len(capfd.readouterr().err.splitlines()) == 1


LOOK = """
import json, os, shutil
shutil.rmtree(os.path.dirname(os.environ["NEMOTRON_EXEC_HANDOFF"]))
from _nemotron_exec import handoff
from _nemotron_exec.checkpoints import record, run_record, settings
print(json.dumps({"handoff": handoff.read(), "record": run_record.collect(settings.settings())}, default=str))
"""


@pytest.fixture
def elsewhere(nemotron_exec, tmp_path):
    """The hand-off in a process of the job that does not see the launcher's files."""
    store, data = str(tmp_path / "store"), str(tmp_path / "data")
    os.mkdir(data)

    def elsewhere(metadata):
        register.register(store, "blend", type="dataset", path=data, metadata=metadata)
        (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:latest', publish: mine}\npath: ${art:data,path}\n")
        words = [sys.executable, "-c", LOOK, "cfg.yaml"]
        return nemotron_exec(*words, env={"NEMOTRON_EXEC_STORE": store, "TMPDIR": str(tmp_path)})

    return elsewhere


def test_a_process_on_another_node_knows_the_inputs_the_name_and_the_run(elsewhere):
    done = elsewhere({"pack_size": 4096})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["version"] for one in found["handoff"]["artifacts"]] == ["v1"]
    assert found["handoff"]["artifacts"][0]["metadata"]["pack_size"] == 4096
    assert found["handoff"]["publish"] == "mine"
    assert found["record"]["command"][-1] == "cfg.yaml"
    assert len(found["record"]["config"][0]["original_sha256"]) == 64
    assert len(found["record"]["config"][0]["resolved_sha256"]) == 64


def test_one_that_is_too_large_for_the_environment_is_said(elsewhere):
    done = elsewhere({"random": os.urandom(100_000).hex()})
    assert "too large for the environment" in done.stderr
    assert "--state-dir" in done.stderr
