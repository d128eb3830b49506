"""The turn of one process as leader: from the lease to the published answer."""

from __future__ import annotations

import contextlib
import json
import os
import time

from nemotron_exec.errors import LaunchError
from nemotron_exec.rendezvous import polling, rounds
from nemotron_exec.rendezvous.answer import Agreement
from nemotron_exec.rendezvous.others import find_difference
from nemotron_exec.rendezvous.publishing import adopt, answer_of, discard, hold_exit_code, lead_of, publish, sweep
from nemotron_exec.rendezvous.watchdog import Abandoned, Watchdog
from nemotron_exec.shared_directory import files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.rendezvous.answer import Lead
    from nemotron_exec.rendezvous.meeting import Meeting
    from nemotron_exec.shared_directory.lease import Lease

__all__ = ["Leading"]


class _Superseded(BaseException):
    """Another launcher has taken the lease. It is no Exception, so that `produce` cannot swallow it."""


class _Different(BaseException):
    """Launchers of this step ask another question. It is no Exception, so that `produce` cannot swallow it."""

    def __init__(self, error: LaunchError) -> None:
        super().__init__()
        self.error = error


class Leading:
    """The turn of a launcher that has just taken the lease.

    Args:
        meeting: The meeting that it leads.
        lease: The lease that it holds.
        budget: Seconds that are left of `--timeout`.
        stall: The value of `--stall`, seconds.
    """

    def __init__(self, meeting: Meeting, lease: Lease, budget: float, stall: float) -> None:
        self._meeting, self._lease = meeting, lease
        self._began = time.monotonic()
        self._told = -1e9
        self._what = ""
        self._watchdog = Watchdog(
            meeting.name,
            budget=budget,
            stall=stall,
            patience=meeting.timing.abandon,
            condemn=self._condemn,
            messages=meeting.messages,
        )

    def run(self, produce: Callable[[Lead], Mapping[str, object]]) -> Agreement | None:
        """Resolve and publish.

        Returns:
            The agreement; None if the lease was lost before there was an answer.
        """
        meeting = self._meeting
        if (found := meeting.look()) is not None:
            return adopt(meeting, found, late=False)
        lead = lead_of(meeting, self._report)
        kept = False
        try:
            self._report("starting", 0, None)
            with self._watchdog:
                content = produce(lead)
            self._gather()
            if publish(meeting, answer_of(meeting, content, lead=lead), durable=meeting.state.shared):
                kept = True
                sweep(meeting, keep=lead.name)
                return Agreement(content, True, False, meeting.name, lead.directory if lead.used else None)
            return adopt(meeting, meeting.settled(), late=False)
        except _Different as different:
            return self._fail(different.error)
        except _Superseded:
            meeting.messages.debug("the lease was lost to another launcher: this one waits again")
            return None
        except Abandoned:
            if (found := meeting.look()) is not None:
                self._stay_for_the_others()
                return adopt(meeting, found, late=False)
            assert self._watchdog.error is not None
            raise self._watchdog.error from None
        except LaunchError as error:
            return self._fail(error)
        except Exception as error:  # noqa: BLE001  the other launchers must not wait for a leader with a bug
            return self._fail(
                LaunchError(
                    "to resolve this job's artifacts",
                    f"{type(error).__name__}: {error}",
                    "This is a bug of nemotron-exec: please report it with the output of -v",
                ),
                error,
            )
        finally:
            if not kept:
                discard(meeting, lead)

    def _fail(self, error: LaunchError, cause: Exception | None = None) -> Agreement | None:
        meeting = self._meeting
        found = meeting.look()
        action = rounds.after_failure(answered=found is not None, held=self._lease.held)
        if found is not None:
            return adopt(meeting, found, late=False)
        if action is rounds.Action.WAIT:
            return None
        if not publish(meeting, answer_of(meeting, failure=error), durable=False):
            return adopt(meeting, meeting.settled(), late=False)
        hold_exit_code()
        sweep(meeting, keep=None)
        self._stay_for_the_others()
        raise error from cause

    def _gather(self) -> None:
        """Wait a moment for launchers that are about to come. If one asks another question, no job should start."""
        meeting = self._meeting
        count = meeting.me.place.count
        pause = polling.interval(0.0, count, 1.0)
        until = self._began + meeting.timing.gather
        while time.monotonic() < until and not rounds.all_have_come(meeting.entries(), meeting.round, count):
            time.sleep(pause)
            self._refuse_differences()
        self._refuse_differences()

    def _refuse_differences(self) -> None:
        if (error := find_difference(self._meeting)) is not None:
            raise _Different(error)

    def _stay_for_the_others(self) -> None:
        """Wait until every waiter has seen the answer: the first launcher that ends may have all others terminated."""
        hold_exit_code()
        place, waited = self._meeting.me.place, self._watchdog.spent
        stay = polling.interval(waited, place.nodes or place.count, 1.0)
        if self._meeting.relay is not None:
            stay += polling.interval(waited, place.local_count, 1.0)
        time.sleep(stay)

    def _condemn(self, error: LaunchError) -> LaunchError | None:
        # This runs in the watchdog's thread. The error of a leader that has lost its lease is not the job's error.
        if not self._lease.held:
            return None
        try:
            publish(self._meeting, answer_of(self._meeting, failure=error), durable=False)
        except LaunchError as failed:
            return failed
        return error

    def close(self) -> None:
        """Release the lease, and remove the file with this leader's progress."""
        path = os.path.join(self._meeting.path, "progress.json")
        held = self._lease.held
        with contextlib.suppress(OSError):
            self._lease.release()
        # A leader that is stopped in the middle of its report writes the file after its successor has tidied up.
        with contextlib.suppress(OSError, files.UnusableFileError, ValueError, TypeError, KeyError, RecursionError):
            if held or json.loads(files.read(path, limit=1 << 16) or b"")["leader"] == self._meeting.name:
                os.unlink(path)

    def _report(self, what: str, done: int, total: int | None) -> None:
        self._watchdog.progress(what)
        now = time.monotonic()
        if now - self._told < self._meeting.timing.progress and what == self._what:
            return
        if not self._lease.held:
            raise _Superseded
        self._told, self._what = now, what
        self._refuse_differences()
        body = {
            "leader": self._meeting.name,
            "what": what,
            "done": done,
            "total": total,
            "seconds": round(self._watchdog.spent, 1),
        }
        # The progress file is only for people, so a full disk must not stop the job here.
        with contextlib.suppress(OSError):
            files.replace(os.path.join(self._meeting.path, "progress.json"), json.dumps(body).encode(), durable=False)
