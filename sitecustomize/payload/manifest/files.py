"""The file system under a manifest store: the protocol, and local files."""

from __future__ import annotations

import contextlib
import errno
import os

from .. import disk
from ..lazy import pattern
from ..paths.absolute import user_path
from .names import StoreError, is_local

_HALF_WRITTEN = pattern(r"\..+\.[0-9a-f]{32}\Z")
_LEFT = 600  # seconds after which a temporary file is a dead writer's: a live one needs it for one write and one fsync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Files(Protocol):
        """The operations that a store needs of a file system. Paths are absolute, with `/`."""

        root: str

        def list(self, directory: str) -> list[tuple[str, bool]]:
            """Names in a directory, each with whether it is a directory; empty where there is no such directory."""

        def read(self, path: str) -> bytes | None:
            """The whole content of a regular file, None where there is none."""

        def write(self, path: str, data: bytes) -> None:
            """Put a file in place, whole, durably; replaces what was there."""

        def create(self, path: str, data: bytes) -> bool:
            """The same, unless the path exists: False then."""

        def exists(self, path: str) -> bool:
            """Whether there is a file of that name."""

        def remove(self, path: str) -> None:
            """Remove a file; nothing happens where there is none."""

        def claim(self, directory: str) -> bool:
            """Make a directory with its parents. False where it exists: of several callers, one gets True."""

        def remove_tree(self, directory: str) -> None:
            """Remove a directory with all that is in it."""

        def break_lock(self, path: str, content: bytes) -> None:
            """Remove a lock of a dead writer, if it still holds `content`."""


__all__ = ["LocalFiles", "label_of", "open_files", "read_bounded"]

MAX_FILE = 16 * 1024 * 1024  # bytes; a manifest is a few kB, so more than this is no manifest


_NO_LINK = (*disk.NO_LINK, errno.EXDEV)


class LocalFiles:
    """A store on a path of this machine: every step is atomic and on disk before the next begins.

    Attributes:
        root: Absolute path.
        deferred: A set, or None. While it is a set, no write waits for the disk; `settle` does so later for all of
            them. It is for a caller in a hurry who can register again after a power cut.
        lock_wait: Seconds for which `register` waits for the other writers; None for `lock.LOCK_WAIT`.
    """

    def __init__(self, root):
        self.deferred = None
        self._refused = False
        self.lock_wait = None
        self.root = user_path(_path_of(os.fspath(root)))

    def __repr__(self):
        return "LocalFiles({!r})".format(self.root)

    def list(self, directory):
        """Names in a directory, each with whether it is a directory."""
        try:
            with os.scandir(directory) as entries:
                return [(entry.name, _is_dir(entry)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as e:
            raise _failed("to read the directory {}".format(directory), e) from e

    def read(self, path):
        """Content of a regular file, None where there is none."""
        wanted = "to read {}".format(path)
        try:
            # Other users may be able to write to the store.
            return disk.read_regular(path, MAX_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except disk.TooLargeError:
            raise _too_large(wanted) from None
        except disk.UnusableFileError as e:
            raise StoreError(wanted, "it is {}".format(e), "Put a regular file there") from None
        except OSError as e:
            raise _failed(wanted, e) from e

    def write(self, path, data):
        """Replace a file, by rename."""
        temporary = self._temporary(path, data, durable=self.deferred is None)
        try:
            os.replace(temporary, path)
            if self.deferred is not None:
                self.deferred.add(path)
            self._sync(os.path.dirname(path))
        except OSError as e:
            raise _failed("to write {}".format(path), e, path) from e
        finally:
            _forget(temporary)

    def create(self, path, data):
        """Make a file unless there is one: False then."""
        # link(2) makes the file appear with its content; an exclusive open would show an empty file first. Locks are
        # made so, and are of no use after a power cut, so there is no fsync.
        temporary = self._temporary(path, data, durable=False)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as e:
            if e.errno not in _NO_LINK:
                raise _failed("to create {}".format(path), e) from e
            return _create_without_link(path, data)
        finally:
            _forget(temporary)
        return True

    def exists(self, path):
        """Whether anything has that name."""
        return os.path.lexists(path)

    def remove(self, path):
        """Remove a file, if it is there."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as e:
            raise _failed("to remove {}".format(path), e) from e

    def claim(self, directory):
        """Make a directory unless there is one: False then."""
        parent = os.path.dirname(directory)
        try:
            self._make(parent)
            os.mkdir(directory)
            self._sync(parent)
        except FileExistsError as e:
            if not os.path.isdir(parent):
                raise _failed("to make the directory {}".format(parent), e, parent) from e
            return False
        except OSError as e:
            raise _failed("to make the directory {}".format(directory), e, directory) from e
        return True

    def remove_tree(self, directory):
        """Remove a directory with all that is in it."""
        import shutil

        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as e:
            raise _failed("to remove {}".format(directory), e) from e

    def break_lock(self, path, content):
        """Remove a dead writer's lock, if it still holds `content`."""
        aside = "{}.{}".format(path, os.urandom(16).hex())
        try:
            # Of several processes, one succeeds in renaming. If the renamed lock is a live one, it is put back.
            os.rename(path, aside)
            with open(aside, "rb") as file:
                taken = file.read(MAX_FILE)
            if taken != content:
                _give_back(aside, path, taken)
        except (FileNotFoundError, FileExistsError):
            return
        except OSError as e:
            raise _failed("to break the lock {}".format(path), e) from e
        finally:
            _forget(aside)

    def _make(self, directory):
        if os.path.isdir(directory):
            return
        there = _existing(os.path.dirname(self.root))
        os.makedirs(directory, exist_ok=True)
        upper = directory
        while len(upper) > len(there):
            upper = os.path.dirname(upper)
            self._sync(upper)

    def sweep(self, directory, lock):
        """Remove the temporary files that killed writers left in the directory of an artifact.

        `lock` was written there just now, so its time is the file server's time.
        """
        try:
            now = os.lstat(lock).st_mtime
            for name, is_directory in self.list(directory):
                if not is_directory and _HALF_WRITTEN.match(name):
                    _forget_old(os.path.join(directory, name), now - _LEFT)
        except (OSError, StoreError):
            return  # the file is gone or not readable: the next writer tries again

    def _temporary(self, path, data, durable=True):
        temporary = os.path.join(os.path.dirname(path), ".{}.{}".format(os.path.basename(path), os.urandom(16).hex()))
        try:
            self._make(os.path.dirname(path))
        except OSError as e:
            raise _failed("to make the directory {}".format(os.path.dirname(path)), e, path) from e
        try:
            disk.write_new(temporary, data, 0o666, durable)
        except OSError as e:
            raise _failed("to write {}".format(path), e, path, len(data)) from e
        return temporary

    def settle(self):
        """Wait until the disk has everything that was written while `deferred` was a set.

        Raises:
            OSError: The disk does not have everything. The next call tries again.
        """
        waiting, self.deferred = self.deferred or set(), None
        try:
            for path in sorted(waiting):
                if os.path.isdir(path):
                    self._sync(path)
                elif os.path.lexists(path):
                    _settle_file(path, self._refused)
        except OSError:
            self.deferred, self._refused = waiting, True
            raise

    def confirm(self, paths):
        """Sync files of another writer, which may have died before its own fsync."""
        waiting = {*paths, *_above(max(paths, key=len), os.path.dirname(self.root))}
        if self.deferred is not None:
            self.deferred.update(waiting)
            return
        self.deferred = waiting
        try:
            self.settle()
        except OSError as e:
            self.deferred = None
            raise _failed("to have {} on the disk".format(min(paths)), e) from e

    def _sync(self, directory):
        if self.deferred is not None:
            self.deferred.add(directory)
            return
        disk.sync_directory(directory)


def _give_back(aside, path, content):
    try:
        os.link(aside, path)
    except OSError as e:
        if e.errno in _NO_LINK:
            _create_without_link(path, content)
        else:
            raise


def _create_without_link(path, data):
    try:
        disk.write_new(path, data, 0o666, durable=True)
    except FileExistsError:
        return False
    except OSError as e:
        raise _failed("to create {}".format(path), e, path, len(data)) from e
    return True


def _settle_file(path, refused):
    fd = os.open(path, (os.O_RDWR if refused else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if refused:
            # After a failed fsync, Linux counts the pages as clean, and the next fsync succeeds without a write
            # (fsync(2), EIO). Write the same bytes again to make them dirty.
            os.pwrite(fd, os.pread(fd, MAX_FILE, 0), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def open_files(root):
    """File system object of a root: itself if it is one, else LocalFiles.

    Raises:
        StoreError: The root is a URI, which needs fsspec and so the launcher (`stores/manifest.py`).
    """
    if hasattr(root, "claim"):
        return root
    if not is_local(os.fspath(root)):
        raise StoreError(
            "to open the manifest store {}".format(root),
            "its root is a URI, which the standard library cannot reach",
            "Use nemotron-artifact, or a store on a shared file system",
        )
    return LocalFiles(root)


def label_of(files):
    """The root of a store for people: the path, or the URI of a bucket."""
    # A bucket's `root` is its path within the file system, without the scheme.
    return getattr(files, "uri", files.root)


def _is_dir(entry):
    try:
        return entry.is_dir()
    except OSError:
        return False


def _path_of(root):
    return "/" + root[len("file:") :].lstrip("/") if root.startswith("file:") else root


def _above(path, top):
    """The directories above a path, up to `top`."""
    found = []
    while len(path) > len(top):
        path = os.path.dirname(path)
        found.append(path)
    return found


def _existing(directory):
    """The directory, or its nearest parent that exists."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def _forget_old(path, before):
    if os.lstat(path).st_mtime < before:
        _forget(path)


def _forget(path):
    with contextlib.suppress(OSError):
        os.unlink(path)


def read_bounded(wanted, data):
    """The data, unless it is larger than a file of a store may be.

    Raises:
        StoreError: It is larger than MAX_FILE bytes.
    """
    if len(data) > MAX_FILE:
        raise _too_large(wanted)
    return data


def _too_large(wanted):
    found = "it has more than {} MiB".format(MAX_FILE >> 20)
    return StoreError(wanted, found, "A manifest store holds small files only")


_TEMPORARY = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE)


def _failed(wanted, e, path=None, needed=None):
    remedy = "Check the directory and its file system"
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "Change its permissions or owner, or name another store (--store, NEMOTRON_EXEC_STORE)"
    elif e.errno in disk.FULL:
        remedy = "Free some space there, or name another store (--store, NEMOTRON_EXEC_STORE)"
        return StoreError(wanted, disk.no_room(e, path or e.filename or os.sep, needed), remedy, temporary=True)
    return StoreError(wanted, "{} ({})".format(e.strerror or e, type(e).__name__), remedy, e.errno in _TEMPORARY)
