"""The answer that a leader publishes: the resolved artifacts, or its error. It is one file, published once for a round.

A job's launchers with the same configs and options meet in one directory, where round n ends with `answer.<n>.json`. A
launcher that arrives later takes the first answer that concerns it. If no answer does, the next round begins.
"""

from __future__ import annotations

import contextlib
import json
import os

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import asdict, dataclass, field
from nemotron_exec.shared_directory import files as private

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["SCHEMA", "Agreement", "Answer", "Failure", "Lead", "all_of", "path_of", "read"]

SCHEMA = 1


@dataclass(frozen=True)
class Agreement:
    """The answer on which the launchers of the job agree.

    Attributes:
        answer: The object that `produce` returned, here or in the leader's process.
        led: Whether this process resolved.
        reused: Whether the answer existed before: this is a restart of the job, or the launcher came late.
        leader: The launcher that resolved, for people.
        directory: The directory of the leader's resolved configs; None if it wrote none.
    """

    answer: Mapping[str, Any]
    led: bool
    reused: bool
    leader: str
    directory: str | None


class Lead:
    """The argument of `produce`: a directory of the leader's own, and a way to report progress."""

    def __init__(self, directory: str, report: Callable[[str, int, int | None], None], *, made: bool = False) -> None:
        self._directory = directory
        self._report = report
        self.used = made

    @property
    def directory(self) -> str:
        """A private directory beside the answer, for files that the answer names. It is created on first use."""
        if not self.used:
            os.mkdir(self._directory, 0o700)
            self.used = True
        return self._directory

    @property
    def name(self) -> str | None:
        """Name of the directory in the answer; None until it is created."""
        return os.path.basename(self._directory) if self.used else None

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Report that `done` of `total` bytes of `what` have arrived (stores.Progress)."""
        self._report(what, done, total)


@dataclass(frozen=True)
class Failure:
    """An error as an answer: the three parts of its message, and the exit code that every launcher ends with."""

    wanted: str
    found: str
    remedy: str
    exit_code: int

    @classmethod
    def of(cls, error: LaunchError) -> Failure:
        """The failure for an exception of the leader."""
        return cls(error.wanted, error.found, error.remedy, error.exit_code)

    def exception(self) -> LaunchError:
        """The exception to raise in this process."""
        return LaunchError(self.wanted, self.found, self.remedy, exit_code=self.exit_code)


@dataclass(frozen=True)
class Answer:
    """The end of one round of the protocol.

    Attributes:
        job: Identity of the job.
        key: Digest of the question.
        round: Number of the round, from 1.
        attempt: Restart count of the job at the time of the answer.
        started: When the scheduler started that life of the job; None if unknown.
        leader: The launcher that answered, for people.
        created: Time of the answer, in seconds since the epoch by the leader's clock.
        content: The resolved content; None for a failure.
        failure: The error; None for a success.
        files: Name of the directory beside the answer that holds the resolved configs; None if there is none.
    """

    job: str
    key: str
    round: int
    attempt: int
    started: str | None
    leader: str
    created: float
    content: Mapping[str, Any] | None = None
    failure: Failure | None = None
    files: str | None = field(default=None)

    def to_bytes(self) -> bytes:
        """The content of the answer's file."""
        body = {"schema": SCHEMA, **asdict(self)}
        return (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "surrogatepass")

    @classmethod
    def from_bytes(cls, data: bytes, *, job: str | None, key: str | None, number: int) -> Answer:
        """Read and check the content of an answer's file.

        Args:
            data: The file's content.
            job: Identity of the job; None for any.
            key: Digest of the question; None for any.
            number: The round.

        Raises:
            UnusableFileError: The content is no JSON, cut off, of another job, or has values of other types.
            LaunchError: A later version of nemotron-exec wrote it.
        """
        try:
            body = json.loads(data.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            raise private.UnusableFileError("not JSON, or cut off") from None
        if not isinstance(body, dict) or not isinstance(body.get("schema"), int):
            raise private.UnusableFileError("JSON that is no answer")
        if body["schema"] > SCHEMA:
            raise LaunchError(
                f"an answer of schema {SCHEMA}",
                f"schema {body['schema']}, from a later version of nemotron-exec",
                "Use the same version on every node of the job",
            )
        try:
            return _checked(cls, body, job, key, number)
        except (KeyError, TypeError, ValueError):
            raise private.UnusableFileError("JSON that is no answer") from None


def _checked(cls: type[Answer], body: dict[str, Any], job: str | None, key: str | None, number: int) -> Answer:
    job, key = (str(body["job"]) if job is None else job), (str(body["key"]) if key is None else key)
    if (body["job"], body["key"], body["round"]) != (job, key, number):
        raise private.UnusableFileError("the answer to another question")
    failure = body["failure"]
    content = body["content"]
    if (failure is None) == (content is None) or not isinstance(content, dict | None):
        raise ValueError
    files = body["files"]
    if files is not None and (not isinstance(files, str) or "/" in files or files in ("", ".", "..")):
        raise ValueError
    return cls(
        job=job,
        key=key,
        round=number,
        attempt=int(body["attempt"]),
        started=None if body["started"] is None else str(body["started"]),
        leader=str(body["leader"]),
        created=float(body["created"]),
        content=content,
        failure=None if failure is None else _failure(failure),
        files=files,
    )


def _failure(body: dict[str, Any]) -> Failure:
    wanted, found, remedy, code = (body[name] for name in ("wanted", "found", "remedy", "exit_code"))
    if not (isinstance(code, int) and 1 <= code <= 255):
        raise ValueError
    return Failure(str(wanted), str(found), str(remedy), code)


def path_of(meeting: str, number: int) -> str:
    """The path of the answer of round `number`."""
    return os.path.join(meeting, f"answer.{number}.json")


def read(meeting: str, number: int, *, job: str, key: str, owner: int) -> Answer | None:
    """The answer of round `number`; None while there is none.

    Raises:
        UnusableFileError: There is a file, but no launcher of this job has published it.
        LaunchError: A later version of nemotron-exec has published it.
    """
    data = private.read(path_of(meeting, number), owner=owner)
    if data is None:
        return None
    found = Answer.from_bytes(data, job=job, key=key, number=number)
    if found.files is not None and not os.path.isdir(os.path.join(meeting, found.files)):
        raise private.UnusableFileError("an answer whose files are gone")
    return found


def published_in(jobs: str, *, owner: int) -> list[tuple[str, Answer]]:
    """Every answer that launchers of one job have published, to any question, with its meeting; the newest comes first.

    Args:
        jobs: The directory of the job.
        owner: User id that must own the answers.
    """
    found = [(meeting, answer) for meeting in _meetings(jobs) for answer in all_of(meeting, owner=owner)]
    return sorted(found, key=lambda pair: pair[1].created, reverse=True)


def all_of(meeting: str, *, owner: int) -> list[Answer]:
    """The answers of all rounds of one meeting that can be read."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(meeting):
            parts = name.split(".")
            if len(parts) == 3 and (parts[0], parts[2]) == ("answer", "json") and parts[1].isdecimal():
                with contextlib.suppress(private.UnusableFileError, LaunchError):
                    data = private.read(os.path.join(meeting, name), owner=owner)
                    if data is not None:
                        found.append(Answer.from_bytes(data, job=None, key=None, number=int(parts[1])))
    return found


def _meetings(jobs: str) -> list[str]:
    try:
        return [os.path.join(jobs, name) for name in os.listdir(jobs)]
    except OSError:
        return []
