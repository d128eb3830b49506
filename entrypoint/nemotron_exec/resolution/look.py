"""Finds faults before exec that a job would only show after an hour of GPU time.

Each launcher looks at what its own node sees. No fault keeps a command from starting, unless `--strict` is given.
"""

from __future__ import annotations

import json
import os
import re

from nemotron_exec.shared_directory import files
from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.artifact import Artifact

__all__ = ["concerns", "newest_checkpoint", "other_inputs"]

_LIMIT = 64 << 20  # bytes
_MANY = 2000  # files; comparing more would take longer than a start may


def concerns(artifacts: Sequence[Artifact], save_directory: str | None, *, first: bool, deep: bool) -> Iterator[str]:
    """The faults of the inputs and the save directory, as this node sees them, a sentence each.

    Args:
        artifacts: The pinned artifacts of the configs.
        save_directory: The directory where the config saves checkpoints; None where it names none.
        first: Whether to report faults that are the same on all nodes, too. Only one launcher reports them.
        deep: Whether to make checks that take longer than a start may (`--doctor`).
    """
    for artifact in artifacts:
        if os.path.isabs(artifact.path) and not os.path.exists(artifact.path):
            what = f"run.{artifact.key}: {artifact.name}:{artifact.version}"
            yield f"node {os.uname().nodename} does not see {artifact.path} ({what})"
    if save_directory is None or "://" in save_directory:
        return
    there = absolute(save_directory)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    there = os.path.realpath(there)
    if refused := _refusal(there):
        yield f"{refused}, so no checkpoint can be saved in {save_directory}"
    elif first:
        last = _last(save_directory)
        yield from _room(save_directory, there, last)
        yield from _newest(save_directory, last, deep)


def other_inputs(pinned: Mapping[str, Mapping[str, Any]], artifacts: Sequence[Artifact], directory: str) -> str | None:
    """A sentence about checkpoints in a save directory that were made from other inputs; None where the inputs agree.

    Args:
        pinned: The artifacts of the pin beside the checkpoints, by reference.
        artifacts: The artifacts of this job.
        directory: The save directory, which holds a checkpoint.
    """
    before = {str(item.get("key")): str(item.get("qualified_name")) for item in pinned.values()}
    changed = [
        f"run.{artifact.key} was {before[artifact.key]} and is {artifact.qualified_name}"
        for artifact in artifacts
        if before.get(artifact.key, artifact.qualified_name) != artifact.qualified_name
    ]
    if not changed:
        return None
    return (
        f"{directory} holds checkpoints of a job with other inputs, from which the framework goes on: "
        f"{'; '.join(changed)}. Name another save directory for a new run"
    )


def newest_checkpoint(directory: str) -> tuple[str | None, str | None]:
    """The checkpoint that a framework resumes from in a save directory, by its own rule.

    Returns:
        The path (None without a checkpoint), and why it cannot be loaded (None where no fault is known).
    """
    for row in FRAMEWORKS:
        for name in row.complete_files:
            text = _text(os.path.join(directory, name))
            if text is None or not name.endswith(".txt"):
                continue
            path = _named(directory, text.strip())
            if path is None:
                continue
            if os.path.exists(path):
                return path, None
            return path, f"{name} names {os.path.basename(path)}, which is not there"
    steps = _numbered(directory, r"step_(\d+)\Z")
    if steps:
        return os.path.join(directory, steps[-1]), None
    link = os.path.join(directory, "LATEST")
    if os.path.lexists(link):
        path = os.path.realpath(link)
        return path, None if os.path.exists(path) else f"LATEST leads to {path}, which is not there"
    return None, None


def _named(directory: str, text: str) -> str | None:
    if text.isdigit():
        return os.path.join(directory, f"iter_{int(text):07d}")
    if text == "release" or not text or "/" in text:
        return None
    return os.path.join(directory, text)


def _refusal(there: str) -> str | None:
    """Why nothing can be written to an existing path; None where no reason is known."""
    host = os.uname().nodename
    if not os.path.lexists(there):
        return f"a link leads to {there}, which is not there on node {host}"
    if not os.path.isdir(there):
        return f"{there} is no directory"
    try:
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    except OSError as error:
        return f"node {host} gets no answer about {there} ({os.strerror(error.errno or 0).lower()})"
    if read_only:
        return f"{there} is mounted read-only on node {host}"
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"user {os.geteuid()} may not write to {there} on node {host}"
    return None


def _room(directory: str, there: str, last: Mapping[str, Any]) -> Iterator[str]:
    """Compare free space and inodes with the last checkpoint, and the file system with that of the last checkpoint."""
    room = os.statvfs(there)
    needed, count = last.get("bytes"), last.get("files")
    free = room.f_bavail * room.f_frsize
    if free < (needed if isinstance(needed, int) else 1):
        yield f"{directory}: {free} bytes are free there, and the last checkpoint has {needed or 'more than none'}"
    if room.f_files and room.f_favail <= (count if isinstance(count, int) else 0):
        yield f"{directory}: {room.f_favail} inodes are free there, and the last checkpoint has {count or 'some'} files"
    yield from _quotas(directory, there, needed, count)
    yield from _file_system(directory, there, last)


def _quotas(directory: str, there: str, needed: object, count: object) -> Iterator[str]:
    from nemotron_exec.sitecustomize.payload.paths.mountinfo import mount_of, read_mounts

    mount = mount_of(read_mounts(), there)
    if mount is None or (mount.kind != "lustre" and "quota" not in mount.options.replace("noquota", "")):
        return  # most starts end here, without loading two modules
    from nemotron_exec.resolution.quota import quotas

    try:
        found = list(quotas(there))
    except OSError:
        return
    for quota in found:
        if quota.left is not None and quota.left < (needed if isinstance(needed, int) else 1):
            last = f"the last checkpoint has {needed}" if needed else "every checkpoint has more"
            yield f"{directory}: the quota of {quota.whose} leaves {quota.left} bytes there, and {last}"
        if quota.inodes is not None and quota.inodes <= (count if isinstance(count, int) else 0):
            last = f"the last checkpoint has {count} files" if count else "a checkpoint has some"
            yield f"{directory}: the quota of {quota.whose} leaves {quota.inodes} files there, and {last}"


def _file_system(directory: str, there: str, last: Mapping[str, Any]) -> Iterator[str]:
    from nemotron_exec.sitecustomize.payload.paths.mountinfo import file_system

    before = last.get("file_system")
    if isinstance(before, str) and (now := file_system(there)) != before:
        yield f"checkpoints in {directory} were saved on {before}, and it is on {now} now"


def _newest(directory: str, last: Mapping[str, Any], deep: bool) -> Iterator[str]:
    path, why = newest_checkpoint(directory)
    if why:
        yield f"{directory} cannot be resumed: {why}"
    if path is None or why:
        return
    where = last.get("version_directory")
    count = last.get("files")
    if not isinstance(where, str) or os.path.basename(str(last.get("checkpoint"))) != os.path.basename(path):
        return
    if not deep and not (isinstance(count, int) and count <= _MANY):
        return
    from nemotron_exec.sitecustomize.payload.manifest import inventory
    from nemotron_exec.sitecustomize.payload.manifest.files import open_files
    from nemotron_exec.sitecustomize.payload.manifest.names import StoreError

    try:
        recorded = inventory.read(open_files(os.path.dirname(os.path.dirname(where))), where)
    except StoreError:
        return
    if recorded and (found := inventory.damage(recorded, path)):
        yield f"{path}, from which the framework resumes, {found}"


def _last(directory: str) -> Mapping[str, Any]:
    """The commit thread's note about the last checkpoint in a save directory; {} without a note."""
    try:
        data = files.read(os.path.join(directory, ".nemotron-exec", "last.json"), limit=_LIMIT)
        body = json.loads(data or b"{}")
    except (files.UnusableFileError, ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(path: str) -> str | None:
    try:
        data = files.read(path, limit=1000)
    except files.UnusableFileError:
        return None
    return None if data is None else data.decode("utf-8", "replace")


def _numbered(directory: str, pattern: str) -> list[str]:
    try:
        names = [match for name in os.listdir(directory) if (match := re.match(pattern, name))]
    except OSError:
        return []
    return [match.string for match in sorted(names, key=lambda match: int(match[1]))]
