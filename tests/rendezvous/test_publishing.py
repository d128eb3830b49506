"""Files that a published answer names stay, even if the leader does not know that it has published."""

from __future__ import annotations

import errno
import os

import pytest

from nemotron_exec.message import Messages
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous import publishing
from nemotron_exec.rendezvous.meeting import Meeting
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.rendezvous.timing import Timing


@pytest.fixture
def meeting(tmp_path):
    place = Place(0, 2, 0, 2, 0, 1, 0, "test")
    state = StateDirectory(str(tmp_path), "--state-dir", "ext4", os.geteuid(), shared=False)
    job = JobIdentity("job", "--job-id", shared=True)
    found = Meeting(
        place, job, state, Question("k"), refresh=False, messages=Messages("error"), timing=Timing(settle=0.1)
    )
    found.arrive()
    return found


@pytest.fixture
def lead(meeting):
    made = publishing.lead_of(meeting, lambda *_: None)
    with open(os.path.join(made.directory, "cfg.yaml"), "w") as file:
        file.write("a: 1")
    return made


def test_files_of_an_answer_that_was_just_published_are_not_discarded(meeting, lead):
    # A signal between the link and the leader's note of it leads to discard().
    assert publishing.publish(meeting, publishing.answer_of(meeting, {}, lead=lead), durable=False)
    publishing.discard(meeting, lead)

    assert os.listdir(lead.directory) == ["cfg.yaml"]


def test_an_answer_above_which_a_directory_cannot_be_synced_is_published_and_one_warning_says_so(
    meeting, lead, monkeypatch, capfd
):
    def refuse(directory):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(publishing, "_sync_files", lambda *_: None)
    put = publishing.files.publish
    monkeypatch.setattr(publishing.files, "publish", lambda path, data, **_: put(path, data, durable=False))
    monkeypatch.setattr(publishing.files, "sync_directory", refuse)
    meeting.messages = Messages("warning")
    assert publishing.publish(meeting, publishing.answer_of(meeting, {}, lead=lead), durable=True)
    assert meeting.look().leader == meeting.name
    assert capfd.readouterr().err.count("cannot be made durable (input/output error)") == 1


def test_files_that_no_answer_names_are_discarded(meeting, lead):
    publishing.discard(meeting, lead)

    assert not os.path.exists(lead.directory)


def test_files_of_an_answer_that_cannot_be_read_stay_for_the_next_leader_to_sweep(meeting, lead):
    os.mkfifo(os.path.join(meeting.path, "answer.1.json"))
    publishing.discard(meeting, lead)

    assert os.path.exists(lead.directory)


def test_who_sweeps_keeps_the_published_files_and_no_others(meeting, lead):
    late = publishing.lead_of(meeting, lambda *_: None)
    os.listdir(late.directory)
    publishing.sweep(meeting, keep=lead.name)

    assert sorted(os.listdir(meeting.path)) == [lead.name, "nodes"]


def test_who_sweeps_in_a_later_round_keeps_what_the_answer_of_an_earlier_one_names(meeting, lead):
    # A leader of the first round wrote its files after the sweep, and was killed before it could remove them.
    late = publishing.lead_of(meeting, lambda *_: None)
    os.listdir(late.directory)
    assert publishing.publish(meeting, publishing.answer_of(meeting, {}, lead=lead), durable=False)
    meeting.round = 2
    publishing.sweep(meeting, keep=None)

    assert sorted(os.listdir(meeting.path)) == ["answer.1.json", lead.name, "nodes"]


def test_who_sweeps_in_a_later_round_keeps_all_that_an_unreadable_answer_may_name(meeting, lead):
    with open(os.path.join(meeting.path, "answer.1.json"), "w") as file:
        file.write("{")
    meeting.round = 2
    publishing.sweep(meeting, keep=None)

    assert os.path.exists(lead.directory)
