"""Which path the host has for a path of this container, and the other way round.

A checkpoint that is saved under `/nemo_run` must be found by a job that does not see this container: what leaves the
job is recorded as the host sees it. The kernel says in /proc/self/mountinfo (proc(5)) which directory of which file
system a mount shows (`root`), but not where the host has mounted that file system. That is known from NEMO_RUN_DIR,
from the other mounts of the same file system, and from the files that container engines mount; of a second disk, or of
a btrfs subvolume or ZFS dataset of which nothing else is seen, it cannot be known. Then a path stays as the container
has it: a guess that happens to exist elsewhere would name other data. Everything above `_mounts` is pure, over the text
of that file.
"""

from __future__ import annotations

import collections
import os
import re

from . import notice

__all__ = ["HostPath", "Mount", "container_path", "host_path", "localise", "nemo_run", "parse", "to_host"]

NEMO_RUN = "/nemo_run"

Mount = collections.namedtuple("Mount", ["number", "parent", "device", "root", "point", "kind", "source", "options"])
"""One line of mountinfo: ids of the mount and its parent, `major:minor` (of btrfs with the subvolume, which is a file
system of its own in all that matters here), directory within that, mount point, type, source and options of the file
system."""

HostPath = collections.namedtuple("HostPath", ["path", "certain", "reason", "inside"])
"""A path as the host has it, the container's own where that is not known; whether it is known; how or why not, in
words; and the path within its file system, None if it lies on none that outlives the container."""

# File systems that live and die with the container: what lies on them has no path outside.
_PRIVATE = frozenset(("overlay", "tmpfs", "ramfs", "squashfs", "proc", "sysfs", "devpts", "mqueue", "aufs"))
# Directories that container engines keep on the host, and mount single files out of (/etc/hosts, /etc/resolv.conf).
_ENGINES = (
    *("/var/lib/docker/", "/var/lib/containers/", "/var/lib/kubelet/", "/run/containers/", "/run/enroot/"),
    "/var/snap/docker/",
)
# Docker's and podman's own directory, wherever it is: in the options of the container's overlay as the host has it, and
# as a directory within its file system in the root of such a file.
_LAYERS = re.compile(r"(?:^|,)upperdir=(/[^,]*?)/overlay2?/")
_ENGINE_FILE = re.compile(r"(.*)/(?:overlay-)?containers/[0-9a-f]+/(?:userdata/)?[^/]+\Z")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def parse(text):
    """The mounts of a mountinfo text, in its order; lines that are none are left out."""
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
    """The subvolume as a device of its own: btrfs gives the root from the top of the volume, which few hosts mount."""
    for option in options.split(","):
        subvolume = option[len("subvol=") :]
        if option.startswith("subvol=/") and subvolume != "/" and _within(root, subvolume):
            return "%s:%s" % (device, subvolume), root[len(subvolume) :] or "/"
    return device, root


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
            mounts.append(Mount(number, 0, fields[0], root, point, fields[2], source, ""))
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
        A `HostPath`; its path is `path` itself where the host's is not known.
    """
    mount = mount_of(mounts, path)
    if mount is None:
        return HostPath(path, False, "no mount holds it", None)
    if mount.kind in _PRIVATE:
        return HostPath(path, False, "it lies on the container's own %s" % mount.kind, None)
    inside = _join(mount.root, path[len(mount.point.rstrip("/")) :])
    prefix, reason = _prefix(mount, mounts, nemo_run_dir)
    if prefix is not None:
        return HostPath(_join(prefix, inside), True, reason, inside)
    top = mount_of(mounts, "/")
    if top is not None and top.root == "/" and top.kind not in _PRIVATE:
        return HostPath(path, True, "this is no container", inside)
    return HostPath(path, False, reason, inside)


def container_path(path, mounts, nemo_run_dir=None):
    """The paths that this container may have for a path of the host, the most specific mount first."""
    found = []
    for mount in mounts:
        if mount.kind in _PRIVATE or mount_of(mounts, mount.point) != mount:
            continue
        host = host_path(mount.point, mounts, nemo_run_dir)
        if host.certain and _within(path, host.path) and host.path != mount.point:
            found.append((len(host.path), _join(mount.point, path[len(host.path.rstrip("/")) :])))
    return [here for _, here in sorted(found, reverse=True)]


def _prefix(mount, mounts, nemo_run_dir):
    """Where the host has mounted the root of the file system: (prefix, reason); the prefix is None if nobody knows."""
    same = [other for other in mounts if other.device == mount.device]
    if nemo_run_dir:
        for other in same:
            if other.point == NEMO_RUN:
                prefix = _before(nemo_run_dir.rstrip("/"), other.root)
                if prefix is not None:
                    return prefix, "NEMO_RUN_DIR"
    for other in same:
        if other.root.startswith(_ENGINES):
            return "", "the mount at %s" % other.point
    for other in same:
        prefix = _of_engine(other.root, mounts)
        if prefix is not None:
            return prefix, "the mount at %s" % other.point
    for other in same:
        # Mounted under its own name, as `--container-mounts=/lustre/team:/lustre/team` does.
        if other.root != "/" and other.point.endswith(other.root):
            prefix = other.point[: -len(other.root)]
            # `-v /mnt/disk2/models:/models` looks like it, too, and says nothing.
            if prefix or other.root.count("/") > 1:
                return prefix, "the mount at %s" % other.point
    for other in same:
        if other.root == "/" and (other.point != "/" or other.kind not in _PRIVATE) and other.point != NEMO_RUN:
            return other.point.rstrip("/"), "the mount at %s" % other.point
    if mount.root == mount.source:
        return "", "the source of the mount at %s" % mount.point
    return None, "nothing here says where the host has mounted %s (%s)" % (mount.source, mount.kind)


def _of_engine(root, mounts):
    """Where the host has the file system of `root`, if that is a file of the engine whose layers are mounted here."""
    file = _ENGINE_FILE.match(root)
    if file is None:
        return None
    inside = file.group(1)
    for layers in filter(None, (_LAYERS.search(mount.options) for mount in mounts)):
        data = layers.group(1)
        if data.endswith(inside):
            return data[: len(data) - len(inside)]
        # Podman's `--root X/storage --runroot X/run`.
        data, beside = data.rpartition("/")[0], inside.rpartition("/")[0]
        if beside.count("/") > 1 and data.endswith(beside):
            return data[: len(data) - len(beside)]
    return None


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


_told = set()


def to_host(path, environ=None):
    """`path` as the host sees it; links are followed first (nemo-run's are links).

    Where that is not known it is the container's own, and the first of each file system is a warning.
    """
    found = _host(path, environ)
    if not found.certain and found.inside is not None and found.reason not in _told:
        _told.add(found.reason)
        notice.warning(
            "%s is recorded as this container names it: %s. A job that has it elsewhere will not find it. Set"
            " NEMO_RUN_DIR to what the host mounts at /nemo_run, or mount the directory under the host's own name"
            % (found.path, found.reason)
        )
    return found.path


def _host(path, environ):
    environ = os.environ if environ is None else environ
    real = os.path.realpath(path)
    directory = environ.get("NEMO_RUN_DIR")
    if directory and _same(directory, NEMO_RUN) and _within(real, os.path.realpath(NEMO_RUN)):
        # Both are visible here, and are one: no inference is needed.
        return HostPath(_join(directory, real[len(os.path.realpath(NEMO_RUN)) :]), True, "NEMO_RUN_DIR", real)
    return host_path(real, _mounts(), directory)


def localise(path, environ=None):
    """The path that exists here for a path that another job has recorded; `path` itself if there is no other."""
    if os.path.lexists(path):
        return path
    environ = os.environ if environ is None else environ
    for here in container_path(path, _mounts(), environ.get("NEMO_RUN_DIR")):
        if os.path.lexists(here):
            return here
    return path


def nemo_run(environ=None):
    """The `HostPath` of `/nemo_run` where it is a mount or a link; None where it is neither."""
    if os.path.islink(NEMO_RUN) or os.path.ismount(NEMO_RUN):
        return _host(NEMO_RUN, environ)
    return None


def _same(first, second):
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False
