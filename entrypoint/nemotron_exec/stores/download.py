"""Files over HTTP: several at once, going on where an earlier attempt stopped, checked against their digests.

wandb's own download() does not check what it receives and keeps corrupt bytes in its cache (facts: wandb 0.31), so the
bytes are fetched here. Used in the child process only: `requests` comes with wandb.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import errno
import hashlib
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.cache import is_full, no_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

    import requests

__all__ = ["Downloader", "RemoteFile"]

_CHUNK = 1 << 17  # bytes; what a connection has received of a chunk is lost when it stalls
_ATTEMPTS = 6  # without a byte of progress in between
_LONGEST_PAUSE = 20.0  # seconds
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RemoteFile:
    """One file of an artifact.

    Attributes:
        name: Relative path, already checked.
        size: Bytes, as the manifest says; None where it does not.
        digest: Base64 of its digest.
        algorithm: "md5", or "xxh128" (W&B's newer artifacts).
    """

    name: str
    size: int | None
    digest: str
    algorithm: str = "md5"


class _Transient(Exception):  # noqa: N818  (it never leaves this module)
    """What may pass: the text says what happened; `pause` is what the server asked for, seconds."""

    def __init__(self, found: str, pause: float | None = None) -> None:
        super().__init__(found)
        self.pause = pause


class Downloader:
    """Fetches files with a bounded number of connections, shared by all artifacts of a job.

    Args:
        deadline: `time.monotonic()` after which nothing is tried again.
        connections: At once, over all artifacts.
        stall: Seconds without a byte after which a connection is given up; no pause between two is longer.
    """

    def __init__(self, deadline: float, *, connections: int = 16, stall: float = 30.0) -> None:
        self._deadline = deadline
        self._stall = stall
        self._pool = concurrent.futures.ThreadPoolExecutor(connections, thread_name_prefix="download")
        self._local = threading.local()

    def fetch(
        self,
        files: Sequence[RemoteFile],
        directory: str,
        *,
        wanted: str,
        url: Callable[[str, bool], str],
        progress: Callable[[int], None],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Bring all `files` into `directory`, which may hold parts of them from before.

        Args:
            files: What to fetch.
            directory: Ours, private.
            wanted: First part of every error.
            url: Gives the URL of a file; its second argument is whether to ask for a fresh one.
            progress: Told of bytes that are new on disk; a negative number for those that had to be thrown away.
            tell: Told of each failure after which a file is tried again: a bounded number without a byte between.

        Raises:
            TemporaryError: Server or network failed throughout, the disk is full, or the bytes stay wrong.
            LaunchError: The server refuses the file.
        """
        futures = [self._pool.submit(self._fetch, file, directory, wanted, url, progress, tell) for file in files]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        finally:
            for future in futures:
                future.cancel()

    def get(self, file: RemoteFile, *, wanted: str, url: Callable[[str, bool], str], limit: int) -> bytes:
        """One small file, in memory, with the same retries and the same check."""
        import tempfile

        if (file.size or 0) > limit:
            raise LaunchError(wanted, f"{file.name} has {file.size} bytes", f"Keep it below {limit} bytes")
        with tempfile.TemporaryDirectory(prefix="nemotron-exec-") as directory:
            self.fetch([file], directory, wanted=wanted, url=url, progress=lambda _: None)
            with open(os.path.join(directory, file.name), "rb") as opened:
                return opened.read()

    # ------------------------------------------------------------------ one file

    def _fetch(
        self,
        file: RemoteFile,
        directory: str,
        wanted: str,
        url: Callable[[str, bool], str],
        progress: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> None:
        part = _Part(file, os.path.join(directory, file.name), progress)
        failures, fresh_url, refetched = 0, False, False
        while True:
            before = part.done
            try:
                digest = self._attempt(part, url(file.name, fresh_url))
            except _Refused as refusal:
                if fresh_url:
                    raise LaunchError(
                        wanted,
                        f"the server refused {file.name} (HTTP {refusal.status})",
                        "Check that the files of this version still exist in W&B and that the key may read them",
                    ) from None
                fresh_url = True
            except _Transient as fault:
                failures = 1 if part.done > before else failures + 1
                self._pause(failures, fault, wanted, file, tell)
                fresh_url = failures > 2
            except OSError as error:
                raise _disk_error(error, wanted, directory, part) from None
            else:
                if digest == file.digest:
                    return
                part.discard()
                if refetched:
                    raise TemporaryError(
                        wanted,
                        f"{file.name} does not match its checksum, fetched twice (expected {file.algorithm} "
                        f"{file.digest}, got {digest})",
                        "Nothing of it was kept. Try again; if it stays so, log the artifact anew",
                    )
                refetched = fresh_url = True

    def _attempt(self, part: _Part, url: str) -> str:
        """Fetch what is missing of one file; its digest, base64.

        Raises:
            _Transient: Worth another attempt.
            _Refused: By the server.
            OSError: The disk's fault.
        """
        with part.open():
            if not part.complete:
                self._receive(part, url)
            if not part.complete:
                raise _Transient(f"the download was cut after {part.done} of {part.file.size} bytes")
            return part.finish()

    def _receive(self, part: _Part, url: str) -> None:
        import requests

        headers = {"Accept-Encoding": "identity"}
        if part.done:
            headers["Range"] = f"bytes={part.done}-"
        timeout = (min(10.0, self._stall), self._stall)
        try:
            with self._session().get(url, headers=headers, stream=True, timeout=timeout) as response:
                status = response.status_code
                if status == 416:
                    part.restart()
                    raise _Transient("the server had less of the file than was here")
                if status in _TRANSIENT:
                    raise _Transient(f"HTTP {status}", _retry_after(response.headers.get("Retry-After")))
                if status >= 400:
                    raise _Refused(status)
                if part.done and status != 206:
                    part.restart()
                for chunk in response.iter_content(_CHUNK):
                    part.write(chunk)
                    if time.monotonic() > self._deadline:
                        raise _Transient("the time is over")
        except requests.RequestException as error:
            raise _Transient(_network_fault(error, self._stall)) from None

    def _session(self) -> requests.Session:
        """One session per thread: connections are kept, retries are ours."""
        import requests

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session

    def _pause(
        self, failures: int, fault: _Transient, wanted: str, file: RemoteFile, tell: Callable[[str], None]
    ) -> None:
        longest = min(_LONGEST_PAUSE, self._stall)
        pause = min(0.25 * 2.0**failures, longest) * random.uniform(0.75, 1.25)  # noqa: S311
        if fault.pause is not None:
            pause = min(fault.pause, longest)
        if failures >= _ATTEMPTS or time.monotonic() + pause > self._deadline:
            raise TemporaryError(
                wanted,
                f"{file.name}: {fault}",
                "Start the job again: what has been downloaded is kept, and the rest is fetched then",
            )
        tell(f"{file.name}: {fault}")
        time.sleep(pause)


class _Part:
    """What is on disk of one file, with the digest of it, and the bytes of it that progress was told of."""

    def __init__(self, file: RemoteFile, path: str, progress: Callable[[int], None]) -> None:
        self.file = file
        self.path = path
        self.done = 0
        self._progress = progress
        self._told = 0
        self._digest = _hasher(file.algorithm)
        self._opened: IO[bytes] | None = None

    @property
    def complete(self) -> bool:
        """Whether all bytes are here; where the manifest names no size, what came is all."""
        return self.done == self.file.size if self.file.size is not None else self.done > 0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Take up what is there; bytes that nobody has counted yet are read for the digest."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "r+b") as self._opened:
            size = os.fstat(self._opened.fileno()).st_size
            if self.file.size is None or size > self.file.size or size != self.done:
                self._digest = _hasher(self.file.algorithm)
                self.done = 0
                if self.file.size is None or size > self.file.size:
                    self._opened.truncate(0)
                while chunk := self._opened.read(_CHUNK):
                    self._digest.update(chunk)
                    self.done += len(chunk)
                    self._tell()
            self._opened.seek(self.done)
            self._tell()
            yield

    def write(self, chunk: bytes) -> None:
        assert self._opened is not None
        self._opened.write(chunk)
        self._digest.update(chunk)
        self.done += len(chunk)
        self._tell()

    def restart(self) -> None:
        """Begin again at the first byte."""
        assert self._opened is not None
        self._opened.seek(0)
        self._opened.truncate(0)
        self._digest = _hasher(self.file.algorithm)
        self.done = 0
        self._tell()

    def discard(self) -> None:
        """Throw away what is there."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._digest = _hasher(self.file.algorithm)
        self.done = 0
        self._tell()

    def finish(self) -> str:
        """Have it all on disk; the digest, base64."""
        assert self._opened is not None
        self._opened.flush()
        os.fsync(self._opened.fileno())
        return base64.b64encode(self._digest.digest()).decode()

    def _tell(self) -> None:
        if self.done != self._told:
            self._progress(self.done - self._told)
            self._told = self.done


class _Refused(Exception):  # noqa: N818  (it never leaves this module)
    """The server answered with an error that waiting does not mend; a fresh URL may."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def _hasher(algorithm: str) -> Any:
    if algorithm == "md5":
        return hashlib.md5(usedforsecurity=False)
    if algorithm == "xxh128":
        with contextlib.suppress(ImportError):  # it comes with the versions of wandb that know such artifacts
            import xxhash

            return xxhash.xxh3_128()
    raise LaunchError(
        "to check a downloaded artifact",
        f"its digests are {algorithm}, which is not known here",
        "Update nemotron-exec",
    )


def _disk_error(error: OSError, wanted: str, directory: str, part: _Part) -> LaunchError:
    if is_full(error):
        return no_room(wanted, directory, max((part.file.size or 0) - part.done, 1), _free(directory))
    if error.errno in (errno.EACCES, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
        found = f"{part.path}: {os.strerror(error.errno).lower()}"
        return LaunchError(wanted, found, "Remove it, or give another directory with --cache-dir DIR")
    return TemporaryError(wanted, f"{part.path}: {error.strerror or error}", "Start the job again")


def _free(directory: str) -> int | None:
    import psutil

    try:
        return int(psutil.disk_usage(directory).free)
    except OSError:
        return None


def _retry_after(given: str | None) -> float | None:
    try:
        return max(0.0, float(given or ""))
    except ValueError:
        return None  # a date: our own pauses do as well


def _network_fault(error: Exception, stall: float) -> str:
    """What happened, without the URL: presigned ones hold a signature."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS certificate of the file server is not trusted"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "the file server did not accept a connection"
    if isinstance(error, requests.exceptions.ReadTimeout) or "Read timed out" in str(error):
        return f"the download stalled for {stall:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the download was cut"
    if "Name or service not known" in str(error) or "NameResolution" in str(error):
        return "the name of the file server is not known (DNS)"
    return "the connection to the file server failed"
