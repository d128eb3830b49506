"""Finds out whether another node sees a directory: each node's doctor puts a file there, and looks for other files.

    .doctor-<job>/come.<host>.<nonce>      a doctor is there, and looks
    .doctor-<job>/done.<host>.<nonce>      it has seen another node

No doctor removes a file that another one may still look for: the last doctor to finish removes the directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["seen_by"]

_PATIENCE = 15.0
"""Seconds for which a doctor looks for others. srun starts all of them at once, but machines may be busy."""
_STALE = 3600.0  # seconds; older files belong to an earlier start


class _Probe:
    """One doctor's file in a directory.

    Args:
        directory: An existing directory.
        job: A text that the doctors of all nodes have in common, and no other job has.
        count: The number of doctors; None if unknown.
    """

    def __init__(self, directory: str, job: str, count: int | None) -> None:
        self.directory = directory
        self._count = count
        self._host = re.sub(r"[^A-Za-z0-9_-]", "_", os.uname().nodename)[:60]
        self._nonce = secrets.token_hex(8)
        self._path = os.path.join(directory, f".doctor-{hashlib.sha256(job.encode()).hexdigest()[:16]}")
        _remove_stale(directory)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path, 0o700)
        self._come = self._name("come")
        os.close(os.open(self._come, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))

    def other(self) -> str | None:
        """The host name of another node that sees the directory; None as long as none has been seen."""
        for host, _ in self._entries():
            if host != self._host:
                return host
        return None

    def close(self) -> None:
        """Say that this doctor has finished looking, and clean up."""
        with contextlib.suppress(OSError):
            if self.other() is None:
                os.unlink(self._come)
            else:
                os.rename(self._come, self._name("done"))
            states = [state for _, state in self._entries()]
            if not states or (self._count is not None and states.count("done") >= self._count):
                _remove(self._path)

    def _name(self, state: str) -> str:
        return os.path.join(self._path, f"{state}.{self._host}.{self._nonce}")

    def _entries(self) -> Iterator[tuple[str, str]]:
        try:
            names = os.listdir(self._path)
        except OSError:
            return
        for name in names:
            state, _, rest = name.partition(".")
            yield rest.partition(".")[0], state


def seen_by(directories: Sequence[str], job: str, count: int | None, timeout: float) -> list[str | None]:
    """For each directory, another node that sees it; None where none was seen in time.

    Args:
        directories: Existing directories that can be written to.
        job: A text that the doctors of all nodes have in common, and no other job has.
        count: The number of doctors; None if unknown.
        timeout: Seconds to look at most.
    """
    until = time.monotonic() + min(_PATIENCE, timeout)
    probes: list[_Probe] = []
    try:
        probes += [_Probe(directory, job, count) for directory in dict.fromkeys(directories)]
        while True:
            found = {probe.directory: probe.other() for probe in probes}
            if None not in found.values() or time.monotonic() > until:
                return [found[directory] for directory in directories]
            time.sleep(0.1)
    finally:
        for probe in probes:
            probe.close()


def _remove_stale(directory: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if re.fullmatch(r"\.doctor-[0-9a-f]{16}", name) and time.time() - os.lstat(path).st_mtime > _STALE:
                _remove(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))
        os.rmdir(path)
