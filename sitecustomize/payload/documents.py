"""The three JSON documents that cross between launcher and injector: hand-off, outbox entry, run record.

Only type checkers and people read this file: no running code imports it. Code that reads a document checks the keys
that it uses, since the file may be of another version, and other users may write to its directory.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict

__all__ = [
    "ConfigFiles",
    "Entry",
    "EntryForWandb",
    "HandOff",
    "JobSection",
    "Launched",
    "PinnedArtifact",
    "RunRecord",
    "WandbSection",
    "WandbTarget",
]

# The hand-off: written by resolution/write.py, read by payload/handoff.py


class JobSection(TypedDict):
    """Identifies the job; `environment` has the schedulers' variables by which a stale hand-off is recognised."""

    id: str
    source: str
    environment: Dict[str, str]


class WandbSection(TypedDict, total=False):
    """`run.wandb` with what the environment adds; `resume` has the `id` of the run that the job continues."""

    project: Optional[str]
    entity: Optional[str]
    resume: Optional[Dict[str, str]]
    tags: List[str]
    required: bool


class PinnedArtifact(TypedDict):
    """An input, as `Artifact.to_json` gives it."""

    key: str
    reference: str
    store: str
    name: str
    version: str
    type: str
    path: str
    qualified_name: str
    iteration: Optional[int]
    digest: Optional[str]
    fields: Dict[str, Any]
    metadata: Dict[str, Any]
    source: Optional[str]


class ConfigFiles(TypedDict, total=False):
    """A config of the command and its resolved copy; digests where the job may not see the files."""

    original: str
    resolved: str
    original_sha256: str
    resolved_sha256: str


class Launched(TypedDict):
    """The launcher's part of the run record, without secrets."""

    command: List[str]
    cwd: str
    options: List[str]
    environment: Dict[str, str]


class HandOff(TypedDict, total=False):
    """The launcher's result for the job. The file has every key but `launched`, which only a hand-off by value has.

    Without a hand-off, `handoff.read` returns an empty one.
    """

    schema: int
    version: str
    created_at: str
    job: JobSection
    backend: Optional[str]
    store: str
    wandb: WandbSection
    artifacts: List[PinnedArtifact]
    publish: Optional[str]
    outputs: Dict[str, str]
    checkpoints: str
    on_checkpoint: List[Dict[str, Any]]
    config: List[ConfigFiles]
    run_record: Optional[str]
    launched: Launched


# An entry of an outbox: written by checkpoints/record.py, read by the next start and by `nemotron-artifact flush`


class WandbTarget(TypedDict):
    """The place in W&B for an entry."""

    name: str
    published: bool
    aliases: List[str]
    project: Optional[str]
    entity: Optional[str]
    run: Optional[str]


class _Described(TypedDict):
    event: str
    created_at: str
    store: str
    name: str
    type: str
    path: str
    checkpoint_path: str
    local_path: str
    save_dir: str
    iteration: Optional[int]
    aliases: List[str]
    latest: bool
    gone: bool
    metadata: Dict[str, Any]
    used_artifacts: List[str]
    producer: str
    process: Dict[str, Any]


class _Noted(_Described, total=False):
    """Facts of a checkpoint that are added after it was described.

    Attributes:
        schema: Schema version; only the file has it.
        file_system: Type of the file system of the save directory.
        renamed_from: Former name of the directory, where the framework's last step is a rename.
        ends_with: For an output: the exit code with which its command has to end.
        since: Start time of the process that saved (same_save.py).
        supersedes: Event of the version that this save overwrites.
        sent_by: The W&B run that sends the checkpoint in this process's place.
        registered: Directory of the version, once there is one.
        number: N of `vN`.
        hooks: Hooks to run once the store has it (`run.on_checkpoint`, hooks.py), with `best` and `looked_up_in_wandb`.
        end_file: Name of the file for the exit code of the process that saved, for its hooks.
    """

    schema: int
    file_system: str
    renamed_from: str
    ends_with: int
    since: str
    supersedes: Optional[str]
    sent_by: str
    registered: str
    number: int
    hooks: List[Dict[str, Any]]
    best: Optional[bool]
    end_file: str
    looked_up_in_wandb: bool


class Entry(_Noted):
    """A completed checkpoint, or an output, that a store does not have yet. It has `wandb` if it is to go to W&B."""

    wandb: Optional[WandbTarget]


class EntryForWandb(_Noted):
    """An entry that is to go to W&B."""

    wandb: WandbTarget


# The run record: written once a job by checkpoints/run_record.py, read by `nemotron-artifact show` and `diff`


class _Run(TypedDict, total=False):
    options: List[str]
    environment: Dict[str, str]


class RunRecord(_Run):
    """Describes a job: its command, code, versions and machine."""

    schema: int
    created_at: str
    command: List[str]
    cwd: str
    config: List[ConfigFiles]
    nemotron_exec: Optional[str]
    job: Optional[str]
    host: str
    artifacts: List[Dict[str, Any]]
    code: Dict[str, Any]
    image: Optional[str]
    python: str
    versions: Dict[str, str]
    packages: Any
    scheduler: Any
    gpus: Any
