"""Step 3, resolve: versions that an earlier job has chosen, and that a later one keeps.

Long runs are chains of jobs with new ids. The pin that counts for them lies beside their output, in the directory that
the config saves checkpoints to: whatever resumes there keeps the versions with which that directory was begun. A second
pin belongs to the job itself, for a restart whose config has changed in something other than its references.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import stat

from nemotron_exec import private
from nemotron_exec.artifact import Artifact
from nemotron_exec.frozen import dataclass, replace

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from nemotron_exec.job import JobIdentity
    from nemotron_exec.message import Messages
    from nemotron_exec.rank import Place
    from nemotron_exec.reference import Reference
    from nemotron_exec.state import StateDirectory

__all__ = ["DIRECTORY", "NAME", "Pinned", "Pins", "holds_checkpoint"]

DIRECTORY = ".nemotron-exec"
"""Beside the checkpoints, with the outbox."""
NAME = "pin.json"
RUN = "wandb-run"
"""Beside it: the id of the W&B run."""
_SCHEMA = 1
_LIMIT = 16 << 20
# What says that a checkpoint is complete: Megatron's tracker files, written last, and NeMo-RL's rename of tmp_step_N.
_TRACKERS = frozenset({"latest_checkpointed_iteration.txt", "latest_train_state.pt"})
_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_STEP = re.compile(r"step_\d+\Z")


@dataclass(frozen=True)
class Pinned:
    """The references of a config, divided.

    Attributes:
        artifacts: Those that are pinned and whose data is here, under the keys of this config.
        open: Those that a store must still resolve. Pinned ones whose data is gone ask for their pinned version.
    """

    artifacts: list[Artifact]
    open: list[Reference]


class Pins:
    """The pins that concern one launch.

    Args:
        state: Where the pin of the job is kept.
        job: Whose it is.
        place: Its attempt: only a later attempt than the one that pinned is held by the pin of the job.
        save_directory: Where the config, with its overrides, saves checkpoints; None if it does not say.
        file: `--pin FILE`; counts whatever is beside it.
        refresh: `--refresh`: no pin is read; what is resolved now is pinned.
        messages: For the one line that says that a pin was used.
    """

    def __init__(
        self,
        state: StateDirectory,
        job: JobIdentity,
        place: Place,
        *,
        save_directory: str | None,
        file: str | None,
        refresh: bool,
        messages: Messages,
    ) -> None:
        self._job, self._attempt = job, place.attempt
        self._job_directory = os.path.join(state.path, "jobs", job.directory, "pins")
        self._save_directory = save_directory
        self._file = file
        self._refresh = refresh
        self._messages = messages

    def apply(self, references: Sequence[Reference]) -> Pinned:
        """Divide the references into those whose version is already chosen and those to be resolved."""
        pinned: dict[str, Artifact] = {}
        if not self._refresh:
            pinned = self._of_job(references)
            # The output's own pin is the stronger one: it holds what its checkpoints were made from.
            pinned |= self._of_output(references)
        here = [
            replace(pinned[item.text], key=item.key, reference=item.text)
            for item in references
            if item.text in pinned and _present(pinned[item.text])
        ]
        there = [
            replace(item, alias=pinned[item.text].version) if item.text in pinned else item
            for item in references
            if item.text not in pinned or not _present(pinned[item.text])
        ]
        return Pinned(here, there)

    def write(self, artifacts: Sequence[Artifact]) -> None:
        """Pin what has been published, for restarts of this job and for later jobs that resume in its output.

        A directory that cannot be written is one warning: the job itself does not need the pin.

        Args:
            artifacts: Those of all references of the config.
        """
        entries = {artifact.reference: artifact.to_json() for artifact in artifacts}
        if not entries:
            return
        path = self._job_path(entries)
        try:
            if not os.path.isdir(self._job_directory):
                os.makedirs(self._job_directory, 0o700, exist_ok=True)
            _replace(path, entries, self._job.id, self._attempt, durable=False)
        except OSError as error:
            self._warn(path, error)
        self._write_output(entries)

    def _write_output(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        if (path := self._output_path()) is None:
            return
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kept = {}
            if not self._refresh and (self._file or holds_checkpoint(self._save_directory)):
                # Another stage may save here too. Whoever now names another version has changed their mind about it.
                keys = {artifact["key"] for artifact in entries.values()}
                kept = {text: item for text, item in _read(path)[1].items() if item.get("key") not in keys}
            _replace(path, {**kept, **entries}, self._job.id, self._attempt, durable=True)
        except private.UnusableFileError as error:
            self._warn(path, error)
        except OSError as error:
            self._warn(path, error)

    def run_identity(self) -> str:
        """The id of the W&B run that this job continues, or that later ones will (`run.wandb.resume: auto`).

        That of the output directory where it holds something to resume, else that of this job's earlier attempts, else
        a new one, kept for both.
        """
        kept = os.path.join(self._job_directory, RUN)
        beside = os.path.join(self._save_directory, DIRECTORY, RUN) if self._save_directory else None
        found = None
        if not self._refresh:
            if beside and holds_checkpoint(self._save_directory):
                found = _read_run(beside)
            if found is None and self._attempt > 0:
                found = _read_run(kept)
        identity = found or os.urandom(8).hex()
        for path in filter(None, (kept, beside)):
            try:
                os.makedirs(os.path.dirname(path), 0o700 if path == kept else 0o777, exist_ok=True)
                private.replace(path, identity.encode(), durable=path == beside)
            except OSError as error:
                self._warn(path, error)
        return identity

    # -- reading ----------------------------------------------------------------------------------------------------

    def _of_output(self, references: Sequence[Reference]) -> dict[str, Artifact]:
        path = self._output_path()
        if path is None or not (self._file or holds_checkpoint(self._save_directory)):
            return {}
        found = self._wanted(path, references)[1]
        if found:
            listed = ", ".join(f"{text} is {item.version}" for text, item in sorted(found.items()))
            self._messages.info(f"pinned by {path}: {listed} (--refresh asks again)")
        return found

    def _of_job(self, references: Sequence[Reference]) -> dict[str, Artifact]:
        attempt, found = self._wanted(self._job_path({item.text for item in references}), references)
        if not found or attempt >= self._attempt:
            return {}
        self._messages.info(f"restart of {self._job.id}: versions as in attempt {attempt} (--refresh asks again)")
        return found

    def _wanted(self, path: str, references: Sequence[Reference]) -> tuple[int, dict[str, Artifact]]:
        try:
            attempt, entries = _read(path)
            texts = {item.text for item in references}
            return attempt, {text: Artifact.from_json(item) for text, item in entries.items() if text in texts}
        except private.UnusableFileError as error:
            self._messages.warning(f"ignoring the pin {path}: {error}")
        except TypeError:
            self._messages.warning(f"ignoring the pin {path}: an entry that is no artifact")
        return -1, {}

    def _warn(self, path: str, error: Exception) -> None:
        text = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        self._messages.warning(f"the versions cannot be pinned in {path} ({text}): a later job may get newer ones")

    def _output_path(self) -> str | None:
        if self._file:
            return os.path.abspath(self._file)
        return None if self._save_directory is None else os.path.join(self._save_directory, DIRECTORY, NAME)

    def _job_path(self, references: Collection[str]) -> str:
        text = json.dumps(sorted(references))
        return os.path.join(self._job_directory, hashlib.sha256(text.encode()).hexdigest()[:16] + ".json")


def holds_checkpoint(directory: str | None) -> bool:
    """Whether a completed checkpoint is in `directory`: there is something to resume, so its versions count."""
    if directory is None:
        return False
    try:
        with os.scandir(directory) as entries:
            return any(
                (entry.name in _TRACKERS and entry.is_file()) or (bool(_STEP.match(entry.name)) and entry.is_dir())
                for entry in entries
            )
    except OSError:
        return False


def _present(artifact: Artifact) -> bool:
    return not os.path.isabs(artifact.path) or os.path.exists(artifact.path)


def _read_run(path: str) -> str | None:
    try:
        text = (private.read(path, limit=200) or b"").decode("ascii", "replace").strip()
    except private.UnusableFileError:
        return None
    return text if _RUN.match(text) else None


def _read(path: str) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """The attempt that pinned, and the artifacts by the text of their references; (-1, {}) if there is no pin."""
    directory = os.path.dirname(path)
    try:
        writable_by_all = bool(os.stat(directory).st_mode & stat.S_IWOTH)
    except OSError:
        return -1, {}
    # A team's directory holds the pins of all its members. In one that everybody may write to, only ours is ours.
    data = private.read(path, limit=_LIMIT, owner=os.geteuid() if writable_by_all else None)
    if data is None:
        return -1, {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise private.UnusableFileError("not JSON, or cut off") from None
    if not isinstance(body, dict) or not isinstance(body.get("artifacts"), dict):
        raise private.UnusableFileError("JSON that is no pin")
    if body.get("schema") != _SCHEMA:
        raise private.UnusableFileError(f"schema {body.get('schema')!r}, not {_SCHEMA}")
    entries = body["artifacts"]
    if not all(isinstance(item, dict) and isinstance(item.get("path"), str) for item in entries.values()):
        raise private.UnusableFileError("an entry that is no artifact")
    attempt = body.get("attempt")
    return attempt if isinstance(attempt, int) else -1, entries


def _replace(path: str, entries: Mapping[str, Any], job: str, attempt: int, *, durable: bool) -> None:
    body = {
        "schema": _SCHEMA,
        "job": job,
        "attempt": attempt,
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "artifacts": entries,
    }
    private.replace(
        path, (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "surrogatepass"), durable=durable
    )
