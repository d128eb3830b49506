"""Ends a leader that hangs. Otherwise its heartbeat would keep the lease, and no launcher could take over."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time

from nemotron_exec.errors import LaunchError, TemporaryError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from nemotron_exec.message import Messages

__all__ = ["Abandoned", "Watchdog", "verdict"]


class Abandoned(BaseException):
    """The watchdog has ended this turn; its `error` says why. It is no Exception, so `produce` cannot swallow it."""


def verdict(
    name: str, what: str, *, since_progress: float, spent: float, stall: float, budget: float
) -> LaunchError | None:
    """The error with which a leader must stop; None while it may go on.

    Args:
        name: The leader, for people.
        what: The leader's work.
        since_progress: Seconds since the leader last reported progress.
        spent: Seconds since the leader began.
        stall: `--stall`, seconds; 0 is no bound.
        budget: Seconds that are left of `--timeout`.
    """
    if since_progress >= stall > 0:
        return TemporaryError(
            f"progress from {name} within {stall:g} s (--stall)",
            f"none while it was busy with {what}",
            "Check the network and the store that it reads from, or give more time with --stall S",
        )
    if spent >= budget:
        return TemporaryError(
            "to resolve this job's artifacts in the time given (--timeout)",
            f"{name} was still busy with {what}",
            "Give more time with --timeout S",
        )
    return None


class Watchdog:
    """A second thread that watches the clock while `with watchdog:` runs, and raises `Abandoned` in the first thread.

    It uses `_thread`: importing `threading` would cost a start more than all the work here.

    Args:
        name: The leader, for people.
        budget: Seconds for the whole turn.
        stall: Seconds without `progress`; 0 is no bound.
        patience: Seconds that the main thread may take to unwind before the process ends.
        condemn: Called in the second thread with the reason. It returns the error to end with, which may be another one
            if publishing has failed. With None the leader goes on for now.
        messages: For the error of a process that no signal reaches.
    """

    def __init__(
        self,
        name: str,
        *,
        budget: float,
        stall: float,
        patience: float,
        condemn: Callable[[LaunchError], LaunchError | None],
        messages: Messages,
    ) -> None:
        self._name, self._budget, self._stall, self._patience = name, budget, stall, patience
        self._condemn, self._messages = condemn, messages
        self._since_progress = 0.0
        self._what = "starting"
        self._over = False
        self._done = _thread.allocate_lock()  # held while the watchdog watches
        self._second = 0
        self._watched = _thread.get_ident()
        self._catches = False
        self._previous: Any = None
        self.spent = 0.0
        self.error: LaunchError | None = None

    def progress(self, what: str) -> None:
        """Note that the leader has made progress, and does `what` now."""
        self._since_progress = 0.0
        self._what = what

    def __enter__(self) -> None:
        try:
            self._previous = signal.signal(signal.SIGALRM, self._interrupted)
            self._catches = True
        except ValueError:  # only the main thread can handle signals
            self._catches = False
        self._done.acquire()
        started = _thread.allocate_lock()
        started.acquire()
        try:
            _thread.start_new_thread(self._watch, (started,))
        except RuntimeError:  # the limit of processes is reached: go on without a watchdog
            return
        started.acquire()

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._done.release()
        # Wait for the second thread to end: its signal would end the process once the handler is gone.
        while self._second and os.path.exists(f"/proc/self/task/{self._second}"):
            time.sleep(0.0001)
        if self._catches:
            signal.signal(signal.SIGALRM, self._previous)

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        if self.error is not None and not self._over:
            raise Abandoned

    def _watch(self, started: _thread.LockType) -> None:
        self._second = _thread.get_native_id()
        started.release()
        step = min(0.5, self._stall / 4 or 0.5, max(self._budget, 0.05))
        while not self._done.acquire(timeout=step):
            # Count loop steps, not clock seconds: after SIGSTOP and SIGCONT the clock has jumped although the leader
            # did not stall.
            self.spent += step
            self._since_progress += step
            error = verdict(
                self._name,
                self._what,
                since_progress=self._since_progress,
                spent=self.spent,
                stall=self._stall,
                budget=self._budget,
            )
            if error is not None and (condemned := self._condemn(error)) is not None:
                self.error = condemned
                self._interrupt(condemned)
                return

    def _interrupt(self, error: LaunchError) -> None:
        if self._catches:
            signal.pthread_kill(self._watched, signal.SIGALRM)
        if not self._done.acquire(timeout=self._patience):
            # The leader is stuck where no signal reaches it (a dead NFS server). The job has its answer, so end this
            # process.
            self._messages.error(str(error), exit_code=error.exit_code)
            sys.stderr.flush()
            os._exit(error.exit_code)
