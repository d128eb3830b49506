"""Launchers of the job with another question: they prove that the directory is shared, or were started by mistake."""

from __future__ import annotations

import contextlib
import os

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace
from nemotron_exec.rendezvous import answer as answers
from nemotron_exec.rendezvous import rounds
from nemotron_exec.rendezvous.meeting import entries_in, entry_name
from nemotron_exec.rendezvous.question import differences, read_parts
from nemotron_exec.shared_directory import files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from nemotron_exec.rendezvous.meeting import Meeting

__all__ = ["find_difference", "sees_another_node"]


def sees_another_node(meeting: Meeting) -> bool:
    """Whether a launcher of another node has signed in, to this question or to another one of the job."""
    return rounds.sees_another_node(meeting.entries(), meeting.me) or any(
        rounds.sees_another_node(entries_in(path, meeting.me), meeting.me) for path in _other_meetings(meeting)
    )


def find_difference(meeting: Meeting) -> LaunchError | None:
    """The error for launchers of one step and program, started together, that ask different questions; else None."""
    mine = os.path.basename(meeting.path)
    for path in _other_meetings(meeting):
        if os.path.basename(path).rpartition(".")[0] != mine.rpartition(".")[0]:
            continue  # another step, or another program
        entries = [
            replace(entry, age=_age(meeting, path, entry))
            for entry in entries_in(path, meeting.me)
            # Keep an entry of this launcher from before its restart: it shows that the entries beside it are old, too.
            if rounds.is_earlier_self(entry, meeting.me) or not _was_an_earlier_job(meeting, path, entry)
        ]
        other = rounds.asks_differently(entries, meeting.entries(), meeting.me, at_once=meeting.timing.at_once)
        if other is None:
            continue
        parts = {}
        with contextlib.suppress(files.UnusableFileError):
            parts = read_parts(files.read(os.path.join(path, "nodes", entry_name(other)), limit=1 << 16))
        return LaunchError(
            "all launchers of this job step to be started with the same config, run.* overrides and options",
            differences(meeting.question.parts, parts, f"launcher {other.index} on {other.machine}"),
            "Start the same command on every node",
        )
    return None


def _other_meetings(meeting: Meeting) -> list[str]:
    job, mine = os.path.split(meeting.path)
    try:
        names = os.listdir(job)
    except OSError:
        return []
    return [os.path.join(job, name) for name in names if name != mine]


def _was_an_earlier_job(meeting: Meeting, path: str, entry: rounds.Entry) -> bool:
    """Whether an entry of this machine belongs to an earlier start, whose command has ended. Then it is no mistake."""
    if entry.alive or entry.machine != meeting.me.machine:
        return False
    published = answers.all_of(path, owner=meeting.state.owner)
    return any(answer.round == entry.round and answer.failure is None for answer in published)


def _age(meeting: Meeting, path: str, entry: rounds.Entry) -> float:
    try:
        return meeting.now() - os.lstat(os.path.join(path, "nodes", entry_name(entry))).st_mtime
    except OSError:
        return 0.0
