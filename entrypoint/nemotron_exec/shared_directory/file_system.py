"""The kind of file system on which a directory lies."""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    pass

__all__ = ["LOCAL_KINDS", "file_system"]

LOCAL_KINDS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "ramfs", "zfs", "f2fs"})
"""File systems of one machine. Two nodes see different directories there."""


def file_system(path: str, mountinfo: str | None = None) -> str:
    """Type of the file system that holds `path`, from /proc/self/mountinfo (proc(5)); empty if unknown.

    Args:
        path: An existing file or directory.
        mountinfo: Content of the file, for tests.
    """
    if mountinfo is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mountinfo = file.read()
        except OSError:
            return ""
    real = os.path.realpath(path)
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # With equal mounts, the last one lies on top.
        if inside and len(point) >= best:
            best, kind = len(point), right.split(" ")[0]
    return kind
