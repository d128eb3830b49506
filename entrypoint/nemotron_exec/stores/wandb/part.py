"""The downloaded bytes of one file on disk, and their digest."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

__all__ = ["Part", "RemoteFile"]

_CHUNK = 1 << 20  # bytes
_LARGE = 32 << 20  # bytes; the digest of a larger file gets a thread
_AHEAD = 16  # pieces that may wait for the digest's thread
_FLUSH = 32 << 20  # bytes that the kernel is told to write to disk at a time
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


@dataclass(frozen=True)
class RemoteFile:
    """One file of an artifact.

    Attributes:
        name: Relative path, checked already.
        size: Size in bytes by the manifest; None where it names none.
        digest: Digest of the content, base64.
        algorithm: "md5", or "xxh128" (W&B's newer artifacts).
    """

    name: str
    size: int | None
    digest: str
    algorithm: str = "md5"


class Part:
    """The bytes of one file on disk, their digest, and the number that was reported as progress.

    Args:
        file: The file that they become.
        path: The path on disk.
        progress: Called with the number of new bytes on disk; negative for bytes that were thrown away.
    """

    def __init__(self, file: RemoteFile, path: str, progress: Callable[[int], None]) -> None:
        self.file = file
        self.path = path
        self.done = 0
        self._progress = progress
        self._told = 0
        self._flushed = 0
        self._digest = _Digest(file)
        self._opened: IO[bytes] | None = None

    @property
    def complete(self) -> bool:
        """Whether all bytes are on disk. If the manifest names no size, any bytes count as all."""
        return self.done == self.file.size if self.file.size is not None else self.done > 0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Open the file at the end of its bytes. Bytes that are not counted yet are read for the digest."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as self._opened:
            size = os.fstat(self._opened.fileno()).st_size
            if self.file.size is None or size > self.file.size or size != self.done:
                self._count_anew()
                if self.file.size is None or size > self.file.size:
                    self._opened.truncate(0)
                while size and (chunk := self._opened.read(_CHUNK)):
                    self._digest.update(chunk)
                    self.done += len(chunk)
                    self._tell()
            self._opened.seek(self.done)
            self._flushed = self.done
            self._tell()
            yield

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        assert self._opened is not None
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._opened.write(rest) :]
        self._digest.update(chunk)
        self.done += len(chunk)
        if self.done - self._flushed >= _FLUSH:
            _begin_to_sync(self._opened.fileno(), self._flushed, self.done - self._flushed)
            self._flushed = self.done
        self._tell()

    def restart(self) -> None:
        """Start again at the first byte."""
        assert self._opened is not None
        self._opened.seek(0)
        self._opened.truncate(0)
        self._count_anew()
        self._tell()

    def discard(self) -> None:
        """Remove the bytes on disk."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._count_anew()
        self._tell()

    def finish(self) -> str:
        """Sync the file to disk. Return its digest, base64."""
        assert self._opened is not None
        try:
            os.fsync(self._opened.fileno())
        except OSError:
            # After a failed sync the bytes look complete until the machine restarts, so do not continue with them.
            self.discard()
            raise
        return base64.b64encode(self._digest.value()).decode()

    def close(self) -> None:
        """Stop the digest: no more bytes come."""
        self._digest.close()

    def _count_anew(self) -> None:
        self._digest.close()
        self._digest = _Digest(self.file)
        self.done = self._flushed = 0

    def _tell(self) -> None:
        if self.done != self._told:
            self._progress(self.done - self._told)
            self._told = self.done


class _Digest:
    """The digest of a file. For a large file a thread computes it beside the download: hashing releases the GIL."""

    def __init__(self, file: RemoteFile) -> None:
        self._hasher = _hasher(file.algorithm)
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None
        if (file.size or 0) >= _LARGE:
            self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
            self._thread.start()

    def update(self, piece: bytes) -> None:
        if self._thread is None:
            self._hasher.update(piece)
        else:
            self._pieces.put(piece)

    def value(self) -> bytes:
        self.close()
        digest: bytes = self._hasher.digest()
        return digest

    def close(self) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hasher.update(piece)


def _begin_to_sync(descriptor: int, start: int, length: int) -> None:
    """Let the kernel start to write a range to disk while more bytes arrive, so that the last sync finds little to do.

    The kernel's own threshold is a share of the memory, more than most files have. This call is a hint: only the last
    sync shows whether the bytes are on disk. `os` does not offer it.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        begin = ctypes.CDLL(None).sync_file_range
        begin.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        begin(descriptor, start, length, _SYNC_FILE_RANGE_WRITE)


def _hasher(algorithm: str) -> Any:
    if algorithm == "md5":
        return hashlib.md5(usedforsecurity=False)
    if algorithm == "xxh128":
        with contextlib.suppress(ImportError):  # versions of wandb that use this digest install it
            import xxhash

            return xxhash.xxh3_128()
    raise LaunchError(
        "to check a downloaded artifact",
        f"its digests are {algorithm}, which is not known here",
        "Update nemotron-exec",
    )
