"""Reads and writes files in directories that other users may write to: bounded reads, whole writes, syncs, full disks.

Launcher and injector both use this layer. It does not know the meaning of the files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

__all__ = [
    "FULL",
    "GONE",
    "NO_LINK",
    "NO_SYNC",
    "TooLargeError",
    "UnusableFileError",
    "no_room",
    "read_regular",
    "sync_directory",
    "write_new",
]

FULL = (errno.ENOSPC, errno.EDQUOT)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)

# Errors of link(2) on file systems without hard links: vfat and FUSE give EPERM, others the rest.
NO_LINK = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK)

# Errors of fsync(2) on file systems that cannot sync a directory. There, an acknowledged change is on the server.
NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EROFS)

_FEW = 1000  # inodes; the message names them only if fewer are free


class UnusableFileError(Exception):
    """The path exists, but is no file to be read; the text says what it is."""


class TooLargeError(UnusableFileError):
    """The file has more bytes than a file of its kind may have."""


def read_regular(path, limit, owners=None):
    """The content of a regular file.

    Another user could leave a link to any file, a FIFO that blocks the reader, or a sparse file that fills the memory.

    Args:
        path: The file. It is opened without a stat(2) before: only an open makes NFS ask its server.
        limit: Bytes; anything larger is unusable.
        owners: The user ids that may own the file; any if None.

    Raises:
        UnusableFileError: A link, a FIFO, a directory, too large, or of another user.
        OSError: It is not there, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnusableFileError("a symbolic link") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnusableFileError("not a regular file")
        if owners is not None and found.st_uid not in owners:
            raise UnusableFileError("owned by user %d" % found.st_uid)
        if found.st_size > limit:
            raise TooLargeError("%d bytes long" % found.st_size)
        parts = []
        left = limit + 1  # the file may grow while it is read
        while left > 0:
            part = os.read(descriptor, min(left, 1 << 20))
            if not part:
                return b"".join(parts)
            parts.append(part)
            left -= len(part)
        raise TooLargeError("more than %d bytes long" % limit)
    finally:
        os.close(descriptor)


def write_new(path, data, mode, durable):
    """Make a file with its whole content, or none.

    Args:
        path: The file.
        data: Its bytes.
        mode: Its permissions, before the umask.
        durable: Whether to wait for the disk.

    Raises:
        FileExistsError: The path exists; it is left alone.
        OSError: It cannot be written; no part of it stays.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)  # NFS and quota systems may report a full disk only here
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def sync_directory(path):
    """Wait until renames and links in a directory are on the disk, if its file system can sync directories.

    Raises:
        OSError: The disk or the file server has lost a change (EIO).
    """
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # this process may enter the directory, but not read it
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def no_room(error, path, needed=None):
    """`no space left on device: 4096 bytes are needed, and the file system of /scratch has 0 bytes available`.

    Args:
        error: The OSError. For an error that is not about room, the result is its own text.
        path: The file or directory that was to be written.
        needed: Bytes; None where the size is not known.
    """
    said = (error.strerror or str(error)).lower()
    if error.errno not in FULL or "://" in path:
        return said
    try:
        top = _top(os.path.realpath(path))
        found = os.statvfs(top)
    except OSError:
        return said
    inodes = " and %d inodes" % found.f_favail if found.f_files and found.f_favail < _FEW else ""
    available = "the file system of %s has %d bytes%s available" % (top, found.f_bavail * found.f_frsize, inodes)
    return "%s: %s%s" % (said, "" if needed is None else "%d bytes are needed, and " % needed, available)


def _top(path):
    """The highest directory above a path on the same file system: its mount point, mostly."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    device = os.stat(path).st_dev
    while path != "/" and os.stat(os.path.dirname(path)).st_dev == device:
        path = os.path.dirname(path)
    return path
