"""Files that are published once, in a directory that other machines see."""

from __future__ import annotations

import errno
import os

import pytest

from nemotron_exec.shared_directory import files


def test_what_is_published_first_stays(tmp_path):
    path = str(tmp_path / "answer")
    assert files.publish(path, b"first", durable=False) is True
    assert files.publish(path, b"second", durable=False) is False
    assert files.read(path) == b"first"
    assert os.listdir(tmp_path) == ["answer"]


def test_a_link_whose_reply_was_lost_is_a_publication(tmp_path, monkeypatch):
    # The NFS client repeats the request, and the server answers that the name exists.
    link = os.link

    def twice(source, target, **more):
        link(source, target, **more)
        link(source, target, **more)

    monkeypatch.setattr(os, "link", twice)
    path = str(tmp_path / "answer")
    assert files.publish(path, b"first", durable=False) is True
    assert files.publish(path, b"second", durable=False) is False
    assert files.read(path) == b"first"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_named_as_one(tmp_path, monkeypatch, number):
    def refused(source, target, **_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(files.LinkRefusedError, match=os.strerror(number)):
        files.publish(str(tmp_path / "answer"), b"x", durable=False)
    assert os.listdir(tmp_path) == []


def test_a_temporary_file_that_was_swept_meanwhile_is_written_again(tmp_path, monkeypatch):
    link, swept = os.link, []

    def late(source, target, **more):
        if not swept:
            swept.append(source)
            files.sweep(str(tmp_path))
        link(source, target, **more)

    monkeypatch.setattr(os, "link", late)
    assert files.publish(str(tmp_path / "answer"), b"x", durable=False) is True
    assert len(swept) == 1
    assert os.listdir(tmp_path) == ["answer"]
