"""Hands the answer on within one node: one launcher reads the shared directory, and its siblings read the copy.

Without it eight launchers on each of a thousand nodes would send the requests of eight thousand to one metadata server.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time

from nemotron_exec.errors import LaunchError
from nemotron_exec.rendezvous import retention
from nemotron_exec.rendezvous.answer import Answer
from nemotron_exec.shared_directory import files

__all__ = ["Relay"]


class Relay:
    """The node-local copy of one meeting's answers.

    Args:
        base: A directory of this node that its launchers share (TMPDIR).
        meeting: The shared directory whose answers are handed on.
        job: Identity of the job.
        key: Digest of the question.
    """

    def __init__(self, base: str, meeting: str, job: str, key: str) -> None:
        self._base = base
        self._name = hashlib.sha256(meeting.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._meeting, self._job, self._key = meeting, job, key
        self._directory: str | None = None
        self._owner = -1

    def open(self) -> bool:
        """Create the directory. False where that fails, and each launcher must read the shared directory."""
        path = os.path.join(self._base, f"nemotron-exec-{os.geteuid()}")
        try:
            for part in (path, os.path.join(path, "relay")):
                self._owner = files.make_directory(part, wanted="to hand on the answer within this node", remedy="")
        except LaunchError:
            return False
        self._directory = os.path.join(path, "relay")
        return True

    def read(self, number: int) -> Answer | None:
        """The answer of round `number`, if a sibling has written it."""
        if self._directory is None:
            return None
        try:
            data = files.read(self._path(number), owner=self._owner)
            if data is None:
                return None
            found = Answer.from_bytes(data, job=self._job, key=self._key, number=number)
        except files.UnusableFileError:
            return None
        if found.files is not None and not os.path.isdir(os.path.join(self._meeting, found.files)):
            return None
        return found

    def write(self, answer: Answer) -> None:
        """Write the answer for the siblings. If it fails, they find the answer in the shared directory, only later."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                files.replace(self._path(answer.round), answer.to_bytes(), durable=False)
                self._forget_old(self._directory)

    def _forget_old(self, directory: str) -> None:
        # Removing the copy of a living job does no harm: its launchers read the shared directory then.
        before = time.time() - retention.AGE
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                if os.lstat(path).st_mtime < before:
                    os.unlink(path)

    def _path(self, number: int) -> str:
        return os.path.join(self._directory or "", f"{self._name}.{number}.json")
