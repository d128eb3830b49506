"""The room that a quota leaves in the save directory, by the kernel's answer and by Lustre's, checked before exec."""

from __future__ import annotations

import ctypes
import os
import time

import pytest

from nemotron_exec.resolution import look, quota
from nemotron_exec.sitecustomize.payload.paths import mountinfo
from nemotron_exec.sitecustomize.payload.paths.mountinfo import Mount

USER = f"user {os.geteuid()}"


class Kernel:
    """Stands in for quotactl_fd(2), with the layout of sys/quota.h. test_quota_of_a_kernel.py asks a real one."""

    def __init__(self, known):
        self.known = known

    def syscall(self, number, _descriptor, command, _identifier, buffer):
        assert (number, command.value >> 8) == (443, 0x800007)
        answer = self.known.get(command.value & 0xFF)
        if answer is None:
            return -1
        buffer.raw = quota._DQBLK.pack(*answer, 0, 0, 63)
        return 0

    def quotactl(self, *_):
        return -1


@pytest.fixture
def kernel(monkeypatch):
    """Lets the kernel return (hard, soft, used bytes, hard, soft, used inodes) for a kind of quota."""

    def says(known, options="rw,usrquota"):
        mount = Mount(1, 0, "8:1", "/", "/", "ext4", "/dev/sda1", options)
        for module in (quota, mountinfo):
            monkeypatch.setattr(module, "mount_of", lambda *_: mount)
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Kernel(known))

    return says


def test_where_no_quota_is_known_nothing_is_said(tmp_path):
    assert list(quota.quotas(str(tmp_path))) == []


def test_what_is_left_is_the_limit_without_what_is_used(kernel, tmp_path):
    kernel({0: (2000, 1000, 48_000, 100, 0, 98), 1: (0, 0, 5, 0, 0, 5)})
    assert list(quota.quotas(str(tmp_path))) == [quota.Quota(USER, 2000 * 1024 - 48_000, 2)]


@pytest.mark.parametrize("options", ["rw", "rw,noquota", "rw,errors=remount-ro"])
def test_a_file_system_that_was_mounted_without_quotas_is_not_asked(kernel, tmp_path, options):
    kernel({0: (1, 1, 1024, 1, 1, 1)}, options)
    assert list(quota.quotas(str(tmp_path))) == []


def test_a_soft_limit_counts_where_there_is_no_hard_one(kernel, tmp_path):
    kernel({1: (0, 10, 20_000, 0, 0, 0)})
    (found,) = quota.quotas(str(tmp_path))
    assert (found.whose.split()[0], found.left, found.inodes) == ("group", 0, None)


def test_a_quota_that_the_next_checkpoint_exceeds_is_said_with_both_numbers(kernel, tmp_path):
    kernel({0: (10, 0, 10_000, 5, 0, 4)})
    (tmp_path / ".nemotron-exec").mkdir()
    (tmp_path / ".nemotron-exec/last.json").write_text('{"bytes": 1000, "files": 3}')
    said = list(look.concerns((), str(tmp_path), first=True, deep=False))
    assert said == [
        f"{tmp_path}: the quota of {USER} leaves 240 bytes there, and the last checkpoint has 1000",
        f"{tmp_path}: the quota of {USER} leaves 1 files there, and the last checkpoint has 3 files",
    ]


@pytest.fixture
def lustre(monkeypatch, tmp_path):
    """A directory on Lustre, and the program `lfs` as a shell script."""

    def says(script):
        program = tmp_path / "bin/lfs"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(quota, "mount_of", lambda *_: Mount(1, 0, "0:9", "/", "/", "lustre", "mgs:/fs", ""))
        return list(quota.quotas(str(tmp_path)))

    return says


def test_lustre_is_asked_by_its_own_command(lustre):
    found = lustre('[ "$2" = -q ] && [ "$3" = -u ] && echo "/lustre 600* 500 1000 2d 7 0 10 -"\n')
    assert found == [quota.Quota(USER, 400 * 1024, 3)]


@pytest.mark.parametrize("script", ["exit 1\n", "echo cannot resolve\n", "echo / - - - - - - - -\n"])
def test_an_answer_that_is_none_says_nothing(lustre, script):
    assert lustre(script) == []


def test_a_server_that_is_gone_keeps_no_start(lustre, monkeypatch):
    monkeypatch.setattr(quota, "_LFS_SECONDS", 0.2)
    began = time.monotonic()
    assert lustre("exec sleep 600\n") == []
    assert time.monotonic() - began < 60
