"""The leader's writes to the meeting: its answer, which is published once, and the removal of files without use."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from nemotron_exec.errors import LaunchError
from nemotron_exec.rendezvous import answer as answers
from nemotron_exec.rendezvous import retention, rounds
from nemotron_exec.rendezvous.answer import Agreement, Answer, Failure, Lead
from nemotron_exec.rendezvous.meeting import failed, no_links
from nemotron_exec.shared_directory import files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.rendezvous.meeting import Meeting

__all__ = ["adopt", "answer_of", "clean", "discard", "hold_exit_code", "lead_of", "publish", "sweep"]


def lead_of(meeting: Meeting, report: Callable[[str, int, int | None], None]) -> Lead:
    """The argument of `produce` in this round."""
    return Lead(os.path.join(meeting.path, f"files.{meeting.round}.{os.urandom(8).hex()}"), report)


def answer_of(
    meeting: Meeting,
    content: Mapping[str, object] | None = None,
    *,
    failure: LaunchError | None = None,
    lead: Lead | None = None,
) -> Answer:
    """The answer of this round, from the resolved content or from the error."""
    return Answer(
        meeting.job.id,
        meeting.key,
        meeting.round,
        meeting.me.place.attempt,
        meeting.job.started,
        meeting.name,
        time.time(),
        content,
        None if failure is None else Failure.of(failure),
        None if lead is None else lead.name,
    )


def publish(meeting: Meeting, answer: Answer, *, durable: bool) -> bool:
    """Publish `answer` as the only one of its round. Return False if the round has another answer.

    Raises:
        LaunchError: The file system has no hard links.
        TemporaryError: The directory is full, or gone.
    """
    path = answers.path_of(meeting.path, answer.round)
    try:
        if durable:
            _sync_files(meeting, answer)
        published = _put(meeting, path, answer.to_bytes(), durable=durable)
    except OSError as error:
        raise failed(meeting.path, error) from None
    if durable and published:
        _sync_directories(meeting)
    meeting.messages.debug(f"link {'won' if published else 'lost to another launcher'}: {path}")
    if published:
        _hand_on(meeting, answer)
    return published


def _put(meeting: Meeting, path: str, data: bytes, *, durable: bool) -> bool:
    try:
        return files.publish(path, data, durable=durable)
    except files.LinkRefusedError:
        if not meeting.me.place.single:
            raise no_links(meeting.path) from None
    files.replace(path, data, durable=durable)
    return True


def _sync_files(meeting: Meeting, answer: Answer) -> None:
    """Sync the directories of the answer's files, so that the files are on disk before the answer names them."""
    if answer.files is not None:
        for directory, _, _ in os.walk(os.path.join(meeting.path, answer.files)):
            files.sync_directory(directory)


def _sync_directories(meeting: Meeting) -> None:
    """Sync the directories above the answer, which is on disk itself.

    A failure is only a warning: the other launchers have seen the answer and start with it, so this one must start,
    too.
    """
    directory = meeting.path
    try:
        while len(directory) >= len(meeting.state.path):
            directory = os.path.dirname(directory)
            files.sync_directory(directory)
    except OSError as error:
        meeting.messages.warning(
            f"{directory} cannot be made durable ({(error.strerror or str(error)).lower()}): after a power cut a "
            "restart may not find this job's answer, and resolves anew"
        )


def adopt(meeting: Meeting, answer: Answer, *, late: bool) -> Agreement:
    """Take an answer that another process, or an earlier start, has published.

    Raises:
        LaunchError: The answer is an error.
    """
    _hand_on(meeting, answer)
    meeting.messages.debug(
        f"adopted the {'error' if answer.failure else 'answer'} of round {answer.round} by {answer.leader}"
    )
    if answer.failure is not None:
        hold_exit_code()
        raise answer.failure.exception()
    directory = None if answer.files is None else os.path.join(meeting.path, answer.files)
    assert answer.content is not None
    return Agreement(answer.content, led=False, reused=late, leader=answer.leader, directory=directory)


def hold_exit_code() -> None:
    """Ignore SIGTERM from now on, so that this launcher ends with the exit code of the job's error.

    `srun --kill-on-bad-exit` terminates all other launchers as soon as the first one ends. Slurm would then report 143
    instead of 75.
    """
    with contextlib.suppress(ValueError):  # a thread other than the main one cannot set handlers
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _hand_on(meeting: Meeting, answer: Answer) -> None:
    if meeting.relay is not None and meeting.me.place.local_index == 0:
        meeting.relay.write(answer)


# -- tidying up -------------------------------------------------------------------------------------------------------


def discard(meeting: Meeting, lead: Lead) -> None:
    """Remove the leader's files if no launcher will read them."""
    if lead.name is None:
        return
    try:
        found = meeting.read(meeting.round)
    except (files.UnusableFileError, LaunchError):
        return  # the damaged answer may name these files; the next leader removes them if not
    if rounds.superfluous(lead.name, found):
        import shutil

        shutil.rmtree(lead.directory, ignore_errors=True)


def clean(meeting: Meeting) -> None:
    """Remove the state of old jobs."""
    retention.clean(meeting.state, keep=meeting.job.directory, now=meeting.now())


_PROBE = 60.0  # seconds; a probe of the clock exists for milliseconds


def _break_lease(meeting: Meeting) -> None:
    """Remove the lease of a dead leader, as filelock does: take it first, since another launcher may take it now."""
    path = os.path.join(meeting.path, "lease")
    timing = meeting.timing
    try:
        silent = meeting.now() - os.lstat(path).st_mtime
    except OSError:
        return
    if silent > timing.lease + timing.heartbeat:
        from nemotron_exec.shared_directory.lease import Lease

        lease = Lease(path, meeting.now, duration=timing.lease, heartbeat=timing.heartbeat)
        if lease.acquire():
            lease.release()


def sweep(meeting: Meeting, keep: str | None) -> None:
    """Remove files of leaders that were killed or came too late, of this round or an earlier one, and old jobs' state.

    Args:
        meeting: The meeting.
        keep: Name of the directory that the published answer names.
    """
    clean(meeting)
    files.sweep(meeting.path)
    # Keep younger probes: launchers that are alive use them to read the clock.
    files.sweep(meeting.nodes, before=meeting.now() - _PROBE)
    _break_lease(meeting)
    with contextlib.suppress(OSError):
        for name in os.listdir(meeting.path):
            path = os.path.join(meeting.path, name)
            if name.startswith("files.") and name != keep and _has_no_reader(meeting, name):
                import shutil

                shutil.rmtree(path, ignore_errors=True)
            elif name.startswith("lease.break.") or (
                name == "progress.json" and not os.path.lexists(os.path.join(meeting.path, "lease"))
            ):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _has_no_reader(meeting: Meeting, name: str) -> bool:
    """Whether no answer names a directory of files: one of this round, or of an earlier round with another answer."""
    number = name.split(".")[1]
    if number == str(meeting.round):
        return True  # the caller keeps the directory of this round's answer
    # Commands of an earlier round may still run. An answer that cannot be read may name any directory of its round.
    published = answers.all_of(meeting.path, owner=meeting.state.owner)
    return any(str(answer.round) == number and answer.files != name for answer in published)
