"""Downloads shared between jobs and nodes: one directory per digest, complete or not there at all.

    <cache>/wandb/<digest>/            a finished download; it appears by one rename
    <cache>/wandb/.partial/<digest>/   an unfinished download; if its process dies, the next one continues it,
                                       and after a week without one it is removed
    <cache>/wandb/.lease/<digest>      names the process that downloads it

The lease only saves a second download. Two processes that write the same partial file write the same bytes. Each checks
its bytes against the digests, and only one rename wins.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.shared_directory import files as private
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.stores.room import Room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nemotron_exec.shared_directory.lease import Lease

__all__ = ["ArtifactCache", "format_bytes", "no_room"]

_REMEDY = "Give a directory of yours with --cache-dir DIR (NEMOTRON_EXEC_CACHE_DIR)"
_DIGEST = pattern(r"[0-9a-zA-Z_\-]{8,128}\Z")
_ABANDONED = 7 * 86_400.0  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ArtifactCache:
    """The directory of one cache.

    Args:
        directory: The value of `--cache-dir`, created if it is missing. The cache is `wandb` in it, mode 0700.
        lease: Seconds of silence after which another process may take over a download; all processes must use the same.
        heartbeat: Seconds between two heartbeats of the process that downloads.

    Raises:
        LaunchError: The directory cannot be created, or belongs to another user.
    """

    def __init__(self, directory: str, *, lease: float = 15.0, heartbeat: float = 5.0) -> None:
        self._duration, self._heartbeat = lease, heartbeat
        wanted = f"to keep downloads in {directory}"
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            found = f"it cannot be made ({os.strerror(error.errno or 0).lower()})"
            raise LaunchError(wanted, found, _REMEDY) from None
        self.root = os.path.join(directory, "wandb")
        for name in (self.root, self._partial(), self._leases()):
            private.make_directory(name, wanted=wanted, remedy=_REMEDY)
        self._room = Room(self.root)
        self._swept = False
        self._lock = threading.Lock()

    def path(self, digest: str) -> str:
        """The path of the artifact with the digest, whether it exists or not."""
        return os.path.join(self.root, self._key(digest))

    def missing(self, digest: str, sizes: Mapping[str, int]) -> list[str]:
        """The files that a finished download lacks, of `sizes` (bytes by name). Normally there are none.

        All are missing if there is no download. A program that removes old files may have removed some.
        """
        root = self.path(digest)
        return [name for name, size in sizes.items() if _size(os.path.join(root, name)) != size]

    def partial(self, digest: str) -> str:
        """The directory for an unfinished download. It may hold files of an earlier attempt."""
        path = os.path.join(self._partial(), self._key(digest))
        private.make_directory(path, wanted=f"to keep downloads in {self.root}", remedy=_REMEDY)
        return path

    def publish(self, digest: str) -> str:
        """Turn the partial directory into the finished one. Return its path."""
        source, target = self.partial(digest), self.path(digest)
        for directory, _, _ in os.walk(source):
            private.sync_directory(directory)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process has finished the download first, or a finished one has lost files: move the missing files
            # there.
            for directory, _, files in os.walk(source):
                inside = os.path.relpath(directory, source)
                os.makedirs(os.path.join(target, inside), mode=0o700, exist_ok=True)
                for name in files:
                    os.replace(os.path.join(directory, name), os.path.join(target, inside, name))
            shutil.rmtree(source, ignore_errors=True)
        private.sync_directory(self.root)
        return target

    def forget_abandoned(self, keep: str) -> None:
        """Remove other downloads that have rested for a week and that no process holds. It runs once, and never fails.

        Args:
            keep: Digest of the download that is about to continue.
        """
        with self._lock:
            swept, self._swept = self._swept, True
        with contextlib.suppress(OSError, LaunchError):
            names = [] if swept else [name for name in os.listdir(self._partial()) if name != self._key(keep)]
            before = self._server_time() - _ABANDONED if names else 0.0
            for name in names:
                path = os.path.join(self._partial(), name)
                if _touched_since(path, before):
                    continue
                lease = self._lease(name)
                if lease.acquire():
                    try:
                        if not _touched_since(path, before):
                            shutil.rmtree(path, ignore_errors=True)
                    finally:
                        lease.release()

    @contextlib.contextmanager
    def lease(self, digest: str, wait: Callable[[], bool]) -> Iterator[None]:
        """Take the turn to download the artifact, or wait until another process has downloaded it.

        Args:
            digest: Digest of the artifact.
            wait: Called about twice a second while another process downloads. It returns whether to wait on.
        """
        lease: Lease | None = self._lease(self._key(digest))
        held = False
        while lease is not None:
            try:
                held = lease.acquire()
            except LaunchError:
                lease = None  # the file system has no lease: download beside the others
                break
            if held or not wait():
                break
            time.sleep(0.5)
        try:
            yield
        finally:
            if lease is not None and held:
                lease.release()

    @contextlib.contextmanager
    def room(self, needed: int, wanted: str) -> Iterator[None]:
        """Reserve `needed` bytes among the downloads of this process.

        Raises:
            TemporaryError: The file system has too little room.
        """
        with self._room.reserve(needed, lambda asked, free: no_room(wanted, self.root, asked, free)):
            yield

    def _lease(self, name: str) -> Lease:
        from nemotron_exec.shared_directory.lease import Lease

        path = os.path.join(self._leases(), name)
        return Lease(path, self._server_time, duration=self._duration, heartbeat=self._heartbeat)

    def _server_time(self) -> float:
        """The current time of the file server, which dates the heartbeats. This node's clock may be minutes off."""
        with tempfile.NamedTemporaryFile(dir=self._leases(), prefix="clock-", suffix=private.TEMPORARY) as probe:
            return os.fstat(probe.fileno()).st_mtime

    def _partial(self) -> str:
        return os.path.join(self.root, ".partial")

    def _leases(self) -> str:
        return os.path.join(self.root, ".lease")

    @staticmethod
    def _key(digest: str) -> str:
        # The digest comes from the server. It becomes a file name only if it has the form of a digest.
        return digest if _DIGEST.match(digest) else hashlib.sha256(digest.encode()).hexdigest()


def no_room(wanted: str, where: str, needed: int, free: int | None = None) -> TemporaryError:
    """The error for a full disk or quota."""
    left = "" if free is None else f", and {format_bytes(max(free, 0))} are available there"
    return TemporaryError(
        wanted,
        f"{format_bytes(needed)} are needed in {where}{left}",
        "Free some space, or give a roomier directory with --cache-dir DIR",
    )


def is_full(error: OSError) -> bool:
    """Whether a write error means a lack of room (disk, quota, limit on file sizes)."""
    return error.errno in _FULL


def format_bytes(count: float) -> str:
    """`1.2 GB`, in powers of ten like the sizes of disks."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _touched_since(path: str, before: float) -> bool:
    """Whether a file of the directory was written after `before`, by the file server's clock."""
    return os.lstat(path).st_mtime > before or any(
        os.lstat(os.path.join(directory, name)).st_mtime > before
        for directory, directories, files in os.walk(path)
        for name in (*directories, *files)
    )
