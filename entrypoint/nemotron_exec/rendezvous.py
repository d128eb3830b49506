"""Step 3, resolve: one launcher of the job resolves, and all others get its answer or its error.

The launchers of a job that ask the same question meet in one directory (`jobs/<job>/<key>`):

    nodes/<round>.<node>.<index>.<machine>.<pid>.<nonce>    who has come, in the names; empty files
    lease                                                    who leads now (lease.py)
    progress.json                                            what the leader is doing
    files.<round>.<nonce>/                                   resolved configs that a leader is writing
    answer.<round>.json                                      published once, by link(2)

docs/coordination.md states the protocol's promises and what they rest on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time

from nemotron_exec import answer as answers
from nemotron_exec import polling, private, retention
from nemotron_exec.answer import Answer, Failure
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.frozen import dataclass
from nemotron_exec.relay import Relay
from nemotron_exec.timing import Timing

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from typing import Any

    from nemotron_exec.job import JobIdentity
    from nemotron_exec.lease import Holder, Lease
    from nemotron_exec.message import Messages
    from nemotron_exec.rank import Place
    from nemotron_exec.state import StateDirectory

__all__ = ["Agreement", "Lead", "agree"]

_REMEDY = (
    "Give a directory on a file system that every node mounts with --state-dir DIR, or use --rendezvous c10d, which "
    "needs none"
)
_LATE_ID = 12 * 3600.0
"""Seconds after which a Slurm job id of a Slurm that does not tell start times may be another job's."""
_ENTRY = re.compile(r"(\d+)\.(\d+|-)\.(\d+|-)\.([A-Za-z0-9_-]*)\.(\d+)\.([0-9a-f]+)\Z")


@dataclass(frozen=True)
class Agreement:
    """What the launchers of the job agree on.

    Attributes:
        answer: What `produce` returned, here or in the leader's process.
        led: Whether this process resolved.
        reused: Whether it was there already: a restart of the job, or a launcher that came late.
        leader: Who resolved, for people.
        directory: Where the leader has written the resolved configs; None if it wrote none.
    """

    answer: Mapping[str, Any]
    led: bool
    reused: bool
    leader: str
    directory: str | None


class Lead:
    """What the leader's `produce` is given: a directory of its own, and somebody to tell about progress."""

    def __init__(self, directory: str, report: Callable[[str, int, int | None], None], *, made: bool = False) -> None:
        self._directory = directory
        self._report = report
        self.used = made

    @property
    def directory(self) -> str:
        """A private directory beside the answer, for files that the answer names. Made when first asked for."""
        if not self.used:
            os.mkdir(self._directory, 0o700)
            self.used = True
        return self._directory

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Report that `done` of `total` bytes of `what` are here (stores.Progress)."""
        self._report(what, done, total)


def agree(
    place: Place,
    job: JobIdentity,
    state: StateDirectory,
    *,
    key: str,
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
        job: Whose answer it is.
        state: The directory in which the launchers meet.
        key: Digest of the question: config bytes, overrides and options, without anything that is a node's own.
        produce: Resolves and returns a JSON object. Runs in the main thread of the process that leads; it may be cut
            short by an exception that is not an Exception, and its directory is then removed.
        timeout: Bound on resolving and on waiting, seconds.
        stall: Bound on the leader's silence, seconds.
        refresh: Do not reuse the answer of an earlier start of the same job.
        messages: For progress lines and warnings.
        timing: Constants of the protocol, for tests.

    Raises:
        LaunchError: The leader's error, here or there, with its exit code.
        TemporaryError: Time-out, or a directory that the other nodes do not see.
    """
    if place.several_nodes and not job.shared:
        raise LaunchError(
            "an identity of this job that is the same on all nodes",
            f"only {job.source}, which other nodes do not have in common",
            "Give one with --job-id ID or NEMOTRON_EXEC_JOB_ID, the same on every node and new for every job",
        )
    if place.index != 0 and (place.count or 1) > 1:
        import random

        time.sleep(polling.arrival_delay(place.count, random.random()))  # noqa: S311
    meeting = _Meeting(place, job, state, key, refresh, messages, timing or Timing())
    if place.single:
        return meeting.alone(produce)
    return meeting.together(produce, timeout, stall)


class _Superseded(BaseException):
    """The lease is somebody else's by now. Not an Exception: nothing in `produce` may swallow it."""


class _Abandoned(BaseException):
    """The watchdog has published an error in our name."""


class _Meeting:
    """One launcher's view of the directory in which the job's launchers meet."""

    def __init__(
        self,
        place: Place,
        job: JobIdentity,
        state: StateDirectory,
        key: str,
        refresh: bool,
        messages: Messages,
        timing: Timing,
    ) -> None:
        self.place, self.job, self.key, self.refresh = place, job, key, refresh
        self.messages, self.timing = messages, timing
        self.state, self.durable = state, state.shared
        wanted = f"to meet the other launchers of this job in {state.path}"
        self.owner = state.owner
        path = state.path
        for name in ("jobs", job.directory, key):
            path = os.path.join(path, name)
            private.make_directory(
                path, wanted=wanted, remedy="Remove it, or give another directory with --state-dir DIR"
            )
        self.path = path
        self.nodes = os.path.join(path, "nodes")
        private.make_directory(
            self.nodes, wanted=wanted, remedy="Remove it, or give another directory with --state-dir DIR"
        )
        self.machine = re.sub(r"[^A-Za-z0-9_-]", "_", os.uname().nodename)[:60]
        self.name = (
            f"launcher {'?' if place.index is None else place.index} on {os.uname().nodename} (pid {os.getpid()})"
        )
        self.nonce = os.urandom(8).hex()
        self.began = time.monotonic()
        self._offset: float | None = None
        self._linked = False
        self.relay: Relay | None = None
        self.round = 0
        self.entry = ""

    # -- one launcher -----------------------------------------------------------------------------------------------

    def alone(self, produce: Callable[[Lead], Mapping[str, object]]) -> Agreement:
        """Nobody to agree with: reuse the answer of an earlier start of this job, or make one for the next."""
        if (found := self.arrive(link=False)) is not None:
            return self.adopt(found, late=True)
        lead = self.lead_of_round(lambda _what, _done, _total: None)
        try:
            content = produce(lead)
            if self.publish(self.success(content, lead), durable=self.durable):
                retention.clean(self.state, keep=self.job.directory, now=self.now())
                return Agreement(content, True, False, self.name, lead.directory if lead.used else None)
        except BaseException:
            self.discard(lead)
            raise
        # Two launchers that each believe to be alone (`--standalone` on every node of one Slurm job).
        self.discard(lead)
        return self.adopt(self.settled(), late=False)

    # -- several ----------------------------------------------------------------------------------------------------

    def together(self, produce: Callable[[Lead], Mapping[str, object]], timeout: float, stall: float) -> Agreement:
        """Lead, or wait for whoever does."""
        found = self.arrive(link=True)
        self._open_relay()
        if found is not None:
            self.sweep(keep=found.files)
            return self.adopt(found, late=True)
        from nemotron_exec.lease import Lease

        lease = Lease(os.path.join(self.path, "lease"), self.timing, self.now)
        try:
            return self._lead_or_wait(produce, lease, timeout, stall)
        finally:
            # Whatever signal arrived, and wherever.
            with contextlib.suppress(OSError):
                lease.release()

    def _lead_or_wait(
        self, produce: Callable[[Lead], Mapping[str, object]], lease: Lease, timeout: float, stall: float
    ) -> Agreement:
        import random

        waiting = _Waiting(self, lease)
        deadline = self.began + timeout + (0.0 if self.may_lead_at_once else self.timing.lease + self.timing.retry)
        next_attempt = self.began
        if not self.may_lead_at_once:
            chance = random.random()  # noqa: S311
            next_attempt += polling.first_attempt(self.timing.head_start, self.timing.retry, self.place.count, chance)
        seen_another = not self.place.several_nodes or self.may_lead_at_once
        listens = self.relay is not None and self.place.local_index != 0
        while True:
            answer = self.relay.read(self.round) if self.relay is not None and listens else self.look()
            if answer is not None:
                return self.adopt(answer, late=False)
            now = time.monotonic()
            if now >= next_attempt:
                pause = polling.attempt_interval(self.timing.retry, self.place.count, random.random())  # noqa: S311
                next_attempt = now + pause * (2 if listens else 1)
                self.refresh_view()
                seen_another = seen_another or self.sees_another_node(lease)
                if (answer := self.look()) is not None:
                    return self.adopt(answer, late=False)
                if seen_another and lease.acquire():
                    self._check_links()
                    with contextlib.closing(_Leading(self, lease, self.began + timeout - now, stall)) as leading:
                        if (agreement := leading.run(produce)) is not None:
                            return agreement
                    next_attempt = time.monotonic() + self.timing.retry
            if not seen_another and now - self.began >= min(self.timing.unshared, timeout):
                raise self.not_shared(min(self.timing.unshared, timeout))
            if now >= deadline:
                raise TemporaryError(
                    f"the answer of this job's leader within {timeout:g} s (--timeout)",
                    f"none in {self.path}; {waiting.describe()}",
                    "Look at the leader's output for the cause, or give more time with --timeout S",
                )
            waiting.tell(now)
            waiters = self.place.local_count if listens else self.place.nodes or self.place.count
            pause = polling.interval(now - self.began, waiters, random.random())  # noqa: S311
            time.sleep(max(0.0, min(pause, deadline - now, max(next_attempt - now, 0.001))))

    def _open_relay(self) -> None:
        place = self.place
        if place.several_nodes and place.local_index is not None and (place.local_count or 1) > 1 and self.state.local:
            relay = Relay(self.state.local, self.path, self.job.id, self.key)
            if relay.open():
                self.relay = relay

    @property
    def may_lead_at_once(self) -> bool:
        """Launcher 0 leads; where nobody knows who that is, the first to take the lease."""
        return self.place.index in (0, None)

    def not_shared(self, waited: float) -> LaunchError:
        """What a launcher says that has seen no other node's file."""
        return TemporaryError(
            f"to find the other nodes of this job in {self.path}",
            f"no file of another node after {waited:g} s: the directory is not shared, or no other node has started",
            _REMEDY,
        )

    # -- arriving ---------------------------------------------------------------------------------------------------

    def arrive(self, *, link: bool) -> Answer | None:
        """Find the round that concerns this launcher, and sign in to it.

        Args:
            link: Whether the file system must have hard links.

        Returns:
            The round's answer if it has one.
        """
        self.round = 1
        kept: Answer | None = None
        while (found := self.look()) is not None:
            if self.concerns(found):
                if found.attempt >= self.place.attempt:
                    break
                # Of an earlier attempt: the last one counts, and one of this attempt would count more.
                kept = found
            self.round += 1
        if found is None and kept is not None:
            found, self.round = kept, kept.round
        self._sign_in()
        # Whoever resolves must know before; ten thousand that wait need not ask.
        if link and self.may_lead_at_once:
            self._check_links()
        return found

    def concerns(self, found: Answer) -> bool:
        """Whether a published answer is for this launcher, or for an earlier life of its job."""
        if self._other_life(found):
            return False
        if found.failure is None and self.job.lasting and not self.refresh:
            return True
        earlier = found.attempt < self.place.attempt or any(
            self._is_earlier_self(entry) for entry in self.entries() if entry.round == found.round
        )
        if found.failure is not None:
            # Where ranks are unknown, a launcher of this host that has ended is as likely a sibling as an earlier self.
            restarted = earlier and (self.place.index is not None or found.attempt < self.place.attempt)
            return not restarted and self.age(found) < self.timing.error_life
        return not earlier

    def _other_life(self, found: Answer) -> bool:
        # A job id that is given out again has another start. So has a requeued job, which counts its attempts.
        if self.place.attempt > 0 or self.job.source != "SLURM_JOB_ID":
            return False
        if self.job.started is not None and found.started is not None:
            return self.job.started != found.started
        return self.age(found) > _LATE_ID

    def age(self, found: Answer) -> float:
        """Seconds since the publication, by the file server's clock."""
        try:
            return self.now() - os.lstat(answers.path_of(self.path, found.round)).st_mtime
        except OSError:
            return 0.0

    def _is_earlier_self(self, entry: _Entry) -> bool:
        index = self.place.index
        same = entry.machine == self.machine if index is None else entry.index == str(index)
        if not same or (entry.machine == self.machine and entry.pid == os.getpid()):
            return False
        # On this machine a living process is a sibling, or this very job's launcher by another number.
        return entry.machine != self.machine or not os.path.exists(f"/proc/{entry.pid}")

    def _sign_in(self) -> None:
        node = "-" if self.place.node is None else self.place.node
        index = "-" if self.place.index is None else self.place.index
        name = f"{self.round}.{node}.{index}.{self.machine}.{os.getpid()}.{self.nonce}"
        self.entry = os.path.join(self.nodes, name)
        self._offset = self._touch(self.entry)

    def _touch(self, path: str) -> float:
        """Make an empty file. Returns how far the file server's clock is ahead of our monotonic one."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed(error) from None
        try:
            return os.fstat(descriptor).st_mtime - time.monotonic()
        finally:
            os.close(descriptor)

    def _check_links(self) -> None:
        """Before anything is resolved: an answer that cannot be published is not worth the work."""
        if self._linked:
            return
        probe = self.entry + private.TEMPORARY
        try:
            try:
                os.link(self.entry, probe)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(probe)
        except OSError as error:
            if error.errno in private.NO_LINK and os.path.exists(self.entry):
                raise self._no_links() from None
            raise self._failed(error) from None
        self._linked = True

    def _no_links(self) -> LaunchError:
        from nemotron_exec.state import file_system

        return LaunchError(
            f"to publish one answer in {self.path}",
            f"its file system ({file_system(self.path) or 'of unknown type'}) refuses hard links",
            "Give another directory with --state-dir DIR, or use --rendezvous c10d, which needs none",
        )

    def _failed(self, error: OSError) -> LaunchError:
        return TemporaryError(
            f"to meet the other launchers of this job in {self.path}",
            os.strerror(error.errno or 0).lower(),
            "Make room or mend that directory, or give another one with --state-dir DIR",
        )

    # -- looking ----------------------------------------------------------------------------------------------------

    def look(self) -> Answer | None:
        """The answer of our round, if it is there.

        What no launcher can have published is passed over, once it has had time to settle: the next round begins.
        """
        until = time.monotonic() + self.timing.settle
        while True:
            try:
                return answers.read(self.path, self.round, job=self.job.id, key=self.key, owner=self.owner)
            except private.UnusableFileError as error:
                if time.monotonic() < until:
                    time.sleep(self.timing.settle / 20)
                    continue
                self.messages.warning(f"ignoring {answers.path_of(self.path, self.round)}: {error}")
                self.round += 1
                if self.entry:
                    self._sign_in()

    def settled(self) -> Answer:
        """The answer that is known to be there, because link(2) says so, even if this node does not see it yet."""
        until = time.monotonic() + self.timing.unshared
        while (found := self.look()) is None:
            if time.monotonic() > until:
                raise TemporaryError(
                    f"the answer in {self.path}", "it has disappeared", "Is somebody removing files there? Start again"
                )
            self.refresh_view()
            time.sleep(self.timing.settle / 4)
        return found

    def entries(self) -> Iterator[_Entry]:
        """Who has signed in, as far as this node's view of the directory tells."""
        try:
            names = os.listdir(self.nodes)
        except OSError:
            return
        for name in names:
            if match := _ENTRY.match(name):
                number, node, index, machine, pid, nonce = match.groups()
                yield _Entry(int(number), node, index, machine, int(pid), nonce)

    def sees_another_node(self, lease: Lease) -> bool:
        """Whether somebody on another node has signed in to our round, or leads: the directory is shared."""
        holder = lease.holder()
        if holder is not None and holder.host != os.uname().nodename:
            # Cheaper than a list of ten thousand names.
            return True
        for entry in self.entries():
            if entry.round != self.round or entry.nonce == self.nonce:
                continue
            if self.place.node is not None and entry.node != "-":
                if entry.node != str(self.place.node):
                    return True
            elif entry.machine != self.machine:
                return True
        return False

    def refresh_view(self) -> None:
        """Make an NFS client forget that a file was missing: changing a directory refreshes what is known of it."""
        path = os.path.join(self.path, f"look.{self.nonce}{private.TEMPORARY}")
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.suppress(OSError):
            os.unlink(path)

    def now(self) -> float:
        """The file server's time, seconds since the epoch."""
        if self._offset is None:
            # Asked before we have signed in, which tells it for nothing.
            path = os.path.join(self.nodes, f"clock.{self.nonce}{private.TEMPORARY}")
            try:
                self._offset = self._touch(path)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        return time.monotonic() + self._offset

    # -- publishing -------------------------------------------------------------------------------------------------

    def lead_of_round(self, report: Callable[[str, int, int | None], None]) -> Lead:
        """What `produce` is given in this round."""
        return Lead(os.path.join(self.path, f"files.{self.round}.{os.urandom(8).hex()}"), report)

    def success(self, content: Mapping[str, object], lead: Lead) -> Answer:
        """An answer that says what was resolved."""
        files = os.path.basename(lead.directory) if lead.used else None
        return self._answer(content=content, files=files)

    def failure(self, error: LaunchError) -> Answer:
        """An answer that says why nothing was."""
        return self._answer(failure=Failure.of(error))

    def _answer(
        self,
        content: Mapping[str, object] | None = None,
        failure: Failure | None = None,
        files: str | None = None,
    ) -> Answer:
        return Answer(
            self.job.id,
            self.key,
            self.round,
            self.place.attempt,
            self.job.started,
            self.name,
            time.time(),
            content,
            failure,
            files,
        )

    def publish(self, answer: Answer, *, durable: bool) -> bool:
        """Make `answer` the one of its round, unless there is one."""
        path = answers.path_of(self.path, answer.round)
        try:
            if not private.publish(path, answer.to_bytes(), durable=durable):
                return False
        except private.LinkRefusedError:
            if not self.place.single:
                raise self._no_links() from None
            private.replace(path, answer.to_bytes(), durable=durable)
        except OSError as error:
            raise self._failed(error) from None
        self._hand_on(answer)
        return True

    def adopt(self, answer: Answer, *, late: bool) -> Agreement:
        """Take an answer that another process, or an earlier one, has published.

        Raises:
            LaunchError: It is an error.
        """
        self._hand_on(answer)
        if answer.failure is not None:
            raise answer.failure.exception()
        directory = None if answer.files is None else os.path.join(self.path, answer.files)
        assert answer.content is not None
        return Agreement(answer.content, led=False, reused=late, leader=answer.leader, directory=directory)

    def _hand_on(self, answer: Answer) -> None:
        if self.relay is not None and self.place.local_index == 0:
            self.relay.write(answer)

    def discard(self, lead: Lead) -> None:
        """Remove what a leader wrote that nobody will read."""
        if not lead.used:
            return
        # A signal may have arrived between the publication and the note that there was one.
        with contextlib.suppress(private.UnusableFileError, LaunchError):
            found = answers.read(self.path, self.round, job=self.job.id, key=self.key, owner=self.owner)
            if found is not None and found.files == os.path.basename(lead.directory):
                return
        import shutil

        shutil.rmtree(lead.directory, ignore_errors=True)

    def sweep(self, keep: str | None) -> None:
        """Remove what leaders of this round left that were killed, or that came too late; and jobs long over.

        Args:
            keep: Name of the directory of the published answer.
        """
        retention.clean(self.state, keep=self.job.directory, now=self.now())
        private.sweep(self.path)
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path):
                path = os.path.join(self.path, name)
                if name == "progress.json" and not os.path.lexists(os.path.join(self.path, "lease")):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                elif name.startswith(f"files.{self.round}.") and name != keep:
                    import shutil

                    shutil.rmtree(path, ignore_errors=True)
                elif name.startswith("lease.break."):
                    with contextlib.suppress(OSError):
                        os.unlink(path)


@dataclass(frozen=True)
class _Entry:
    round: int
    node: str
    index: str
    machine: str
    pid: int
    nonce: str


class _Leading:
    """One process's turn at leading: from the lease to the published answer.

    A second thread watches the clock: a leader that hangs would keep its lease for ever.
    """

    def __init__(self, meeting: _Meeting, lease: Lease, budget: float, stall: float) -> None:
        import threading

        self._meeting, self._lease = meeting, lease
        self._budget, self._stall = budget, stall
        self._done = threading.Event()
        self._quiet = 0.0
        self._spent = 0.0
        self._told = -1e9
        self._what = "starting"
        self._abandoned: LaunchError | None = None
        self._main = threading.current_thread() is threading.main_thread()
        self._watchdog = threading.Thread(target=self._watch, name="nemotron-exec-watchdog", daemon=True)

    def run(self, produce: Callable[[Lead], Mapping[str, object]]) -> Agreement | None:
        """Resolve and publish.

        Returns:
            The agreement; None if the lease was lost before there was an answer.
        """
        meeting = self._meeting
        if (found := meeting.look()) is not None:
            return meeting.adopt(found, late=False)
        lead = meeting.lead_of_round(self._report)
        kept = False
        try:
            self._report("starting", 0, None)
            with self._interruptible():
                content = produce(lead)
            if meeting.publish(meeting.success(content, lead), durable=meeting.durable):
                kept = True
                meeting.sweep(keep=os.path.basename(lead.directory) if lead.used else None)
                return Agreement(content, True, False, meeting.name, lead.directory if lead.used else None)
            return meeting.adopt(meeting.settled(), late=False)
        except _Superseded:
            return None
        except _Abandoned:
            if (found := meeting.look()) is not None:
                return meeting.adopt(found, late=False)
            assert self._abandoned is not None
            raise self._abandoned from None
        except LaunchError as error:
            return self._fail(error)
        except Exception as error:  # noqa: BLE001  the others must not wait for a leader that met a bug
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
                meeting.discard(lead)

    def _fail(self, error: LaunchError, cause: Exception | None = None) -> Agreement | None:
        meeting = self._meeting
        # What stopped us may be that another launcher has finished meanwhile and tidied up.
        if (found := meeting.look()) is not None:
            return meeting.adopt(found, late=False)
        if not self._lease.held:
            # Another one leads by now, and may well succeed.
            return None
        if not meeting.publish(meeting.failure(error), durable=False):
            return meeting.adopt(meeting.settled(), late=False)
        meeting.sweep(keep=None)
        raise error from cause

    def close(self) -> None:
        """End the watchdog, and give the lease back with what said how far we were."""
        self._done.set()
        try:
            if self._watchdog.ident is not None:
                self._watchdog.join()
        finally:
            held = self._lease.held
            with contextlib.suppress(OSError):
                self._lease.release()
            if held:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._meeting.path, "progress.json"))

    def _report(self, what: str, done: int, total: int | None) -> None:
        self._quiet = 0.0
        now = time.monotonic()
        if now - self._told < self._meeting.timing.progress and what == self._what:
            return
        if not self._lease.held:
            raise _Superseded
        self._told, self._what = now, what
        body = {
            "leader": self._meeting.name,
            "what": what,
            "done": done,
            "total": total,
            "seconds": round(self._spent, 1),
        }
        # Progress is for people: a full disk must not stop the job here.
        with contextlib.suppress(OSError):
            private.replace(os.path.join(self._meeting.path, "progress.json"), json.dumps(body).encode(), durable=False)

    # -- the watchdog -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let the watchdog raise an exception here, even out of a system call."""
        previous: Any = None

        def interrupted(_number: int, _frame: FrameType | None) -> None:
            if self._abandoned is not None and not self._done.is_set():
                raise _Abandoned

        if self._main:
            previous = signal.signal(signal.SIGALRM, interrupted)
        self._watchdog.start()
        try:
            yield
        finally:
            self._done.set()
            if self._main:
                signal.signal(signal.SIGALRM, previous)

    def _watch(self) -> None:
        step = min(0.5, self._stall / 4 or 0.5, max(self._budget, 0.05))
        while not self._done.wait(step):
            # Steps, not clocks: a process that was stopped has not been silent, it was not there.
            self._spent += step
            self._quiet += step
            error = self._verdict()
            if error is None or not self._lease.held:
                continue
            self._abandoned = error
            try:
                self._meeting.publish(self._meeting.failure(error), durable=False)
            except LaunchError as failed:
                self._abandoned = failed
            self._interrupt()
            return

    def _verdict(self) -> LaunchError | None:
        if self._quiet >= self._stall > 0:
            return TemporaryError(
                f"progress from {self._meeting.name} within {self._stall:g} s (--stall)",
                f"none while it was busy with {self._what}",
                "Check the network and the store that it reads from, or give more time with --stall S",
            )
        if self._spent >= self._budget:
            return TemporaryError(
                "to resolve this job's artifacts in the time given (--timeout)",
                f"{self._meeting.name} was still busy with {self._what}",
                "Give more time with --timeout S",
            )
        return None

    def _interrupt(self) -> None:
        if self._main:
            import threading

            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        if not self._done.wait(self._meeting.timing.abandon) and self._abandoned is not None:
            # Stuck where no signal reaches it (a dead NFS server): the job has its answer, this process must end.
            self._meeting.messages.error(str(self._abandoned))
            sys.stderr.flush()
            os._exit(self._abandoned.exit_code)


class _Waiting:
    """What a waiter tells people: who leads, what it is doing, and for how long."""

    def __init__(self, meeting: _Meeting, lease: Lease) -> None:
        self._meeting, self._lease = meeting, lease
        self._next = meeting.began + meeting.timing.first_line
        self._last: tuple[float, str, int] | None = None

    def tell(self, now: float) -> None:
        """One line after some seconds, and then now and again. From one launcher of each node."""
        if now < self._next or self._meeting.place.local_index not in (None, 0):
            return
        self._next = now + self._meeting.timing.next_lines
        self._meeting.messages.info(f"waiting for {now - self._meeting.began:.0f} s: {self.describe()}")

    def describe(self) -> str:
        """Who leads and what it does, as far as it can be seen."""
        holder: Holder | None = self._lease.holder()
        if holder is None:
            return "nobody leads yet"
        fallback = f"{holder.host} (pid {holder.pid}) leads"
        try:
            data = private.read(os.path.join(self._meeting.path, "progress.json"), limit=1 << 16)
            body = json.loads(data or b"")
            leader, what, done, total = (body[name] for name in ("leader", "what", "done", "total"))
            line = (
                f"{leader} leads, for {float(body['seconds']):.0f} s, busy with {what}{self._amount(what, done, total)}"
            )
        except (private.UnusableFileError, ValueError, TypeError, KeyError, RecursionError):
            line = fallback
        silent = self._meeting.now() - holder.beat
        if silent >= 2 * self._meeting.timing.heartbeat:
            line += f" (no sign of life for {silent:.0f} s)"
        # What is read from a shared directory goes to a terminal: no control characters.
        return "".join(character if character.isprintable() else "?" for character in line)[:500]

    def _amount(self, what: str, done: int, total: int | None) -> str:
        if not done:
            return ""
        now = time.monotonic()
        text = f", {_bytes(done)}" + (f" of {_bytes(total)}" if total else "")
        if self._last is not None and self._last[1] == what and done > self._last[2] and now > self._last[0]:
            text += f", {_bytes((done - self._last[2]) / (now - self._last[0]))}/s"
        self._last = (now, what, done)
        return text


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
