"""The kernel's mount table: mounts, parsed and looked up."""

from __future__ import annotations

import collections
import os

from ..lazy import pattern

__all__ = ["Mount", "file_system", "is_within", "parse", "read_mounts"]

Mount = collections.namedtuple("Mount", ["number", "parent", "device", "root", "point", "kind", "source", "options"])
"""One line of mountinfo: ids of the mount and its parent, `major:minor` (for btrfs with the subvolume, which acts as a
file system of its own here), directory within that, mount point, type, source and options of the file system."""

_ESCAPE = pattern(r"\\([0-7]{3})")


def parse(text):
    """The mounts of a mountinfo text, in its order, without lines of another form."""
    mounts = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
            continue
        device, root, point, options = fields[2], _unescape(fields[3]), _unescape(fields[4]), rest[2:] and rest[2]
        if rest[0] == "btrfs":
            device, root = _subvolume(device, root, _unescape(options or ""))
        numbers = int(fields[0]), int(fields[1])
        mounts.append(Mount(*numbers, device, root, point, rest[0], _unescape(rest[1]), _unescape(options or "")))
    return mounts


def _subvolume(device, root, options):
    """Treat a btrfs subvolume as a device: its root counts from the top of the volume, which few hosts mount."""
    for option in options.split(","):
        subvolume = option[len("subvol=") :]
        if option.startswith("subvol=/") and subvolume != "/" and is_within(root, subvolume):
            return "%s:%s" % (device, subvolume), root[len(subvolume) :] or "/"
    return device, root


def parse_mounts(text):
    """The mounts of a /proc/mounts text, for systems without mountinfo.

    It does not tell which part of a file system is mounted, so only sources that are paths give a `root`.
    """
    mounts = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split(" ")
        if len(fields) >= 3:
            source, point = _unescape(fields[0]), _unescape(fields[1])
            root = source if source.startswith("/") and not source.startswith("/dev/") else "/"
            mounts.append(Mount(number, 0, fields[0], root, point, fields[2], source, ""))
    return mounts


def mount_of(mounts, path):
    """The mount that an absolute, resolved path lies on, or None.

    It walks from mount to mount as the kernel does, so a mount that a later one covers is not found.
    """
    current = None
    roots = [mount for mount in mounts if mount.point == "/" and not _has_parent(mounts, mount)]
    children = roots if any(_has_parent(mounts, mount) for mount in mounts) else []
    while children:
        current = children[-1]
        inside = [mount for mount in mounts if mount.parent == current.number and is_within(path, mount.point)]
        # Take the first mount point on the way. Of several mounts at one point, the last lies on top.
        inside = [mount for mount in inside if mount.number != current.number and is_within(mount.point, current.point)]
        shortest = min((len(mount.point) for mount in inside), default=0)
        children = [mount for mount in inside if len(mount.point) == shortest]
    if current is None:
        # In a chroot, or with /proc/mounts, there is no tree of mounts. Take the longest mount point, the last of equal
        # ones.
        inside = [mount for mount in reversed(mounts) if is_within(path, mount.point)]
        return max(inside, key=lambda mount: len(mount.point)) if inside else None
    return current


def file_system(path, mounts=None):
    """`nfs4 server:/export`: type and source of the file system that holds a path; None where that is not known.

    Args:
        path: An absolute path. It need not exist: its nearest directory that exists counts.
        mounts: What `read_mounts` returned; read now by default.
    """
    mount = mount_of(read_mounts() if mounts is None else mounts, os.path.realpath(path))
    return mount and "%s %s" % (mount.kind, mount.source)


def _has_parent(mounts, mount):
    return any(other.number == mount.parent and other is not mount for other in mounts)


def is_within(path, directory):
    """Whether a path is the directory or below it, by their text."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _unescape(text):
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def read_mounts():
    """The mounts of this process: /proc/self/mountinfo, else /proc/mounts, else none."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as stream:
            return parse(stream.read())
    except OSError:
        pass
    try:
        with open("/proc/mounts", errors="surrogateescape") as stream:
            return parse_mounts(stream.read())
    except OSError:
        return []
