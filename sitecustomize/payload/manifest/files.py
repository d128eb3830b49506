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
_LEFT = 600  # seconds; a temporary file lives for the time of one write and one fsync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Files(Protocol):
        """What a store needs of a file system. Paths are absolute, with `/`."""

        root: str

        def list(self, directory: str) -> list[tuple[str, bool]]:
            """Names in a directory, each with whether it is a directory; empty where there is no such directory."""

        def read(self, path: str) -> bytes | None:
            """The whole content of a regular file, None where there is none."""

        def write(self, path: str, data: bytes) -> None:
            """Put a file in place, whole, durably; replaces what was there."""

        def create(self, path: str, data: bytes) -> bool:
            """The same, but False where something of that name exists."""

        def exists(self, path: str) -> bool:
            """Whether there is a file of that name."""

        def remove(self, path: str) -> None:
            """Remove a file; nothing happens where there is none."""

        def claim(self, directory: str) -> bool:
            """Make a directory with its parents and be the only one to have made it: False where it exists."""

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
        deferred: While this is a set, nothing waits for the disk; `settle` does so later, for all of it. For a writer
            whose caller is in a hurry, and who can register again what a power cut has taken.
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
            # A store may be writable by others.
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
        # A link appears with its content, where an exclusive open would show an empty file first. Locks are made with
        # this: they are of no use after the machine has died, so the disk is not waited for.
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
            # Renaming has one winner. A writer that has renamed a live lock by mistake gives it back.
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

        `lock` has just been written there: its time is that of the file server.
        """
        try:
            now = os.lstat(lock).st_mtime
            for name, is_directory in self.list(directory):
                if not is_directory and _HALF_WRITTEN.match(name):
                    _forget_old(os.path.join(directory, name), now - _LEFT)
        except (OSError, StoreError):
            return  # gone, or not to be read: the next writer looks again

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
        """Wait for the disk to have what was written while `deferred` was a set.

        Raises:
            OSError: It does not have all of it; what it lacks is tried again by the next call.
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
        """Have on the disk what another writer has written, who may have died before it waited for the disk."""
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
            # After an fsync that failed, Linux takes the file for clean, and the next fsync succeeds without a
            # write (fsync(2), EIO). The same bytes in the same file make it dirty again.
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
    """The root of a store, as people name it: the URI of a bucket."""
    # A bucket's root is no URI any more.
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
    """The directory, or the lowest of those above it that is there."""
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
    """The data, if it is no larger than a file of a store may be.

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
