"""The directory in which the launchers of a job that ask the same question meet (`jobs/<job>/<step>.<program>.<key>`).

    nodes/<round>.<node>.<index>.<machine>.<pid>.<nonce>.<attempt>    who has come, in the names; what they ask, within
    lease                                                    who leads now (lease.py)
    progress.json                                            what the leader is doing
    files.<round>.<nonce>/                                   resolved configs that a leader is writing
    answer.<round>.json                                      published once, by link(2)

How it is read and signed in to; publishing.py writes the rest, rounds.py decides, agree.py waits.
docs/coordination.md states the protocol's promises and what they rest on.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.rendezvous import answer as answers
from nemotron_exec.rendezvous import rounds
from nemotron_exec.shared_directory import files
from nemotron_exec.shared_directory.clock import Clock
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.message import Messages
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.place.state_directory import StateDirectory
    from nemotron_exec.rendezvous.answer import Answer
    from nemotron_exec.rendezvous.question import Question
    from nemotron_exec.rendezvous.relay import Relay
    from nemotron_exec.rendezvous.timing import Timing

__all__ = [
    "Meeting",
    "entries_in",
    "entry_name",
    "failed",
    "last_sign",
    "launcher",
    "machine_name",
    "no_links",
    "signed_in",
]

_ENTRY = pattern(r"(\d+)\.(\d+|-)\.(\d+|-)\.([A-Za-z0-9_-]*)\.(\d+)\.([0-9a-f]+)\.(\d+)\Z")
_MANY = 256
"""Launchers from which on only the first ones leave what they ask: the rest would only load the server."""
_REMEDY = "Remove it, or give another directory with --state-dir DIR"


class Meeting:
    """One launcher's hands and eyes in that directory.

    Args:
        place: The launcher.
        job: Whose answer it is.
        state: The state directory.
        question: The question to resolve.
        refresh: `--refresh`.
        messages: For warnings, and for one debug line at each change of state.
        timing: Constants of the protocol.

    Raises:
        LaunchError: The directory cannot be made, or another user has prepared it.
    """

    def __init__(
        self,
        place: Place,
        job: JobIdentity,
        state: StateDirectory,
        question: Question,
        *,
        refresh: bool,
        messages: Messages,
        timing: Timing,
    ) -> None:
        self.job, self.state, self.question = job, state, question
        self.key = question.key
        self.messages, self.timing = messages, timing
        step = re.sub(r"[^A-Za-z0-9_-]", "_", job.step) or "-"
        self.path = _make(state, "jobs", job.directory, f"{step}.{question.program}.{question.key}")
        self.nodes = os.path.join(self.path, "nodes")
        files.make_directory(self.nodes, wanted=_wanted(state), remedy=_REMEDY)
        host = os.uname().nodename
        self.me = launcher(place, job, refresh=refresh)
        self.name = f"launcher {'?' if place.index is None else place.index} on {host} (pid {os.getpid()})"
        self.round = 0
        self.relay: Relay | None = None
        self._entry = ""
        self._clock = Clock(os.path.join(self.nodes, f"clock.{self.me.nonce}{files.TEMPORARY}"))
        self._links_checked = False

    # -- arriving -----------------------------------------------------------------------------------------------------

    def arrive(self) -> Answer | None:
        """Find the round that concerns this launcher, and sign in to it. Returns the round's answer if it has one."""
        self.round, found = rounds.choose_round(self.look_at, self._is_for_me, self.me.place.attempt)
        self._sign_in()
        return found

    def _is_for_me(self, found: Answer) -> bool:
        mine = rounds.concerns(
            found,
            self.me,
            age=lambda: self._age(found),
            entries=self.entries(),
            error_life=self.timing.error_life,
        )
        kind = "error" if found.failure else "answer"
        self.messages.debug(
            f"round {found.round}: the {kind} of {found.leader} in attempt {found.attempt} "
            f"{'concerns' if mine else 'does not concern'} this launcher"
        )
        return mine

    def _age(self, found: Answer) -> float:
        """Seconds since the publication, or since the job's last checkpoint, by the file server's clock."""
        return self.now() - last_sign(self.path, found)

    def _sign_in(self) -> None:
        place = self.me.place
        node, index = ("-" if number is None else number for number in (place.node, place.index))
        self._entry = os.path.join(
            self.nodes,
            f"{self.round}.{node}.{index}.{self.me.machine}.{self.me.pid}.{self.me.nonce}.{place.attempt}",
        )
        try:
            self._clock.touch(self._entry, b"" if (place.index or 0) >= _MANY else self.question.to_bytes())
        except OSError as error:
            raise failed(self.path, error) from None
        self.messages.debug(f"signed in to round {self.round} as {self._entry}")

    def now(self) -> float:
        """The file server's time, seconds since the epoch."""
        try:
            return self._clock.now()
        except OSError as error:
            raise failed(self.path, error) from None

    def check_links(self) -> None:
        """Before anything is resolved: an answer that cannot be published is not worth the work.

        Raises:
            LaunchError: The file system has no hard links.
            TemporaryError: The directory is full, or gone.
        """
        if self._links_checked:
            return
        probe = self._entry + files.TEMPORARY
        try:
            try:
                # The name is this launcher's alone: "exists" is how an NFS server answers a repeated request.
                with contextlib.suppress(FileExistsError):
                    os.link(self._entry, probe)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(probe)
        except OSError as error:
            if error.errno in files.NO_LINK and os.path.exists(self._entry):
                raise no_links(self.path) from None
            raise failed(self.path, error) from None
        self._links_checked = True

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self) -> Answer | None:
        """The answer of this launcher's round, if it is there. A damaged one begins the next round."""
        number, found = self.look_at(self.round)
        if number != self.round:
            self.round = number
            self._sign_in()
        return found

    def look_at(self, number: int) -> tuple[int, Answer | None]:
        """The answer of round `number`, if it is there, and the round's number.

        What no launcher can have published is passed over, once it has had time to settle: the next round counts.
        """
        until = time.monotonic() + self.timing.settle
        while True:
            try:
                return number, self.read(number)
            except files.UnusableFileError as error:
                if time.monotonic() < until:
                    time.sleep(self.timing.settle / 20)
                    continue
                self.messages.warning(f"ignoring {answers.path_of(self.path, number)}: {error}")
                number += 1

    def peek(self) -> Answer | None:
        """The answer of this launcher's round as far as it can be read at once."""
        try:
            return self.read(self.round)
        except files.UnusableFileError:
            return None

    def settled(self) -> Answer:
        """The answer that is known to be there, because link(2) says so, even if this node does not see it yet.

        Raises:
            TemporaryError: It does not appear: another program removes files.
        """
        until = time.monotonic() + self.timing.unshared
        while (found := self.look()) is None:
            if time.monotonic() > until:
                raise TemporaryError(
                    f"the answer in {self.path}", "it has disappeared", "Is somebody removing files there? Start again"
                )
            self.refresh_view()
            time.sleep(self.timing.settle / 4)
        return found

    def entries(self) -> Iterator[rounds.Entry]:
        """Who has signed in, as far as this node's view of the directory tells."""
        return entries_in(self.path, self.me)

    def refresh_view(self) -> None:
        """Make an NFS client forget that a file was missing: it reads a directory anew after it has changed it."""
        path = os.path.join(self.path, f"look.{self.me.nonce}{files.TEMPORARY}")
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.suppress(OSError):
            os.unlink(path)

    def read(self, number: int) -> Answer | None:
        """The answer of round `number`; None while there is none.

        Raises:
            UnusableFileError: Something is there that no launcher of this job has published.
            LaunchError: It was published by a later version.
        """
        return answers.read(self.path, number, job=self.job.id, key=self.key, owner=self.state.owner)


def last_sign(path: str, found: Answer) -> float:
    """When an answer was published or the job last saved: the hand-off is touched then. Now, if neither can be seen.

    Args:
        path: The meeting.
        found: One of its answers.
    """
    signs = []
    for file in (answers.path_of(path, found.round), os.path.join(path, found.files or "", "handoff.json")):
        with contextlib.suppress(OSError):
            signs.append(os.lstat(file).st_mtime)
    return max(signs, default=time.time())


def launcher(place: Place, job: JobIdentity, *, refresh: bool = False) -> rounds.Launcher:
    """This process, as it signs in."""
    return rounds.Launcher(place, job, machine_name(), os.getpid(), os.urandom(8).hex(), refresh)


def machine_name() -> str:
    """This machine, as it stands in the names of entries."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", os.uname().nodename)[:60]


def signed_in(path: str) -> Iterator[tuple[rounds.Entry, float]]:
    """Who has signed in to the meeting at `path`, and when by the file server's clock; for people who look on."""
    for name in _listed(path):
        if match := _ENTRY.match(name):
            number, node, index, machine, pid, nonce, attempt = match.groups()
            entry = rounds.Entry(int(number), node, index, machine, int(pid), nonce, int(attempt))
            with contextlib.suppress(OSError):
                yield entry, os.lstat(os.path.join(path, "nodes", name)).st_mtime


def entries_in(path: str, me: rounds.Launcher) -> Iterator[rounds.Entry]:
    """Who has signed in to the meeting at `path`, as this node sees it."""
    for name in _listed(path):
        if match := _ENTRY.match(name):
            number, node, index, machine, pid, nonce, attempt = match.groups()
            alive = machine == me.machine and os.path.exists(f"/proc/{pid}")
            yield rounds.Entry(int(number), node, index, machine, int(pid), nonce, int(attempt), alive)


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(os.path.join(path, "nodes"))
    except OSError:
        return []


def entry_name(entry: rounds.Entry) -> str:
    """The name of its file."""
    fields = (entry.round, entry.node, entry.index, entry.machine, entry.pid, entry.nonce, entry.attempt)
    return ".".join(map(str, fields))


def failed(path: str, error: OSError) -> TemporaryError:
    """The error of a directory that is full, or gone."""
    from nemotron_exec.sitecustomize.payload.disk import no_room

    return TemporaryError(
        f"to meet the other launchers of this job in {path}",
        no_room(error, path, getattr(error, "needed", None)),
        "Make room or mend that directory, or give another one with --state-dir DIR",
    )


def no_links(path: str) -> LaunchError:
    """The error of a file system in which one answer cannot be published."""
    from nemotron_exec.shared_directory.file_system import file_system

    return LaunchError(
        f"to publish one answer in {path}",
        f"its file system ({file_system(path) or 'of unknown type'}) refuses hard links",
        "Give another directory with --state-dir DIR, or use --rendezvous c10d, which needs none",
    )


def _wanted(state: StateDirectory) -> str:
    return f"to meet the other launchers of this job in {state.path}"


def _make(state: StateDirectory, *names: str) -> str:
    path = state.path
    for name in names:
        path = os.path.join(path, name)
        files.make_directory(path, wanted=_wanted(state), remedy=_REMEDY)
    return path
