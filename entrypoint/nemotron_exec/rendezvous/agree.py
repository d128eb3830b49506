"""Gets the job's one answer: resolves it, or waits for it. This module owns the deadline and every sleep.

meeting.py reads and changes the directory, rounds.py decides, leading.py does the work of the leader.
"""

from __future__ import annotations

import contextlib
import os
import time

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.frozen import replace
from nemotron_exec.rendezvous import polling, rounds
from nemotron_exec.rendezvous.answer import Agreement
from nemotron_exec.rendezvous.meeting import Meeting
from nemotron_exec.rendezvous.publishing import adopt, answer_of, clean, discard, lead_of, publish, sweep
from nemotron_exec.rendezvous.rounds import Action
from nemotron_exec.rendezvous.timing import Timing
from nemotron_exec.rendezvous.watchdog import Abandoned, Watchdog

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.message import Messages
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.place.state_directory import StateDirectory
    from nemotron_exec.rendezvous.answer import Answer, Lead
    from nemotron_exec.rendezvous.question import Question
    from nemotron_exec.shared_directory.lease import Lease

__all__ = ["agree"]

_REMEDY = (
    "Give a directory on a file system that every node mounts with --state-dir DIR, or use --rendezvous c10d, which "
    "needs none"
)


def agree(
    place: Place,
    job: JobIdentity,
    state: StateDirectory,
    *,
    question: Question,
    produce: Callable[[Lead], Mapping[str, object]],
    timeout: float,
    stall: float,
    refresh: bool,
    messages: Messages,
    timing: Timing | None = None,
) -> Agreement:
    """Get the job's one answer: produce it, or wait for it.

    Args:
        place: This launcher.
        job: The job to which the answer belongs.
        state: The directory in which the launchers meet.
        question: The question to resolve, without anything that differs between nodes.
        produce: Resolves and returns a JSON object. It runs in the main thread of the leading process. A BaseException
            may end it early, and its directory is then removed.
        timeout: Give up resolving, and waiting for it, after this many seconds.
        stall: Seconds for which the leader may show no progress; 0 is no bound.
        refresh: Do not reuse an answer from an earlier start of the same job.
        messages: For progress lines and warnings.
        timing: Constants of the protocol.

    Raises:
        LaunchError: The leader failed, here or in another process. The error has the leader's exit code.
        TemporaryError: The time is over, or the other nodes do not see the directory.
    """
    if place.several_nodes and not job.shared:
        raise LaunchError(
            "an identity of this job that is the same on all nodes",
            f"only {job.source}, which other nodes do not have in common",
            "Give one with --job-id ID or NEMOTRON_EXEC_JOB_ID, the same on every node and new for every job",
        )
    if place.index != 0 and (place.count or 1) > 1:
        time.sleep(polling.arrival_delay(place.count, _chance()))
    meeting = Meeting(place, job, state, question, refresh=refresh, messages=messages, timing=timing or Timing())
    if place.single:
        return _alone(meeting, produce, timeout, stall)
    return _together(meeting, produce, timeout, stall)


def _alone(
    meeting: Meeting, produce: Callable[[Lead], Mapping[str, object]], timeout: float, stall: float
) -> Agreement:
    """The job has one launcher: reuse the answer from an earlier start, or make an answer for the next start."""
    if (found := meeting.arrive()) is not None:
        return adopt(meeting, found, late=True)
    watchdog = Watchdog(
        meeting.name,
        budget=timeout,
        stall=stall,
        patience=meeting.timing.abandon,
        condemn=lambda error: error,
        messages=meeting.messages,
    )
    lead = lead_of(meeting, lambda what, _done, _total: watchdog.progress(what))
    try:
        with watchdog:
            content = produce(lead)
        if publish(meeting, answer_of(meeting, content, lead=lead), durable=meeting.state.shared):
            clean(meeting)
            return Agreement(content, True, False, meeting.name, lead.directory if lead.used else None)
    except Abandoned:
        discard(meeting, lead)
        assert watchdog.error is not None
        raise watchdog.error from None
    except BaseException:
        discard(meeting, lead)
        raise
    # Another launcher has published, too, in the belief to be alone (`--standalone` on every node of one Slurm job).
    discard(meeting, lead)
    return adopt(meeting, meeting.settled(), late=False)


def _together(
    meeting: Meeting, produce: Callable[[Lead], Mapping[str, object]], timeout: float, stall: float
) -> Agreement:
    """Lead, or wait for the launcher that does."""
    found = meeting.arrive()
    # A launcher that may lead at once checks for hard links before it resolves. Ten thousand waiters need no check.
    if meeting.me.may_lead_at_once:
        meeting.check_links()
    _open_relay(meeting)
    if found is not None:
        sweep(meeting, keep=found.files)
        return adopt(meeting, found, late=True)
    from nemotron_exec.shared_directory.lease import Lease

    timing = meeting.timing
    lease = Lease(os.path.join(meeting.path, "lease"), meeting.now, duration=timing.lease, heartbeat=timing.heartbeat)
    wait = _Wait(meeting, lease, produce, timeout, stall)
    try:
        return wait.run()
    except Exception:
        raise
    except BaseException:
        # A signal ends this launcher. Another launcher may have ended with the job's error: then report the same error.
        wait.fail_if_the_job_has()
        raise
    finally:
        # Release the lease whatever signal has arrived, and at whatever point.
        with contextlib.suppress(OSError):
            lease.release()


class _Wait:
    """The loop of a waiting launcher, which leads if no other launcher does."""

    def __init__(
        self,
        meeting: Meeting,
        lease: Lease,
        produce: Callable[[Lead], Mapping[str, object]],
        timeout: float,
        stall: float,
    ) -> None:
        from nemotron_exec.rendezvous.waiting import Waiting

        place, timing = meeting.me.place, meeting.timing
        self._meeting, self._lease, self._produce = meeting, lease, produce
        self._timeout, self._stall = timeout, stall
        self._began = self._next_attempt = time.monotonic()
        self._waiting = Waiting(meeting, lease, self._began)
        at_once = meeting.me.may_lead_at_once
        # A leader that resolves until the last second must publish its error before the others give up.
        grace = 0.0 if at_once else timing.lease + timing.retry
        self._unshared = min(timing.unshared, timeout)
        self._bounds = rounds.Bounds(self._began + self._unshared, self._began + timeout + grace)
        if not at_once:
            self._next_attempt += polling.first_attempt(timing.head_start, timing.retry, place.count, _chance())
        self._shared = not place.several_nodes or at_once
        self._listens = meeting.relay is not None and place.local_index != 0

    def run(self) -> Agreement:
        """Wait or lead until there is an answer, or until there cannot be one.

        Raises:
            LaunchError: The answer is an error, or there will be no answer.
        """
        view = self._view()
        while True:
            action = rounds.decide(view, self._bounds)
            if view.answer is not None:
                return adopt(self._meeting, view.answer, late=False)
            if action is Action.LOOK_CLOSELY:
                view = self._look_closely(view)
            elif action is Action.TAKE_LEASE:
                if (agreement := self._lead(view.now)) is not None:
                    return agreement
                view = replace(view, attempt_due=False)
            elif action is Action.WAIT:
                self._waiting.tell(view.now)
                self._pause(view.now)
                view = self._view()
            else:
                raise self._given_up(action)

    def fail_if_the_job_has(self) -> None:
        """Look once more for the job's error before a signal ends this launcher.

        Raises:
            LaunchError: The answer is an error.
        """
        found = None
        with contextlib.suppress(LaunchError):
            found = self._meeting.peek()
        if found is not None and found.failure is not None:
            adopt(self._meeting, found, late=False)

    def _view(self) -> rounds.View:
        answer = self._handed_on() if self._listens else self._meeting.look()
        now = time.monotonic()
        return rounds.View(now, answer, now >= self._next_attempt, closely=False, shared=self._shared)

    def _look_closely(self, view: rounds.View) -> rounds.View:
        meeting, place = self._meeting, self._meeting.me.place
        pause = polling.attempt_interval(meeting.timing.retry, place.count, _chance())
        self._next_attempt = view.now + pause * (2 if self._listens else 1)
        meeting.refresh_view()
        self._shared = self._shared or self._sees_another_node()
        return replace(view, answer=meeting.look(), closely=True, shared=self._shared)

    def _sees_another_node(self) -> bool:
        from nemotron_exec.rendezvous.others import sees_another_node

        holder = self._lease.holder()
        # First look at the holder of the lease: the list of launchers may have ten thousand names.
        if (holder is not None and holder.host != os.uname().nodename) or sees_another_node(self._meeting):
            self._meeting.messages.debug("another node is here: the directory is shared")
            return True
        return False

    def _lead(self, now: float) -> Agreement | None:
        """Try to take the lease, and lead. Return None if another launcher holds the lease, or has taken it over."""
        from nemotron_exec.rendezvous.leading import Leading

        if not self._lease.acquire():
            if self._meeting.messages.verbose:
                self._waiting.note_holder()
            return None
        self._meeting.messages.debug(f"took the lease: {self._meeting.name} leads round {self._meeting.round}")
        self._meeting.check_links()
        budget = self._began + self._timeout - now
        with contextlib.closing(Leading(self._meeting, self._lease, budget, self._stall)) as leading:
            if (agreement := leading.run(self._produce)) is not None:
                return agreement
        # Leave the lead to the launcher that took it.
        self._next_attempt = time.monotonic() + self._meeting.timing.retry
        return None

    def _handed_on(self) -> Answer | None:
        return None if self._meeting.relay is None else self._meeting.relay.read(self._meeting.round)

    def _pause(self, now: float) -> None:
        place = self._meeting.me.place
        waiters = place.local_count if self._listens else place.nodes or place.count
        pause = polling.interval(now - self._began, waiters, _chance())
        time.sleep(max(0.0, min(pause, self._bounds.deadline - now, max(self._next_attempt - now, 0.001))))

    def _given_up(self, action: Action) -> LaunchError:
        path = self._meeting.path
        if action is Action.NOT_SHARED:
            return TemporaryError(
                f"to find the other nodes of this job in {path}",
                f"no file of another node after {self._unshared:g} s: the directory is not shared, or no other node "
                "has started",
                _REMEDY,
            )
        return TemporaryError(
            f"the answer of this job's leader within {self._timeout:g} s (--timeout)",
            f"none in {path}; {self._waiting.describe()}",
            "Look at the leader's output for the cause, or give more time with --timeout S",
        )


def _open_relay(meeting: Meeting) -> None:
    place, local = meeting.me.place, meeting.state.local
    if place.several_nodes and place.local_index is not None and (place.local_count or 1) > 1 and local:
        from nemotron_exec.rendezvous.relay import Relay

        relay = Relay(local, meeting.path, meeting.job.id, meeting.key)
        if relay.open():
            meeting.relay = relay


def _chance() -> float:
    import random

    return random.random()  # noqa: S311
