"""The room that quotas leave to this user, group and project in a directory, from the kernel or from Lustre's command.

Neither waits for a server that does not answer. The kernel is asked for local file systems only. `lfs` runs as a
process that is left behind when its time is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.paths.mountinfo import mount_of, read_mounts

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Quota", "quotas"]

_LOCAL = ("ext2", "ext3", "ext4", "xfs", "f2fs", "reiserfs", "jfs")
_GET = 0x800007 << 8  # Q_GETQUOTA of sys/quota.h, shifted as QCMD does
_USER, _GROUP, _PROJECT = 0, 1, 2
_QUOTACTL_FD = 443  # the same number on all architectures (since Linux 5.14)
_BLOCK = 1024  # bytes: QIF_DQBLKSIZE
_DQBLK = struct.Struct("@8QI4x")  # hard, soft, used bytes; hard, soft, used inodes; two times; mask of the valid fields
_FSXATTR = struct.Struct("@5I8x")  # flags, extent size, extents, project, CoW extent size
_GET_FSXATTR = 0x801C581F
_LFS_SECONDS = 2.0


@dataclass(frozen=True)
class Quota:
    """The remaining room of one quota.

    Attributes:
        whose: The owner of the quota: "user 1000", "group 100", "project 7".
        left: Bytes that are left; None where the quota does not limit them.
        inodes: Inodes that are left; None where the quota does not limit them.
    """

    whose: str
    left: int | None
    inodes: int | None


def quotas(directory: str) -> Iterator[Quota]:
    """The quotas that limit what this process writes to a directory; none where none are known.

    Args:
        directory: An existing directory.
    """
    mount = mount_of(read_mounts(), os.path.realpath(directory))
    kind = mount.kind if mount is not None else ""
    if kind == "lustre":
        yield from _of_lustre(directory)
    elif kind in _LOCAL and mount is not None and _enforced(mount.options):
        yield from _of_kernel(directory, mount.source)


def _enforced(options: str) -> bool:
    """Whether a file system was mounted with quotas: `usrquota`, `grpquota`, `prjquota`, `quota`, and not `noquota`."""
    return any(word.endswith("quota") and word != "noquota" for word in options.split(","))


def _of_kernel(directory: str, device: str) -> Iterator[Quota]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        # With the set-group-ID bit, new files get the group of the directory.
        group = found.st_gid if found.st_mode & 0o2000 else os.getegid()
        asked = [(_USER, os.geteuid(), "user"), (_GROUP, group, "group")]
        if project := _project(descriptor):
            asked.append((_PROJECT, project, "project"))
        for kind, number, name in asked:
            if (answer := _ask(descriptor, device, kind, number)) is not None:
                hard, soft, used, hard_inodes, soft_inodes, used_inodes = answer[:6]
                left = _left((hard or soft) * _BLOCK, used)
                yield from _limited(f"{name} {number}", left, _left(hard_inodes or soft_inodes, used_inodes))
    finally:
        os.close(descriptor)


def _ask(descriptor: int, device: str, kind: int, number: int) -> tuple[int, ...] | None:
    """The dqblk of a quota; None where there is no such quota, or the kernel does not give it."""
    import ctypes  # takes 4 ms

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_DQBLK.size)
    command = ctypes.c_uint(_GET | kind)
    if libc.syscall(_QUOTACTL_FD, descriptor, command, number, buffer) != 0 and (
        not device.startswith("/") or libc.quotactl(command, os.fsencode(device), number, buffer) != 0
    ):
        return None
    return _DQBLK.unpack(buffer.raw)


def _project(descriptor: int) -> int:
    """The project to which new files of a directory belong; 0 for none."""
    buffer = bytearray(_FSXATTR.size)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, _GET_FSXATTR, buffer)
        return int(_FSXATTR.unpack(buffer)[3])
    return 0


def _of_lustre(directory: str) -> Iterator[Quota]:
    for flag, number, name in (("-u", os.geteuid(), "user"), ("-g", os.getegid(), "group")):
        text = _output(["lfs", "quota", "-q", flag, str(number), directory])
        # The words are the directory, then used, quota, limit and grace, of kilobytes and of files. `*` marks a limit
        # that is reached.
        words = text.replace("*", "").split()[-8:]
        if len(words) == 8 and all(word.isdigit() for word in (*words[:3], *words[4:7])):
            used, soft, hard = (int(word) for word in words[:3])
            files, soft_files, hard_files = (int(word) for word in words[4:7])
            left = _left((hard or soft) * _BLOCK, used * _BLOCK)
            yield from _limited(f"{name} {number}", left, _left(hard_files or soft_files, files))


def _output(words: Sequence[str]) -> str:
    """The output of a command; "" where it fails or takes too long. A late command is not waited for."""
    import subprocess

    try:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    try:
        text = child.communicate(timeout=_LFS_SECONDS)[0]
    except subprocess.TimeoutExpired:
        child.kill()  # do not wait for it: a child that waits for a file server cannot end before the server answers
        return ""
    return text.decode("utf-8", "replace") if child.returncode == 0 else ""


def _left(limit: int, used: int) -> int | None:
    return max(0, limit - used) if limit else None


def _limited(whose: str, left: int | None, inodes: int | None) -> Iterator[Quota]:
    if left is not None or inodes is not None:
        yield Quota(whose, left, inodes)
