"""The decisions of the protocol, as functions of a launcher's view. Nothing here waits or writes.

meeting.py reads and changes the directory, agree.py owns the deadline and every sleep. Modelled on
`_RendezvousJoinOp(ctx, deadline) -> _Action` of torch/distributed/elastic/rendezvous/dynamic_rendezvous.py.
"""

from __future__ import annotations

import enum

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.rendezvous.answer import Answer

__all__ = [
    "Action",
    "Bounds",
    "Entry",
    "Launcher",
    "View",
    "after_failure",
    "all_have_come",
    "asks_differently",
    "choose_round",
    "concerns",
    "decide",
    "is_earlier_self",
    "other_life",
    "runs_at_once",
    "sees_another_node",
    "superfluous",
]

_LATE_ID = 12 * 3600.0
"""Seconds after which a job id may be another job's, if Slurm gives no start times."""


@dataclass(frozen=True)
class Launcher:
    """The launcher that decides.

    Attributes:
        place: The place of the launcher in its job.
        job: The job whose answer it needs.
        machine: Host name, in the form that names of entries have.
        pid: Its process id.
        nonce: A random text that separates its entry from those of earlier processes with the same number.
        refresh: Whether `--refresh` is given: an answer from an earlier start does not count then.
    """

    place: Place
    job: JobIdentity
    machine: str
    pid: int
    nonce: str
    refresh: bool = False

    @property
    def may_lead_at_once(self) -> bool:
        """Whether the launcher need not wait: it is launcher 0, or the launchers do not know their numbers."""
        return self.place.index in (0, None)


@dataclass(frozen=True)
class Entry:
    """One launcher that has signed in to a round, read from the name of its file.

    Attributes:
        round: The round's number.
        node: Number of its node; "-" if unknown.
        index: Its number in the job; "-" if unknown.
        machine: Host name.
        pid: Its process id, kept through exec.
        nonce: Random, one for each launcher.
        attempt: Restart count of the job at its arrival.
        alive: Whether a process of that number runs on this machine. False for other machines, where it is unknown.
        age: Seconds since its arrival; filled in only where it matters.
    """

    round: int
    node: str
    index: str
    machine: str
    pid: int
    nonce: str
    attempt: int = 0
    alive: bool = False
    age: float = 0.0


# -- whose answer concerns whom ---------------------------------------------------------------------------------------


def choose_round(
    look: Callable[[int], tuple[int, Answer | None]], is_for_me: Callable[[Answer], bool], attempt: int
) -> tuple[int, Answer | None]:
    """The round to which an arriving launcher belongs, and the answer of that round if it has one.

    Args:
        look: Returns the answer of a round with the round's number. It skips a damaged answer, so the number may be
            higher.
        is_for_me: Whether an answer concerns this launcher (`concerns`).
        attempt: Restart count of the job.
    """
    earlier: Answer | None = None
    number, found = look(1)
    while found is not None:
        if is_for_me(found):
            if found.attempt >= attempt:
                return number, found
            # Published by an earlier attempt. Keep it as a fallback and look on: an answer of this attempt wins, else
            # the newest earlier one.
            earlier = found
        number, found = look(number + 1)
    return (number, None) if earlier is None else (earlier.round, earlier)


def concerns(
    found: Answer, me: Launcher, *, age: Callable[[], float], entries: Iterable[Entry], error_life: float
) -> bool:
    """Whether a published answer concerns this launcher, not an earlier life of its job.

    Args:
        found: The answer.
        me: The launcher that has just arrived.
        age: Returns the seconds since the publication; called only where it matters, because it costs a look.
        entries: The launchers that have signed in; read only where it matters.
        error_life: Seconds for which a published error concerns a launcher that arrives.
    """
    if other_life(found, me, age):
        return False
    if found.failure is None and me.job.lasting and not me.refresh:
        return True
    earlier = found.attempt < me.place.attempt or any(
        is_earlier_self(entry, me) for entry in entries if entry.round == found.round
    )
    if found.failure is not None:
        # Where ranks are unknown, a dead launcher of this host may be a sibling as well as an earlier self.
        restarted = earlier and (me.place.index is not None or found.attempt < me.place.attempt)
        return not restarted and age() < error_life
    return not earlier


def other_life(found: Answer, me: Launcher, age: Callable[[], float]) -> bool:
    """Whether Slurm has used the job's number again since the answer.

    Slurm gives the start of each job, and counts its requeues.
    """
    if me.place.attempt > 0 or me.job.source != "SLURM_JOB_ID":
        return False
    if me.job.started is not None and found.started is not None:
        return me.job.started != found.started
    return age() > _LATE_ID


def is_earlier_self(entry: Entry, me: Launcher) -> bool:
    """Whether `entry` belongs to the process that was this launcher before a restart of the job or the worker."""
    index = me.place.index
    same = entry.machine == me.machine if index is None else entry.index == str(index)
    if not same or (entry.machine == me.machine and entry.pid == me.pid):
        return False
    # A living process of this machine is a sibling, or another launcher of this job.
    return entry.machine != me.machine or not entry.alive


# -- lead or wait -----------------------------------------------------------------------------------------------------


class Action(enum.Enum):
    """The next step of a waiting launcher."""

    ADOPT = "take the answer that is there"
    LOOK_CLOSELY = "make the file system tell what is new, then decide again"
    TAKE_LEASE = "try to take the lease, and lead"
    WAIT = "look again later"
    NOT_SHARED = "give up: no other node sees this directory"
    TIMED_OUT = "give up: the time is over"


@dataclass(frozen=True)
class View:
    """A waiting launcher's view at one moment.

    Attributes:
        now: Seconds, by the monotonic clock.
        answer: The answer of its round; None while there is none.
        attempt_due: Whether it is time for another attempt at the lease.
        closely: Whether the file system was just made to show new files.
        shared: Whether the directory is known to be shared: another node was seen in it, or no other node is needed.
    """

    now: float
    answer: Answer | None
    attempt_due: bool
    closely: bool
    shared: bool


@dataclass(frozen=True)
class Bounds:
    """The times at which a waiting launcher gives up, by the monotonic clock.

    Attributes:
        unshared: The end of the wait for a sign of another node.
        deadline: The end of the wait for an answer.
    """

    unshared: float
    deadline: float


def decide(view: View, bounds: Bounds) -> Action:
    """The next step. An answer always wins. No launcher leads in a directory that only one node may see."""
    if view.answer is not None:
        return Action.ADOPT
    if view.attempt_due and not view.closely:
        return Action.LOOK_CLOSELY
    if view.attempt_due and view.shared:
        return Action.TAKE_LEASE
    if not view.shared and view.now >= bounds.unshared:
        return Action.NOT_SHARED
    if view.now >= bounds.deadline:
        return Action.TIMED_OUT
    return Action.WAIT


def sees_another_node(entries: Iterable[Entry], me: Launcher) -> bool:
    """Whether a launcher of another node has signed in, to any question of the job. Then the directory is shared.

    Node numbers count only within one attempt: a requeued job numbers its nodes anew, and this machine may have had
    another number.
    """
    for entry in entries:
        if entry.nonce == me.nonce:
            continue
        if me.place.node is None or entry.node == "-":
            if entry.machine != me.machine:
                return True
        elif entry.node != str(me.place.node) and (entry.attempt == me.place.attempt or entry.machine != me.machine):
            return True
    return False


def asks_differently(others: Iterable[Entry], here: Iterable[Entry], me: Launcher, *, at_once: float) -> Entry | None:
    """A launcher that was started together with this one but asks another question; None if there is none.

    Args:
        others: Launchers that have signed in to another question of the same program in the same step.
        here: Launchers that have signed in to this launcher's question.
        me: This launcher.
        at_once: Seconds; a launcher that arrived earlier belongs to an earlier start.
    """
    recent = [entry for entry in others if entry.attempt == me.place.attempt and entry.age < at_once]
    if any(is_earlier_self(entry, me) or _is_same(entry, me) for entry in recent):
        return None  # it was started again with a changed config
    came = {entry.index for entry in here if entry.index != "-"}
    return next((entry for entry in recent if entry.index not in came), None)


def _is_same(entry: Entry, me: Launcher) -> bool:
    return me.place.index is not None and entry.index == str(me.place.index)


def runs_at_once(entries: Iterable[Entry], me: Launcher) -> bool:
    """Whether another step of the same job still runs, as far as this machine sees its launchers (`entries`).

    After a requeue no earlier step runs. A launcher keeps its process id when it becomes its command.
    """
    return any(entry.alive and entry.attempt == me.place.attempt for entry in entries)


def all_have_come(entries: Iterable[Entry], number: int, count: int | None) -> bool:
    """Whether each launcher of the job has signed in to round `number`. True also where their `count` is unknown."""
    if count is None:
        return True
    return len({entry.index for entry in entries if entry.round == number}) >= count


# -- leading ----------------------------------------------------------------------------------------------------------


def after_failure(*, answered: bool, held: bool) -> Action | None:
    """The next step of a leader whose work has failed; None if it publishes its error as the job's answer.

    Args:
        answered: Whether the round has an answer now. Another launcher has given it, and may have removed files.
        held: Whether this leader still holds the lease. If not, another one leads, and may well succeed.
    """
    if answered:
        return Action.ADOPT
    return None if held else Action.WAIT


def superfluous(directory: str, found: Answer | None) -> bool:
    """Whether no launcher will read the directory that a leader has written.

    Args:
        directory: Name of the directory.
        found: The current answer of the leader's round. It decides, because a signal may have arrived between the
            publication and the leader's note of it.
    """
    return found is None or found.files != directory
