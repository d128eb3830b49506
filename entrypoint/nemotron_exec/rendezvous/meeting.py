"""The directory in which the launchers of a job that ask the same question meet (`jobs/<job>/<step>.<program>.<key>`).

    nodes/<round>.<node>.<index>.<machine>.<pid>.<nonce>.<attempt>    a launcher by its name; its question is inside
    lease                                                    names the leader (lease.py)
    progress.json                                            the leader's current work
    files.<round>.<nonce>/                                   a leader's resolved configs
    answer.<round>.json                                      the answer, published once by link(2)

This module reads it and signs in to it. publishing.py writes the rest, rounds.py decides, agree.py waits.
docs/coordination.md states the promises of the protocol and their reasons.
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
"""With more launchers only the first ones leave their question. The others would only load the server."""
_REMEDY = "Remove it, or give another directory with --state-dir DIR"


class Meeting:
    """One launcher's view of that directory, and its own entry in it.

    Args:
        place: The launcher.
        job: The job to which the answer belongs.
        state: The state directory.
        question: The question to resolve.
        refresh: Whether `--refresh` is given.
        messages: For warnings, and for one debug line at each change of state.
        timing: Constants of the protocol.

    Raises:
        LaunchError: The directory cannot be created, or another user has prepared it.
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
        """Find the round that concerns this launcher, and sign in to it. Return the round's answer if it has one."""
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
        """The current time by the file server's clock, in seconds since the epoch."""
        try:
            return self._clock.now()
        except OSError as error:
            raise failed(self.path, error) from None

    def check_links(self) -> None:
        """Check for hard links before anything is resolved: without them no answer can be published.

        Raises:
            LaunchError: The file system has no hard links.
            TemporaryError: The directory is full, or gone.
        """
        if self._links_checked:
            return
        probe = self._entry + files.TEMPORARY
        try:
            try:
                # The name belongs to this launcher alone. An NFS server may answer a repeated request with "exists".
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
        """The answer of this launcher's round; None while there is none. If it is damaged, the next round begins."""
        number, found = self.look_at(self.round)
        if number != self.round:
            self.round = number
            self._sign_in()
        return found

    def look_at(self, number: int) -> tuple[int, Answer | None]:
        """The answer of round `number` (None while there is none), and the number of its round.

        A file that no launcher can have published is read again for some time. Then it is ignored, and the next round
        counts.
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
        """The answer of this launcher's round, read once without waiting; None where it cannot be read."""
        try:
            return self.read(self.round)
        except files.UnusableFileError:
            return None

    def settled(self) -> Answer:
        """The answer that exists for certain, because link(2) has failed, although this node may not see it yet.

        Raises:
            TemporaryError: The answer does not appear: another program removes files.
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
        """The launchers that have signed in, as far as this node sees the directory."""
        return entries_in(self.path, self.me)

    def refresh_view(self) -> None:
        """Change the directory, so that an NFS client reads it anew and forgets that a file was missing."""
        path = os.path.join(self.path, f"look.{self.me.nonce}{files.TEMPORARY}")
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.suppress(OSError):
            os.unlink(path)

    def read(self, number: int) -> Answer | None:
        """The answer of round `number`; None while there is none.

        Raises:
            UnusableFileError: There is a file, but no launcher of this job has published it.
            LaunchError: A later version of nemotron-exec has published it.
        """
        return answers.read(self.path, number, job=self.job.id, key=self.key, owner=self.state.owner)


def last_sign(path: str, found: Answer) -> float:
    """When an answer was published, or the job last saved (which touches the hand-off). Now, if neither is known.

    Args:
        path: The directory of the meeting.
        found: An answer of the meeting.
    """
    signs = []
    for file in (answers.path_of(path, found.round), os.path.join(path, found.files or "", "handoff.json")):
        with contextlib.suppress(OSError):
            signs.append(os.lstat(file).st_mtime)
    return max(signs, default=time.time())


def launcher(place: Place, job: JobIdentity, *, refresh: bool = False) -> rounds.Launcher:
    """This process, in the form in which it signs in."""
    return rounds.Launcher(place, job, machine_name(), os.getpid(), os.urandom(8).hex(), refresh)


def machine_name() -> str:
    """The name of this machine, in the form that names of entries have."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", os.uname().nodename)[:60]


def signed_in(path: str) -> Iterator[tuple[rounds.Entry, float]]:
    """The launchers that have signed in to the meeting at `path`, each with the time by the file server's clock."""
    for name in _listed(path):
        if match := _ENTRY.match(name):
            number, node, index, machine, pid, nonce, attempt = match.groups()
            entry = rounds.Entry(int(number), node, index, machine, int(pid), nonce, int(attempt))
            with contextlib.suppress(OSError):
                yield entry, os.lstat(os.path.join(path, "nodes", name)).st_mtime


def entries_in(path: str, me: rounds.Launcher) -> Iterator[rounds.Entry]:
    """The launchers that have signed in to the meeting at `path`, as far as this node sees them."""
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
    """The file name of an entry."""
    fields = (entry.round, entry.node, entry.index, entry.machine, entry.pid, entry.nonce, entry.attempt)
    return ".".join(map(str, fields))


def failed(path: str, error: OSError) -> TemporaryError:
    """The error for a directory that is full, or gone."""
    from nemotron_exec.sitecustomize.payload.disk import no_room

    return TemporaryError(
        f"to meet the other launchers of this job in {path}",
        no_room(error, path, getattr(error, "needed", None)),
        "Make room or mend that directory, or give another one with --state-dir DIR",
    )


def no_links(path: str) -> LaunchError:
    """The error for a file system without hard links, in which no answer can be published safely."""
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
