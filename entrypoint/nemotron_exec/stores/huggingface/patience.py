"""Repeats requests: how often and how long depends on the hub's answers, for all requests of this process together."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.huggingface.faults import FullError, Later, Unreachable, classify, is_full

if TYPE_CHECKING:
    from collections.abc import Callable

    from nemotron_exec.stores.huggingface.faults import Subject

__all__ = ["Patience", "UnknownError", "UnreachableError", "XetError"]

_STEP = 0.5  # seconds
_SLEEPS = re.compile(r"Waiting ([\d.]+)s before retry")
_LOCKED = re.compile(r"[Ss]till waiting to acquire lock on (.+?)(?: \(elapsed.*)?\Z")


class UnreachableError(Exception):
    """The hub did not answer any attempt."""


class UnknownError(Exception):
    """The hub does not know the repository or the revision, or does not show it."""


class XetError(Exception):
    """Xet storage has failed or sent nothing. The hub has the same files over plain HTTP."""


class Patience:
    """Bounds the attempts of every request. A rate limit counts for all requests.

    Args:
        deadline: `time.monotonic()` after which no attempt is made.
        tell: Called once with each reason for a new attempt.

    Attributes:
        lock: The lock file for which huggingface_hub waits or has waited last; None for none.
    """

    def __init__(self, deadline: float, tell: Callable[[str], None]) -> None:
        self._deadline = deadline
        self._tell = tell
        self._until = 0.0
        self._why = ""
        self.lock: str | None = None

    @property
    def waiting(self) -> str | None:
        """The reason why all requests wait, for messages; None while they do not."""
        left = self._until - time.monotonic()
        return f"{self._why}: {left:.0f} s more" if left > 0 else None

    def listen(self) -> None:
        """Show the waits that huggingface_hub makes by itself: for a rate limit (from 1.2 on), and for a lock."""
        logging.getLogger("huggingface_hub").addHandler(_Sleeps(self._hold, self._wait_for))
        logging.getLogger("huggingface_hub.utils._fixes").setLevel(logging.INFO)

    def _wait_for(self, lock: str) -> None:
        self.lock = lock
        self._tell(f"another program downloads to the same place, or has left its lock behind: waiting for {lock}")

    def call(
        self, function: Callable[[], Any], subject: Subject, tries: int, arrived: Callable[[], int] = lambda: 0
    ) -> Any:
        """Call the function until it succeeds, and return its result. Attempts and waits are bounded.

        Args:
            function: The function, which makes requests through huggingface_hub.
            subject: The repository of its requests.
            tries: How many attempts in a row may bring no bytes.
            arrived: Returns the bytes that have arrived. If they have grown, a failed attempt counts as the first.

        Raises:
            FullError: The cache has no room.
            LaunchError: The request can never succeed.
            TemporaryError: The request may succeed later.
            UnknownError: There is no such repository or revision.
            UnreachableError: The hub did not answer any attempt.
            XetError: The function has raised it.
        """
        failed = 0
        while True:
            while (left := self._until - time.monotonic()) > 0:
                time.sleep(min(left, _STEP))
            before = arrived()
            try:
                return function()
            except (LaunchError, XetError):
                raise
            except Exception as error:  # noqa: BLE001  (_answer classifies it)
                answer = _answer(error, subject)
            failed = 0 if arrived() > before else failed + 1
            if isinstance(answer, Unreachable) and failed >= tries:
                raise UnreachableError(answer.found)
            self._pause(answer, failed, tries, subject)

    def _pause(self, answer: Later | Unreachable, failed: int, tries: int, subject: Subject) -> None:
        told = answer.pause if isinstance(answer, Later) else None
        limited = isinstance(answer, Later) and answer.limited
        pause = min(0.5 * 2.0**failed, 15.0) if told is None else told
        remedy = f"Start the job again when {subject.host} is well, or give it longer with --timeout"
        if time.monotonic() + pause > self._deadline:
            asks = f", and asks to wait {told:.0f} s, longer than the time that is left" if told is not None else ""
            raise TemporaryError(subject.wanted, answer.found + asks, remedy)
        if failed >= tries and not limited:
            raise TemporaryError(subject.wanted, answer.found, remedy)
        if limited:
            self._hold(pause, answer.found)
        else:
            self._tell(f"{answer.found}: trying again")
            time.sleep(pause)

    def _hold(self, seconds: float, why: str) -> None:
        self._tell(f"{why}: waiting {seconds:.0f} s, as it asks")
        self._until, self._why = max(self._until, time.monotonic() + seconds), why


class _Sleeps(logging.Handler):
    def __init__(self, hold: Callable[[float, str], None], wait_for: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._hold = hold
        self._wait_for = wait_for

    def emit(self, record: logging.LogRecord) -> None:
        if found := _SLEEPS.search(record.getMessage()):
            self._hold(float(found.group(1)), "the Hugging Face hub limits requests")
        elif found := _LOCKED.search(record.getMessage()):
            self._wait_for(found.group(1))


def _answer(error: BaseException, subject: Subject) -> Later | Unreachable:
    if is_full(error):
        raise FullError from None
    answer = classify(error, subject)
    if isinstance(answer, LaunchError):
        raise answer from None
    if answer is None:
        raise UnknownError from None
    return answer
