"""Old state is removed by age, never while a job lives."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time

import pytest

from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous.retention import AGE, clean

MACHINE = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())


@pytest.fixture
def state(tmp_path):
    (tmp_path / "jobs").mkdir()
    return StateDirectory(str(tmp_path), "--state-dir", "ext4", os.geteuid(), True)


def job(state, name: str, pid: int, age: float, machine: str = MACHINE):
    path = os.path.join(state.path, "jobs", name)
    os.makedirs(os.path.join(path, "k", "nodes"))
    files = [os.path.join(path, "k", "answer.1.json"), os.path.join(path, "k", "nodes", f"1.0.0.{machine}.{pid}.ab")]
    for file in files:
        with open(file, "w"):
            pass
    when = time.time() - age
    for directory, _, names in os.walk(path):
        for item in [*names, "."]:
            os.utime(os.path.join(directory, item), (when, when))
    return files


@pytest.fixture
def dead():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_old_jobs_go_and_young_ones_stay(state, dead):
    job(state, "old", dead, AGE + 60)
    job(state, "young", dead, AGE - 60)

    assert clean(state, keep="mine", now=time.time()) == ["old"]
    assert sorted(os.listdir(os.path.join(state.path, "jobs"))) == ["young"]


def test_a_job_whose_process_lives_here_stays_however_old(state):
    job(state, "living", os.getpid(), 10 * AGE)

    assert clean(state, keep="mine", now=time.time()) == []


def test_a_job_that_has_given_a_sign_of_life_stays(state, dead):
    answer, _ = job(state, "elsewhere", dead, 10 * AGE, machine="another")
    os.utime(answer)

    assert clean(state, keep="mine", now=time.time()) == []


def test_the_job_that_is_starting_stays(state, dead):
    job(state, "mine", dead, 10 * AGE)

    assert clean(state, keep="mine", now=time.time()) == []


def test_it_looks_once_a_day(state, dead):
    clean(state, keep="mine", now=time.time())
    job(state, "old", dead, AGE + 60)

    assert clean(state, keep="mine", now=time.time()) == []
    assert clean(state, keep="mine", now=time.time() + 86401) == ["old"]


def test_what_a_killed_cleaner_left_is_removed(state):
    os.makedirs(os.path.join(state.path, "jobs", ".removed-0123", "k"))
    clean(state, keep="mine", now=time.time())

    assert os.listdir(os.path.join(state.path, "jobs")) == []
