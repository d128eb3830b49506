"""Writers of one store take turns, on file systems with and without hard links."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from nemotron_exec.sitecustomize.payload.checkpoints import record
from nemotron_exec.sitecustomize.payload.manifest import listing, lock, read, register
from nemotron_exec.sitecustomize.payload.manifest.files import LocalFiles


@pytest.fixture(params=["links", "no links"])
def files(request, tmp_path, monkeypatch):
    """A store."""
    if request.param == "no links":
        _refuse_links(monkeypatch)
    return LocalFiles(str(tmp_path / "store"))


def _refuse_links(monkeypatch):
    def refused(source, target, **_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", refused)


def add(files, **more):
    return register.register(files, "sft", type="model", path="/data", metadata={}, **more).number


def test_of_two_writers_one_makes_the_file(files):
    path = files.root + "/lock"
    assert files.create(path, b"first") is True
    assert files.create(path, b"second") is False
    assert files.read(path) == b"first"
    assert os.listdir(files.root) == ["lock"]


def test_a_live_lock_that_was_taken_for_a_dead_one_is_given_back(files):
    path = files.root + "/lock"
    files.create(path, b"live")
    files.break_lock(path, b"dead")
    assert files.read(path) == b"live"
    assert os.listdir(files.root) == ["lock"]


def test_the_lock_of_a_dead_writer_goes_and_the_next_one_has_it(files, monkeypatch):
    monkeypatch.setattr(lock, "STALE_LOCK", 0.0)
    files.create(files.root + "/sft/.latest.lock", b"dead")
    assert add(files) == 1
    assert not files.exists(files.root + "/sft/.latest.lock")


def test_a_writer_gives_its_lock_back_and_no_other_ones(files):
    path = files.root + "/lock"
    with lock.writer_lock(files, path) as still_held:
        assert still_held()
    assert not files.exists(path)
    with lock.writer_lock(files, path) as still_held:
        files.remove(path)
        files.create(path, b"the next writer's")
        assert not still_held()
    assert files.read(path) == b"the next writer's"


def test_a_writer_that_has_lost_its_lock_writes_no_version(files):
    # The writer loses its lock in the middle of a version, as if it had been stopped for longer than STALE_LOCK.
    write, lost = files.write, []

    def stopped(path, data):
        write(path, data)
        if path.endswith("metadata.json") and not lost:
            lost.append(path)
            files.remove(files.root + "/sft/.latest.lock")

    files.write = stopped
    assert add(files) == 1
    assert listing.versions(files, "sft") == [1]
    assert listing.uncommitted(files, "sft") == []
    assert len(lost) == 1


def test_a_store_without_hard_links_keeps_its_promises(tmp_path, monkeypatch):
    _refuse_links(monkeypatch)
    root = str(tmp_path / "store")
    numbers = []

    def writer():
        numbers.extend(add(LocalFiles(root)) for _ in range(5))

    threads = [threading.Thread(target=writer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 16))
    assert listing.read_latest(root, "sft") == 15
    assert not os.path.exists(f"{root}/sft/.latest.lock")


def test_a_damaged_version_hides_no_older_one(tmp_path):
    store = str(tmp_path / "store")
    for event in ("one", "two"):
        add(store, extra={"event": event})
    (tmp_path / "store" / "sft" / "v2" / "manifest.json").write_bytes(bytes(100))
    assert record.find({"name": "sft", "event": "one"}, store) == 1
    assert record.find({"name": "sft", "event": "two"}, store) is None
    add(store, extra={"event": "three"})
    assert read.read_version(store, "sft", "latest", skip_gone=False).number == 3


def test_what_a_killed_writer_left_goes_with_the_next_version(tmp_path):
    store = tmp_path / "store"
    register.register(str(store), "m", type="model", path=str(tmp_path), metadata={})
    old, young, other = (store / "m" / name for name in (f".latest.{'a' * 32}", f".latest.{'b' * 32}", ".notes.txt"))
    for path in (old, young, other):
        path.write_text("v1")
    for path in (old, other):
        os.utime(path, (1, 1))
    register.register(str(store), "m", type="model", path=str(tmp_path), metadata={})
    assert [path.exists() for path in (old, young, other)] == [False, True, True]
