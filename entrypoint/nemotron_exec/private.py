"""Files in directories that others may write to, or that may lie: read, published and replaced without trust.

Nothing here follows a link, blocks on a FIFO, or believes a size. What is written appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from nemotron_exec.errors import LaunchError

__all__ = [
    "LIMIT",
    "NO_LINK",
    "TEMPORARY",
    "LinkRefusedError",
    "UnusableFileError",
    "make_directory",
    "publish",
    "read",
    "replace",
    "sweep",
    "sync_directory",
]

LIMIT = 64 << 20
"""Bytes; an answer is some kilobytes, and what is larger than this is not one."""

TEMPORARY = ".tmp"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
# link(2) on file systems without hard links: vfat and FUSE say EPERM, others that there is no such call.
NO_LINK = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EACCES)


class UnusableFileError(Exception):
    """Something is there, and it is not a file of ours; the text says what it is."""


class LinkRefusedError(Exception):
    """The file system has no hard links."""


def read(path: str, *, limit: int = LIMIT, owner: int | None = None) -> bytes | None:
    """The content of a regular file, or None if there is none.

    Args:
        path: The file. Opened rather than looked at: opening is what makes NFS ask its server.
        limit: Bytes; anything larger is unusable.
        owner: The user id that must own the file; any if None.

    Raises:
        UnusableFileError: A link, a FIFO, a directory, too large, somebody else's, or unreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in _GONE:
            return None
        if error.errno == errno.ELOOP:
            raise UnusableFileError("a symbolic link") from None
        raise UnusableFileError(os.strerror(error.errno or 0).lower()) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnusableFileError("not a regular file")
        if owner is not None and found.st_uid != owner:
            raise UnusableFileError(f"owned by user {found.st_uid}")
        if found.st_size > limit:
            raise UnusableFileError(f"{found.st_size} bytes long")
        parts = []
        size = 0
        while size <= limit and (part := os.read(descriptor, 1 << 20)):
            parts.append(part)
            size += len(part)
        if size > limit:
            raise UnusableFileError(f"more than {limit} bytes long")
        return b"".join(parts)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise UnusableFileError(os.strerror(error.errno or 0).lower()) from None
    finally:
        os.close(descriptor)


def publish(path: str, data: bytes, *, durable: bool) -> bool:
    """Give `path` the content `data` unless it exists already; never half of it.

    Args:
        path: The file.
        data: Its content.
        durable: Whether to wait for the disk, before others are told.

    Returns:
        Whether ours is the content that is there.

    Raises:
        LinkRefusedError: The file system has no hard links.
        OSError: The file cannot be written (disk full, quota).
    """
    for last in (False, False, True):
        temporary = _write_temporary(path, data, durable=durable)
        try:
            os.link(temporary, path, follow_symlinks=False)
        except OSError as error:
            # An NFS server that answers a repeated request says EEXIST for the link that it has made: count them.
            if _links(temporary) == 2:
                break
            if error.errno == errno.EEXIST:
                return False
            if error.errno in NO_LINK:
                raise LinkRefusedError(os.strerror(error.errno)) from None
            # Gone: swept as a dead process's while we were stopped. Whoever swept may have published.
            if error.errno not in _GONE or last:
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
    """Give `path` the content `data`, whatever was there; never half of it.

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


def sweep(directory: str) -> None:
    """Remove the temporary files that killed processes left in `directory`."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))


def make_directory(path: str, *, wanted: str, remedy: str) -> int:
    """Make `path` ours alone (0700), or accept it if it is.

    Args:
        path: The directory; its parent exists.
        wanted: First part of the error message.
        remedy: Last part of the error message.

    Returns:
        The user id that owns it.

    Raises:
        LaunchError: Something else is there, or somebody else's, or others may write to it, or it cannot be made.
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
    # Where the server maps us to another user (root to nobody on NFS), ours is what it calls ours.
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
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            # NFS and quota systems may report a full disk only here.
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


def _links(path: str) -> int:
    try:
        return os.lstat(path).st_nlink
    except OSError:
        return 0


def sync_directory(path: str) -> None:
    """Have on disk what was renamed or linked in a directory, as far as its file system knows that."""
    # Some network file systems refuse; what they have acknowledged is on the server.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
