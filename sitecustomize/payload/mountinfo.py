"""Which path the host has for a path of this container, and the other way round.

A checkpoint that is saved under `/nemo_run` must be found by a job that does not see this container: what leaves the
job is recorded as the host sees it. The kernel says in /proc/self/mountinfo (proc(5)) which directory of which file
system a mount shows (`root`), but not where the host has mounted that file system; this is inferred from NEMO_RUN_DIR
and from the other mounts of the same file system. Everything here but the last four functions is pure, over the text
of that file.
"""

from __future__ import annotations

import collections
import os
import re

__all__ = ["HostPath", "Mount", "container_path", "host_path", "localise", "nemo_run_target", "parse", "to_host"]

NEMO_RUN = "/nemo_run"

Mount = collections.namedtuple("Mount", ["number", "parent", "device", "root", "point", "kind", "source"])
"""One line of mountinfo: ids of the mount and its parent, `major:minor`, directory within the file system, mount point,
type and source of the file system."""

HostPath = collections.namedtuple("HostPath", ["path", "certain", "reason"])
"""A path as the host has it; whether that is known rather than guessed; and how, in words."""

# File systems that live and die with the container: what lies on them has no path outside.
_PRIVATE = frozenset(("overlay", "tmpfs", "ramfs", "squashfs", "proc", "sysfs", "devpts", "mqueue", "aufs"))
# File systems of one machine: if nothing says otherwise, theirs is the host's root.
_LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"))
# Directories that container engines keep on the host, and mount single files out of (/etc/hosts, /etc/resolv.conf).
_ENGINES = ("/var/lib/docker/", "/var/lib/containers/", "/var/lib/kubelet/", "/run/containers/", "/run/enroot/")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def parse(text):
    """The mounts of a mountinfo text, in its order; lines that are none are left out."""
    mounts = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
            continue
        root, point = _unescape(fields[3]), _unescape(fields[4])
        mounts.append(Mount(int(fields[0]), int(fields[1]), fields[2], root, point, rest[0], _unescape(rest[1])))
    return mounts


def parse_mounts(text):
    """The mounts of a /proc/mounts text, where there is no mountinfo.

    It does not say what part of a file system is mounted, so only sources that are paths themselves help.
    """
    mounts = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split(" ")
        if len(fields) >= 3:
            source, point = _unescape(fields[0]), _unescape(fields[1])
            root = source if source.startswith("/") and not source.startswith("/dev/") else "/"
            mounts.append(Mount(number, 0, fields[0], root, point, fields[2], source))
    return mounts


def mount_of(mounts, path):
    """The mount that an absolute, resolved path lies on, or None.

    Walks as the kernel does, from mount to mount: a mount that a later one covers is not met.
    """
    current = None
    roots = [mount for mount in mounts if mount.point == "/" and not _has_parent(mounts, mount)]
    children = roots if any(_has_parent(mounts, mount) for mount in mounts) else []
    while children:
        current = children[-1]
        inside = [mount for mount in mounts if mount.parent == current.number and _within(path, mount.point)]
        # The first mount point on the way; of several there, the last lies on top.
        inside = [mount for mount in inside if mount.number != current.number and _within(mount.point, current.point)]
        shortest = min((len(mount.point) for mount in inside), default=0)
        children = [mount for mount in inside if len(mount.point) == shortest]
    if current is None:
        # A chroot, or /proc/mounts: no tree of mounts. The longest mount point decides, the last of equal ones.
        inside = [mount for mount in reversed(mounts) if _within(path, mount.point)]
        return max(inside, key=lambda mount: len(mount.point)) if inside else None
    return current


def host_path(path, mounts, nemo_run_dir=None):
    """Where the host has `path`.

    Args:
        path: Absolute path in this container, symbolic links resolved.
        mounts: From `parse`.
        nemo_run_dir: NEMO_RUN_DIR: the job's directory as its submitter knows it, or the root of all jobs.

    Returns:
        A `HostPath`; its path is `path` itself where nothing better is known.
    """
    mount = mount_of(mounts, path)
    if mount is None:
        return HostPath(path, False, "no mount holds it")
    if mount.kind in _PRIVATE:
        return HostPath(path, False, "it lies on the container's own %s" % mount.kind)
    inside = _join(mount.root, path[len(mount.point.rstrip("/")) :])
    prefix, certain, reason = _prefix(mount, mounts, nemo_run_dir)
    if prefix is None:
        return HostPath(path, False, reason)
    return HostPath(_join(prefix, inside), certain, reason)


def container_path(path, mounts, nemo_run_dir=None):
    """The paths that this container may have for a path of the host, the most specific mount first."""
    found = []
    for mount in mounts:
        if mount.kind in _PRIVATE or mount_of(mounts, mount.point) != mount:
            continue
        host = host_path(mount.point, mounts, nemo_run_dir)
        if _within(path, host.path) and host.path != mount.point:
            found.append((len(host.path), _join(mount.point, path[len(host.path.rstrip("/")) :])))
    return [here for _, here in sorted(found, reverse=True)]


def _prefix(mount, mounts, nemo_run_dir):
    """Where the host has mounted the root of the file system: (prefix, certain, reason); None if nobody knows."""
    same = [other for other in mounts if other.device == mount.device]
    if nemo_run_dir:
        for other in same:
            if other.point == NEMO_RUN:
                prefix = _before(nemo_run_dir.rstrip("/"), other.root)
                if prefix is not None:
                    return prefix, True, "NEMO_RUN_DIR"
    for other in same:
        # Mounted under its own name, as `--container-mounts=/lustre/team:/lustre/team` does.
        if other.root != "/" and other.point.endswith(other.root):
            return other.point[: -len(other.root)], True, "the mount at %s" % other.point
    for other in same:
        if other.root == "/" and (other.point != "/" or other.kind not in _PRIVATE) and other.point != NEMO_RUN:
            return other.point.rstrip("/"), True, "the mount at %s" % other.point
    for other in same:
        if other.root.startswith(_ENGINES):
            return "", True, "the mount at %s" % other.point
    if mount.root.startswith("/@"):
        # btrfs names its subvolumes so; what is mounted at / is /@.
        return "", False, "the usual names of btrfs subvolumes"
    if mount.kind in _LOCAL and mount.root != "/":
        return "", False, "a local file system, which the host has at / as a rule"
    if mount.source.startswith("/") and not mount.source.startswith("/dev/") and mount.root != mount.source:
        return mount.source.rstrip("/"), False, "the source of the mount at %s" % mount.point
    if mount.root == mount.source:
        return "", True, "the source of the mount at %s" % mount.point
    return None, False, "nothing here says where the host has mounted %s (%s)" % (mount.source, mount.kind)


def _before(directory, root):
    """What stands before `root`, or before the longest ancestor of it, at the end of `directory`; None if neither."""
    while root not in ("", "/"):
        if directory.endswith(root):
            return directory[: -len(root)]
        root = root.rpartition("/")[0]
    return None


def _has_parent(mounts, mount):
    return any(other.number == mount.parent and other is not mount for other in mounts)


def _within(path, directory):
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _join(directory, rest):
    rest = rest.strip("/")
    directory = directory.rstrip("/")
    return (directory + "/" + rest if rest else directory) or "/"


def _unescape(text):
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def _mounts():
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


def to_host(path, environ=None):
    """`path` as the host sees it, as far as that can be told; links are followed first (nemo-run's are links)."""
    environ = os.environ if environ is None else environ
    real = os.path.realpath(path)
    directory = environ.get("NEMO_RUN_DIR")
    if directory and _same(directory, NEMO_RUN) and _within(real, os.path.realpath(NEMO_RUN)):
        # Both are visible here, and are one: no inference is needed.
        return _join(directory, real[len(os.path.realpath(NEMO_RUN)) :])
    return host_path(real, _mounts(), directory).path


def localise(path, environ=None):
    """The path that exists here for a path that another job has recorded; `path` itself if there is no other."""
    if os.path.lexists(path):
        return path
    environ = os.environ if environ is None else environ
    for here in container_path(path, _mounts(), environ.get("NEMO_RUN_DIR")):
        if os.path.lexists(here):
            return here
    return path


def nemo_run_target(environ=None):
    """What `/nemo_run` is a mount of or a link to, as the host names it; None where it is neither."""
    if os.path.islink(NEMO_RUN) or os.path.ismount(NEMO_RUN):
        return to_host(NEMO_RUN, environ)
    return None


def _same(first, second):
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False
