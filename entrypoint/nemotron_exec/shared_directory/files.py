"""Files in directories that other users may write to: read, published and replaced without trust.

No function here follows a link, blocks on a FIFO, or believes a size. A written file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload import disk
from nemotron_exec.sitecustomize.payload.disk import UnusableFileError, sync_directory

__all__ = [
    "LIMIT",
    "NO_LINK",
    "TEMPORARY",
    "LinkRefusedError",
    "NotWrittenError",
    "UnusableFileError",
    "make_directory",
    "publish",
    "read",
    "replace",
    "sweep",
    "sync_directory",
    "sync_file",
]

LIMIT = 64 << 20
"""Largest size of a file in bytes. An answer has some kilobytes."""

TEMPORARY = ".tmp"
# Some network file systems answer EACCES to link(2) where others answer that they have no links.
NO_LINK = (*disk.NO_LINK, errno.EACCES)


class LinkRefusedError(Exception):
    """The file system has no hard links."""


class NotWrittenError(OSError):
    """A file could not be written.

    Attributes:
        needed: Size of the file in bytes.
    """

    def __init__(self, error: OSError, path: str, needed: int) -> None:
        super().__init__(error.errno, error.strerror, path)
        self.needed = needed


def read(path: str, *, limit: int = LIMIT, owner: int | None = None) -> bytes | None:
    """The content of a regular file; None if there is no file.

    Args:
        path: The file. It is opened, not looked up: NFS asks its server only on opening.
        limit: Largest size in bytes. A larger file is unusable.
        owner: The user id that must own the file; None for any.

    Raises:
        UnusableFileError: The path is a link, a FIFO or a directory, or the file is too large, another user's or
            unreadable.
    """
    try:
        content: bytes = disk.read_regular(path, limit, None if owner is None else (owner,))
    except OSError as error:
        if error.errno in disk.GONE:
            return None
        raise UnusableFileError(os.strerror(error.errno or 0).lower()) from None
    return content


def publish(path: str, data: bytes, *, durable: bool) -> bool:
    """Give `path` the content `data` unless it exists already. The file is never half-written.

    Args:
        path: The file.
        data: Content of the file.
        durable: Whether to wait for the disk before other processes see the file.

    Returns:
        Whether `path` now has this content. False where another process was first.

    Raises:
        LinkRefusedError: The file system has no hard links.
        OSError: The file cannot be written (disk full, quota).
    """
    for last in (False, False, True):
        temporary = _write_temporary(path, data, durable=durable)
        try:
            os.link(temporary, path, follow_symlinks=False)
        except OSError as error:
            # To a repeated request an NFS server answers EEXIST, though it has made the link. The number of links shows
            # it.
            if _links(temporary) == 2:
                break
            if error.errno == errno.EEXIST:
                return False
            if error.errno in NO_LINK:
                raise LinkRefusedError(os.strerror(error.errno)) from None
            # The temporary file is gone: another process swept it while this one was stopped, and may have published.
            if error.errno not in disk.GONE or last:
                raise
        else:
            break
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    if durable:
        sync_directory(os.path.dirname(path))
    return True


def replace(path: str, data: bytes, *, durable: bool) -> None:
    """Replace the content of `path` by `data`. The file is never half-written.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = _write_temporary(path, data, durable=durable)
    try:
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(path))


def sweep(directory: str, before: float | None = None) -> None:
    """Remove the temporary files that killed processes left in `directory`.

    Args:
        directory: The directory to sweep.
        before: Remove only files last written before this time of the file server's clock; None for all.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    if before is None or os.lstat(path).st_mtime < before:
                        os.unlink(path)


def make_directory(path: str, *, wanted: str, remedy: str) -> int:
    """Make `path` a directory of this user alone (0700), or accept it if it is one already.

    Args:
        path: The directory; its parent must exist.
        wanted: First part of the error message.
        remedy: Last part of the error message.

    Returns:
        The user id that owns it.

    Raises:
        LaunchError: The path is no directory, belongs to another user, is writable by others, or cannot be created.
    """
    try:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            found = os.lstat(path)
    except OSError as error:
        raise LaunchError(wanted, f"{path} cannot be made ({os.strerror(error.errno or 0).lower()})", remedy) from None
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise LaunchError(wanted, f"{path} is {kind}", remedy)
    if found.st_uid != os.geteuid() and found.st_uid != _owner_given_in(path):
        raise LaunchError(wanted, f"{path} belongs to user {found.st_uid}", remedy)
    if found.st_mode & 0o022:
        raise LaunchError(wanted, f"others may write to {path} (mode {found.st_mode & 0o777:o})", remedy)
    if found.st_mode & 0o055:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
    return found.st_uid


def _owner_given_in(path: str) -> int | None:
    # With NFS root_squash, files that this process creates belong to another uid. Create a probe and accept its owner.
    probe = os.path.join(path, f"owner.{os.urandom(8).hex()}{TEMPORARY}")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        owner = os.fstat(descriptor).st_uid
        return owner if owner not in (os.geteuid(), 0) and os.geteuid() == 0 else None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(probe)


def _write_temporary(path: str, data: bytes, *, durable: bool) -> str:
    temporary = f"{path}.{os.getpid()}.{os.urandom(8).hex()}{TEMPORARY}"
    try:
        disk.write_new(temporary, data, 0o600, durable)
    except OSError as error:
        # The errors of write(2) and fsync(2) name no file, and the caller's message needs one.
        raise NotWrittenError(error, path, len(data)) from None
    return temporary


def _links(path: str) -> int:
    try:
        return os.lstat(path).st_nlink
    except OSError:
        return 0


def sync_file(path: str) -> None:
    """Write the data that another program has written into a file to the disk.

    Raises:
        OSError: The disk or the file server has lost the data.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
