"""What `/nemo_run` is here, and what becomes of it in arguments and configs."""

from __future__ import annotations

import os

import pytest

from nemotron_exec.place import nemo_run
from nemotron_exec.sitecustomize.payload.paths import host


def test_without_a_directory_of_the_job_nothing_is_translated(tmp_path):
    assert nemo_run.translation({}) is None


def test_a_path_below_it_is_that_below_the_jobs_directory(tmp_path, monkeypatch):
    if os.path.lexists("/nemo_run"):
        pytest.fail("the machine of the tests has a /nemo_run")
    translate = nemo_run.translation({"NEMO_RUN_DIR": str(tmp_path)})
    assert translate("/nemo_run/a.yaml") == f"{tmp_path}/a.yaml"
    assert translate("--x=/nemo_run") == f"--x={tmp_path}"
    assert translate("/other") == "/other"


def test_where_there_is_none_it_names_no_job():
    assert nemo_run.nemo_run_target() is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, None),
        (host.HostPath("/lustre/job", True, "", "/job"), "/lustre/job"),
        (host.HostPath("/mnt/job", False, "", "/job"), "/job"),
        (host.HostPath("/mnt/job", False, "", None), "/mnt/job"),
    ],
)
def test_the_name_on_the_host_and_where_it_is_not_known_that_within_the_file_system(monkeypatch, found, expected):
    monkeypatch.setattr(os.path, "lexists", lambda path: path == "/nemo_run")
    monkeypatch.setattr(host, "nemo_run", lambda: found)
    assert nemo_run.nemo_run_target() == expected
