"""Downloads files over HTTP: several at once, resumed after an earlier attempt, and checked by their digests.

wandb's own download() does not check the bytes that it receives, and keeps corrupt ones in its cache (facts: wandb
0.31). So the child process fetches the bytes itself.
"""

from __future__ import annotations

import concurrent.futures
import errno
import os
import random
import threading
import time
from typing import TYPE_CHECKING

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.wandb.cache import is_full, no_room
from nemotron_exec.stores.wandb.part import Part, RemoteFile
from nemotron_exec.stores.wandb.ranges import FAST, Ranges
from nemotron_exec.stores.wandb.receive import Answer, Receiver, Refused, Transient, check_client
from nemotron_exec.stores.wandb.server import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Downloader", "RemoteFile"]

_ATTEMPTS = 6  # failed attempts in a row that brought no byte
_LONGEST_PAUSE = 20.0  # seconds


class Downloader:
    """Fetches files over a bounded number of connections, which all artifacts of a job share.

    Args:
        deadline: `time.monotonic()` after which no attempt is made.
        connections: Number of connections at the same time, for all artifacts.
        stall: Seconds without a byte after which a connection is closed. A pause between attempts is never longer.
        transport: Proxies, headers and certificates of the client's settings.
    """

    def __init__(
        self, deadline: float, *, connections: int = 16, stall: float = 30.0, transport: Transport | None = None
    ) -> None:
        check_client()
        self._deadline = deadline
        self._stall = stall
        self._receiver = Receiver(stall, transport or Transport())
        self._pool = concurrent.futures.ThreadPoolExecutor(connections, thread_name_prefix="download")
        self._ranges = Ranges(self._receiver, threading.BoundedSemaphore(connections))

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
        """Fetch all `files` into `directory`, which may hold parts of them already.

        Args:
            files: The files to fetch.
            directory: A private directory of the launcher.
            wanted: First part of every error.
            url: Returns the URL of a file. Its second argument asks for a fresh one.
            progress: Called with the number of new bytes on disk; negative for bytes that were thrown away.
            tell: Called with each fault after which a file is tried again. The number of faults without a byte between
                is bounded.

        Raises:
            TemporaryError: All attempts failed at server or network, the disk is full, or the bytes stay wrong.
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
        """The content of one small file, fetched with the same attempts and the same check."""
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
        part = Part(file, os.path.join(directory, file.name), progress)
        try:
            self._bring(part, wanted, directory, url, tell)
        finally:
            part.close()

    def _bring(
        self,
        part: Part,
        wanted: str,
        directory: str,
        url: Callable[[str, bool], str],
        tell: Callable[[str], None],
    ) -> None:
        file, lanes = part.file, self._ranges.most
        failures, fresh_url, refetched = 0, False, False
        while True:
            before = part.done
            try:
                digest = self._attempt(part, url(file.name, fresh_url), lanes)
            except Refused as refusal:
                if fresh_url:
                    raise LaunchError(
                        wanted,
                        f"the server refused {file.name} (HTTP {refusal.status})",
                        "Check that the files of this version still exist in W&B and that the key may read them",
                    ) from None
                fresh_url = True
            except Transient as fault:
                failures = 1 if part.done > before else failures + 1
                if fault.busy:
                    lanes = max(1, lanes // 2)
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

    def _attempt(self, part: Part, url: str, lanes: int) -> str:
        """Fetch the missing bytes of one file. Return its digest, base64.

        Raises:
            Transient: Another attempt may succeed.
            Refused: The server refuses the file.
            OSError: The disk has failed.
        """
        with part.open():
            if not part.complete:
                self._receive(part, url, lanes)
            if not part.complete:
                raise Transient(f"the download was cut after {part.done} of {part.file.size} bytes")
            return part.finish()

    def _receive(self, part: Part, url: str, lanes: int) -> None:
        asked = f"{part.done}-" if part.done else None
        wide = self._ranges.worth(part, lanes)
        if wide:
            asked = self._ranges.first(part)

        began, before = time.monotonic(), part.done

        def begin(answer: Answer) -> None:
            nonlocal began
            began = time.monotonic()
            if answer.status == 416:
                part.restart()
                raise Transient("the server had less of the file than was here")
            if part.done and answer.status != 206:
                part.restart()

        def take(piece: bytes) -> None:
            part.write(piece)
            if time.monotonic() > self._deadline:
                raise Transient("the time limit (--timeout) has passed")

        with self._ranges.connections:
            self._receiver.get(url, asked, begin, take)
        if not wide or part.complete:
            return
        # The server knows ranges. If one connection is slow, fetch all further ranges at the same time.
        if (part.done - before) / (time.monotonic() - began) >= FAST:
            with self._ranges.connections:
                self._receiver.get(url, f"{part.done}-", begin, take)
        else:
            self._ranges.receive(part, url, lanes, take)

    def _pause(
        self, failures: int, fault: Transient, wanted: str, file: RemoteFile, tell: Callable[[str], None]
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


def _disk_error(error: OSError, wanted: str, directory: str, part: Part) -> LaunchError:
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
