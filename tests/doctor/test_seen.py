"""The doctors of several nodes find out whether they see one directory."""

from __future__ import annotations

import os
import threading

import pytest

from nemotron_exec.doctor import seen


@pytest.fixture
def node(monkeypatch):
    """Make this process a node of that name."""

    def become(name: str) -> None:
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", name, "", "", "")))

    return become


def test_doctors_of_two_nodes_see_each_other_and_the_last_one_tidies_up(node, tmp_path):
    probes = []
    for name in ("node1", "node1", "node2", "node2"):
        node(name)
        probes.append(seen._Probe(str(tmp_path), "job", 4))
    assert [probe.other() for probe in probes] == ["node2", "node2", "node1", "node1"]
    for probe in probes[:3]:
        probe.close()
        assert probes[3].other() == "node1"
    probes[3].close()
    assert os.listdir(tmp_path) == []


def test_doctors_of_one_node_and_of_another_job_prove_nothing(node, tmp_path):
    node("node1")
    probes = [seen._Probe(str(tmp_path), "job", 2) for _ in range(2)]
    node("node2")
    probes.append(seen._Probe(str(tmp_path), "another job", 2))
    assert [probe.other() for probe in probes] == [None] * 3
    for probe in probes:
        probe.close()
    assert os.listdir(tmp_path) == []


def test_a_doctor_waits_for_the_others_until_its_time_is_over(node, tmp_path):
    node("node1")
    assert seen.seen_by([str(tmp_path)], "job", 2, 0) == [None]
    found = []
    waiting = threading.Thread(target=lambda: found.extend(seen.seen_by([str(tmp_path)], "job", 2, 60)))
    waiting.start()
    while not list(tmp_path.glob(".doctor-*/come.node1.*")):
        pass
    node("node2")
    assert seen.seen_by([str(tmp_path)], "job", 2, 60) == ["node1"]
    waiting.join()
    assert found == ["node2"]
    assert os.listdir(tmp_path) == []


def test_what_a_doctor_left_that_was_killed_is_taken_away_an_hour_later(node, tmp_path):
    node("node1")
    seen._Probe(str(tmp_path), "job", 2)
    (left,) = tmp_path.iterdir()
    assert seen.seen_by([str(tmp_path)], "another job", 2, 0) == [None]
    assert left.exists()
    os.utime(left, (1, 1))
    assert seen.seen_by([str(tmp_path)], "another job", 2, 0) == [None]
    assert not left.exists()
