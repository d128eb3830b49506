"""Step 3, resolve: later jobs keep the versions that an earlier job has chosen.

A long run is a chain of jobs with new ids. Its pin lies beside its output, in the directory where the config saves
checkpoints. A job that resumes there keeps the versions with which the directory was begun.

A single job is pinned by its answers. A later start of the same job keeps the versions of the newest answer, even if
its config has changed elsewhere.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
import time

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass, replace
from nemotron_exec.shared_directory import files
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.place.state_directory import StateDirectory

__all__ = ["DIRECTORY", "NAME", "Pinned", "Pins", "holds_checkpoint"]

DIRECTORY = ".nemotron-exec"
"""Directory of the pin, beside the checkpoints; the outbox lies there, too."""
NAME = "pin.json"
RUN = "wandb-run"
"""File beside the pin with the id of the W&B run."""
_SCHEMA = 1
_LIMIT = 16 << 20
_COMPLETE_FILES = frozenset(name for framework in FRAMEWORKS for name in framework.complete_files)
_COMPLETE_DIRECTORY = pattern("|".join(row.complete_directory for row in FRAMEWORKS if row.complete_directory))
_RUN = pattern(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True)
class Pinned:
    """The references of a config, divided into pinned and open ones.

    Attributes:
        artifacts: The artifacts that are pinned and whose data is here, under the keys of this config.
        open: The references that a store must still resolve. A pinned one whose data is gone asks for its pinned
            version.
    """

    artifacts: list[Artifact]
    open: list[Reference]


class Pins:
    """The pins that concern one launch.

    Args:
        state: The state directory, where the pin of the job is kept.
        job: The job to which the pin belongs.
        place: The launcher and its attempt. A step of the job that runs at the same time is no earlier start.
        save_directory: The directory where the config, after overrides, saves checkpoints; None if it names none.
        file: The value of `--pin FILE`, which is used instead of the pin beside the output.
        refresh: Whether `--refresh` is given: no pin is read, and the newly resolved versions are pinned.
        messages: For the line that tells that a pin was used.
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
        self._state, self._job, self._place = state, job, place
        self._job_directory = os.path.join(state.path, "jobs", job.directory)
        self._save_directory = save_directory
        self._file = file
        self._refresh = refresh
        self._messages = messages

    def apply(self, references: Sequence[Reference]) -> Pinned:
        """Divide the references into pinned ones, whose version is chosen already, and open ones."""
        pinned: dict[str, Artifact] = {}
        if not self._refresh:
            # The pin of the output wins: its checkpoints were made from these versions.
            pinned, recorded = self._of_output(references)
            pinned = self._of_job(references, known=pinned) | pinned
            references = [replace(item, alias=recorded.get(item.text, item.alias)) for item in references]
        here = [
            replace(pinned[item.text], key=item.key, reference=item.text)
            for item in references
            if item.text in pinned and _present(pinned[item.text])
        ]
        there = [
            replace(item, alias=pinned[item.text].pinned_alias) if item.text in pinned else item
            for item in references
            if item.text not in pinned or not _present(pinned[item.text])
        ]
        return Pinned(here, there)

    def write(self, artifacts: Sequence[Artifact]) -> None:
        """Pin the published versions, for later jobs that resume from this output.

        If the directory cannot be written, it is only a warning: the job itself does not need the pin.

        Args:
            artifacts: The artifacts of all references of the config.
        """
        entries = {artifact.reference: artifact.to_json() for artifact in artifacts}
        if not entries:
            return
        if (path := self._output_path()) is None:
            return
        try:
            _refuse_link(path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kept = {}
            if not self._refresh and (self._file or holds_checkpoint(self._save_directory)):
                # Another stage may save here, too, so keep its entries. An entry with one of this job's keys is
                # replaced, because the user has changed its version on purpose.
                keys = {artifact["key"] for artifact in entries.values()}
                kept = {text: item for text, item in _read(path)[1].items() if item.get("key") not in keys}
            _replace(path, {**kept, **entries}, self._job.id, self._place.attempt, durable=True)
        except files.UnusableFileError as error:
            self._warn(path, error)
        except OSError as error:
            self._warn(path, error)

    def other_inputs(self, artifacts: Sequence[Artifact]) -> str | None:
        """A sentence if the output holds checkpoints that were made from other inputs than this job's; else None."""
        path = self._output_path()
        if path is None or self._save_directory is None or not holds_checkpoint(self._save_directory):
            return None
        from nemotron_exec.resolution.look import other_inputs

        try:
            pinned = _read(path)[1]
        except files.UnusableFileError:
            return None  # `apply` has reported the fault
        if not pinned:
            pinned = {str(item["key"]): item for item in _recorded(self._save_directory)}
        return other_inputs(pinned, artifacts, self._save_directory)

    def run_identity(self) -> str:
        """The id of the W&B run that this job continues, or that later jobs will continue (`run.wandb.resume: auto`).

        It is the id in the output directory, if a checkpoint is there. Otherwise it is the id of this job's earlier
        attempts, else a new one. It is stored in both places.
        """
        kept = os.path.join(self._job_directory, RUN)
        beside = os.path.join(self._save_directory, DIRECTORY, RUN) if self._save_directory else None
        found = None
        if not self._refresh:
            if beside and holds_checkpoint(self._save_directory):
                found = _read_run(beside)
            if found is None and self._place.attempt > 0:
                found = _read_run(kept)
        identity = found or os.urandom(8).hex()
        for path in filter(None, (kept, beside)):
            try:
                if path == beside:
                    _refuse_link(path)
                os.makedirs(os.path.dirname(path), 0o700 if path == kept else 0o777, exist_ok=True)
                files.replace(path, identity.encode(), durable=path == beside)
            except OSError as error:
                self._warn(path, error)
            except files.UnusableFileError as error:
                self._warn(path, error)
        return identity

    # -- reading ----------------------------------------------------------------------------------------------------

    def _of_output(self, references: Sequence[Reference]) -> tuple[dict[str, Artifact], dict[str, str]]:
        """The artifacts of the pin beside the output; if it is damaged, also versions from the last run record."""
        path = self._output_path()
        if path is None or not (self._file or holds_checkpoint(self._save_directory)):
            return {}, {}
        texts = {item.text for item in references}
        try:
            found = {text: Artifact.from_json(item) for text, item in _read(path)[1].items() if text in texts}
        except files.UnusableFileError as error:
            return self._instead_of(path, str(error), references)
        except TypeError:
            return self._instead_of(path, "an entry that is no artifact", references)
        if lacking := [item.qualified_name for item in found.values() if _lacks(item)]:
            return self._instead_of(path, f"the store has no {', '.join(lacking)}", references)
        if found:
            listed = ", ".join(f"{text} is {item.version}" for text, item in sorted(found.items()))
            self._messages.info(f"pinned by {path}: {listed} (--refresh asks again)")
        return found, {}

    def _instead_of(
        self, path: str, why: str, references: Sequence[Reference]
    ) -> tuple[dict[str, Artifact], dict[str, str]]:
        found = self._of_job(references, known={})
        recorded = {} if self._save_directory is None else _last_record(self._save_directory, references)
        if lost := [item.text for item in references if item.text not in found and item.text not in recorded]:
            raise LaunchError(
                f"to keep the versions of {', '.join(lost)} with which {self._save_directory or path} was begun",
                f"the pin {path} cannot be used ({why}), and no answer of this job and no run record there names them",
                "Restore the pin, write the versions into the config, or ask for the newest with --refresh",
            )
        kept = {**recorded, **{text: item.version for text, item in found.items()}}
        listed = ", ".join(f"{text} is {version}" for text, version in sorted(kept.items()))
        self._messages.warning(
            f"the pin {path} cannot be used ({why}): {listed}, as at the last start (--refresh asks again)"
        )
        return found, recorded

    def _of_job(self, references: Sequence[Reference], known: Mapping[str, Artifact]) -> dict[str, Artifact]:
        """The artifacts on which earlier starts of the job have agreed, the newest answer first."""
        from nemotron_exec.rendezvous import answer as answers
        from nemotron_exec.rendezvous import meeting, rounds

        wanted = {item.text for item in references} - known.keys() if self._job.lasting else set()
        me = meeting.launcher(self._place, self._job)
        found: dict[str, Artifact] = {}
        for path, answer in answers.published_in(self._job_directory, owner=self._state.owner):
            if not wanted - found.keys():
                break
            if answer.content is None:
                continue
            silent = time.time() - meeting.last_sign(path, answer)
            if rounds.other_life(answer, me, lambda: silent):  # noqa: B023  the function is called at once
                continue
            if answer.job != self._job.id and rounds.runs_at_once(meeting.entries_in(path, me), me):
                continue  # another step runs at the same time
            with contextlib.suppress(KeyError, TypeError):
                for item in answer.content["artifacts"]:
                    if (text := item["reference"]) in wanted:
                        found.setdefault(text, Artifact.from_json(item))
        if found:
            listed = ", ".join(f"{text} is {item.version}" for text, item in sorted(found.items()))
            self._messages.info(
                f"using the versions of an earlier start of {self._job.job}: {listed} (--refresh asks again)"
            )
        return found

    def _warn(self, path: str, error: Exception) -> None:
        text = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        self._messages.warning(f"the versions cannot be pinned in {path} ({text}): a later job may get newer ones")

    def _output_path(self) -> str | None:
        if self._file:
            return absolute(self._file)
        return None if self._save_directory is None else os.path.join(self._save_directory, DIRECTORY, NAME)


def _recorded(directory: str) -> list[dict[str, Any]]:
    """The artifacts of the newest run record beside the checkpoints; none where no record can be read."""
    runs = os.path.join(directory, DIRECTORY, "runs")
    try:
        paths = [os.path.join(runs, name) for name in os.listdir(runs) if name.endswith(".json")]
        newest = max(paths, key=lambda path: os.lstat(path).st_mtime)
        body = json.loads(files.read(newest, limit=_LIMIT) or b"")
        return [{"key": item.get("key"), **item} for item in body["artifacts"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, files.UnusableFileError):
        return []


def _last_record(directory: str, references: Sequence[Reference]) -> dict[str, str]:
    """Versions by reference, from the newest run record beside the checkpoints."""
    named = {str(item.get("reference")): str(item.get("qualified_name")) for item in _recorded(directory)}
    found = {}
    for item in references:
        name, _, version = named.get(item.text, "").rpartition(":")
        # For a collection of a registry the record names the source artifact, which has other version numbers.
        if version and name.rpartition("/")[2] == item.name.rpartition("/")[2]:
            found[item.text] = version
    return found


def holds_checkpoint(directory: str | None) -> bool:
    """Whether a completed checkpoint is in `directory`, which can be resumed. Then the pin there counts."""
    if directory is None:
        return False
    try:
        with os.scandir(directory) as entries:
            return any(
                (entry.name in _COMPLETE_FILES and entry.is_file())
                or (_COMPLETE_DIRECTORY.fullmatch(entry.name) is not None and entry.is_dir())
                for entry in entries
            )
    except OSError:
        return False


def _present(artifact: Artifact) -> bool:
    """Whether a pinned version needs no store. The hub's store must check the cache, which may have lost files."""
    if artifact.store == "huggingface":
        return False
    return not os.path.isabs(artifact.path) or os.path.exists(artifact.path)


def _lacks(artifact: Artifact) -> bool:
    """Whether the manifest store here has other versions of the artifact, but not this one."""
    source = artifact.source
    if artifact.store != "manifest" or not source or not os.path.isabs(source):
        return False
    return os.path.isdir(os.path.dirname(source)) and not os.path.lexists(os.path.join(source, "manifest.json"))


def _read_run(path: str) -> str | None:
    try:
        text = (files.read(path, limit=200) or b"").decode("ascii", "replace").strip()
    except files.UnusableFileError:
        return None
    return text if _RUN.match(text) else None


def _refuse_link(path: str) -> None:
    link = outbox.linked(os.path.dirname(path))
    if link:
        raise files.UnusableFileError(f"{link} is a symbolic link: remove it")


def _read(path: str) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """The attempt that wrote the pin, and its artifacts by their references' texts; (-1, {}) if there is no pin."""
    directory = os.path.dirname(path)
    _refuse_link(path)
    try:
        writable_by_all = bool(os.stat(directory).st_mode & stat.S_IWOTH)
    except OSError:
        return -1, {}
    # In a team's directory every member may write the pin. Where everybody may write, only this user's pin counts.
    data = files.read(path, limit=_LIMIT, owner=os.geteuid() if writable_by_all else None)
    if data is None:
        return -1, {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise files.UnusableFileError("not JSON, or cut off") from None
    if not isinstance(body, dict) or not isinstance(body.get("artifacts"), dict):
        raise files.UnusableFileError("JSON that is no pin")
    if body.get("schema") != _SCHEMA:
        raise files.UnusableFileError(f"schema {body.get('schema')!r}, not {_SCHEMA}")
    entries = body["artifacts"]
    if not all(isinstance(item, dict) and isinstance(item.get("path"), str) for item in entries.values()):
        raise files.UnusableFileError("an entry that is no artifact")
    if body.get("sha256", digest := _digest(entries)) != digest:
        raise files.UnusableFileError("its checksum is another: a damaged disk, or an edit that left it in")
    attempt = body.get("attempt")
    return attempt if isinstance(attempt, int) else -1, entries


def _digest(entries: Mapping[str, Any]) -> str:
    """Checksum of the entries. It shows a flipped bit that leaves valid JSON, but would select other versions."""
    from nemotron_exec.sitecustomize.payload.sha256 import sha256

    return sha256(json.dumps(entries, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _replace(path: str, entries: Mapping[str, Any], job: str, attempt: int, *, durable: bool) -> None:
    body = {
        "schema": _SCHEMA,
        "job": job,
        "attempt": attempt,
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "artifacts": entries,
        "sha256": _digest(entries),
    }
    files.replace(
        path, (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "surrogatepass"), durable=durable
    )
