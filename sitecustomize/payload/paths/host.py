"""Translates a path of this container into the host's path, and back.

A job outside this container must find a checkpoint under `/nemo_run`, so every path that leaves the job is recorded as
the host's path. The kernel says in /proc/self/mountinfo (proc(5)) which directory of which file system a mount shows
(`root`), but not where the host has mounted that file system. NEMO_RUN_DIR tells it, the files that container engines
mount tell it, and outside a container it is known. For a second disk, a network file system, a btrfs subvolume or a ZFS
dataset it cannot be known. Then the container's path is recorded: a guess that happens to exist elsewhere would name
other data. Functions that take `mounts` are pure, over the text of that file.
"""

from __future__ import annotations

import collections
import os

from .. import job, notice
from ..lazy import pattern
from .mountinfo import is_within, mount_of, read_mounts

__all__ = ["HostPath", "container_path", "host_path", "localise", "nemo_run", "to_host"]

NEMO_RUN = "/nemo_run"

HostPath = collections.namedtuple("HostPath", ["path", "certain", "reason", "inside"])
"""`path`: the host's path, or the container's if it is not known; `certain`: whether it is known; `reason`: how, or why
not, in words; `inside`: the path within its file system, None if that file system ends with the container."""

# File systems that end with the container. Files on them have no path on the host.
_PRIVATE = frozenset(("overlay", "tmpfs", "ramfs", "squashfs", "proc", "sysfs", "devpts", "mqueue", "aufs"))

# Directories of container engines on the host, from which they mount single files (/etc/hosts, /etc/resolv.conf).
_ENGINES = (
    *("/var/lib/docker/", "/var/lib/containers/", "/var/lib/kubelet/", "/run/containers/", "/run/enroot/"),
    "/var/snap/docker/",
)

# The first finds the data directory of Docker or podman in the options of the container's overlay, as the host's path.
# The second finds it in the `root` of a mounted file, as a path within its file system.
_LAYERS = pattern(r"(?:^|,)upperdir=(/[^,]*?)/overlay2?/")

_ENGINE_FILE = pattern(r"(.*)/(?:overlay-)?containers/[0-9a-f]+/(?:userdata/)?[^/]+\Z")


def host_path(path, mounts, nemo_run_dir=None):
    """The host's path for `path`.

    Args:
        path: Absolute path in this container, symbolic links resolved.
        mounts: From `parse`.
        nemo_run_dir: NEMO_RUN_DIR: the job's directory as its submitter knows it, or the root of all jobs.

    Returns:
        A `HostPath`; its path is `path` itself if the host's path is not known.
    """
    mount = mount_of(mounts, path)
    if mount is None:
        return HostPath(path, False, "no mount holds it", None)
    if mount.kind in _PRIVATE:
        return HostPath(path, False, "it lies on the container's own %s" % mount.kind, None)
    inside = _join(mount.root, path[len(mount.point.rstrip("/")) :])
    top = mount_of(mounts, "/")
    is_host = top is not None and top.root == "/" and top.kind not in _PRIVATE
    prefix, reason = _prefix(mount, mounts, nemo_run_dir, is_host)
    if prefix is not None:
        return HostPath(_join(prefix, inside), True, reason, inside)
    if is_host:
        return HostPath(path, True, "this is no container", inside)
    return HostPath(path, False, reason, inside)


def container_path(path, mounts, nemo_run_dir=None):
    """The paths that this container may have for a path of the host, the most specific mount first."""
    found = []
    for mount in mounts:
        if mount.kind in _PRIVATE or mount_of(mounts, mount.point) != mount:
            continue
        host = host_path(mount.point, mounts, nemo_run_dir)
        if host.certain and is_within(path, host.path) and host.path != mount.point:
            found.append((len(host.path), _join(mount.point, path[len(host.path.rstrip("/")) :])))
    return [here for _, here in sorted(found, reverse=True)]


def _prefix(mount, mounts, nemo_run_dir, is_host):
    """(prefix, reason): the place where the host has mounted the file system's root, None if unknown.

    In a container neither the mount's own name nor a second mount of its file system tells it. With `-v
    /mnt/disk2/jobs:/data/jobs` the host would seem to have the disk at /data, and a network file system has another
    name on each host.
    """
    same = [other for other in mounts if other.device == mount.device]
    if nemo_run_dir:
        for other in same:
            if other.point == NEMO_RUN:
                prefix = _before(nemo_run_dir.rstrip("/"), other.root)
                if prefix is not None:
                    return prefix, "NEMO_RUN_DIR"
    # Try the layers first: `/mnt/disk2/var/lib/docker` would match `/var/lib/docker`, its path within its disk.
    for other in same:
        prefix = _of_engine(other.root, mounts)
        if prefix is not None:
            return prefix, "the mount at %s" % other.point
    for other in same:
        if other.root.startswith(_ENGINES):
            return "", "the mount at %s" % other.point
    for other in same if is_host else ():
        if other.root.count("/") > 1 and other.point.endswith(other.root):
            return other.point[: -len(other.root)], "the mount at %s" % other.point
    for other in same if is_host else ():
        if other.root == "/" and other.point != NEMO_RUN:
            return other.point.rstrip("/"), "the mount at %s" % other.point
    if mount.root == mount.source:
        return "", "the source of the mount at %s" % mount.point
    return None, "nothing here says where the host has mounted %s (%s)" % (mount.source, mount.kind)


def _of_engine(root, mounts):
    """The host's mount point of the file system of `root`, if that is a file of the engine that runs this container."""
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
    """`directory` without `root`, or without its longest ancestor, at the end; None if it ends with neither."""
    while root not in ("", "/"):
        if directory.endswith(root):
            return directory[: -len(root)]
        root = root.rpartition("/")[0]
    return None


def _join(directory, rest):
    rest = rest.strip("/")
    directory = directory.rstrip("/")
    return (directory + "/" + rest if rest else directory) or "/"


def to_host(path, environ=None):
    """`path` as the host sees it; links are followed first (nemo-run's are links).

    If that is not known, the result is the container's path, with one warning for each file system.
    """
    found = _host(path, environ)
    if not found.certain and found.inside is not None and job.once("no path of the host", found.reason):
        notice.warning(
            "%s is recorded under the path of this container: %s. A job with another mount will not find it. Set"
            " NEMO_RUN_DIR to what the host mounts at /nemo_run, or mount the directory under this name in every job"
            % (found.path, found.reason)
        )
    return found.path


def _host(path, environ):
    environ = os.environ if environ is None else environ
    real = os.path.realpath(path)
    directory = environ.get("NEMO_RUN_DIR")
    if directory and _same(directory, NEMO_RUN) and is_within(real, os.path.realpath(NEMO_RUN)):
        # Both directories are visible here and are the same: no inference is needed.
        return HostPath(_join(directory, real[len(os.path.realpath(NEMO_RUN)) :]), True, "NEMO_RUN_DIR", real)
    return host_path(real, read_mounts(), directory)


def localise(path, environ=None):
    """The path here for a path that another job has recorded; `path` itself if no translation exists."""
    if os.path.lexists(path):
        return path
    environ = os.environ if environ is None else environ
    for here in container_path(path, read_mounts(), environ.get("NEMO_RUN_DIR")):
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
