"""The origin of a version: its run record, and one command line that starts the same job again."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.manifest import files, names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nemotron_exec.artifact_cli.inventory import Entry

__all__ = ["command_again", "doubts", "record_at", "record_of"]


def record_at(path: object) -> dict[str, Any]:
    """The run record at `path`; {} where it cannot be read."""
    if not isinstance(path, str) or not os.path.isabs(path):
        return {}
    try:
        data = files.LocalFiles(os.path.dirname(path)).read(path)
        record = json.loads(data) if data is not None else None
    except (names.StoreError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def record_of(entry: Entry) -> dict[str, Any]:
    """The run record of a version.

    Raises:
        LaunchError: The version names no run record, or the file is gone.
    """
    metadata = entry.manifest.get("metadata")
    named = entry.manifest.get("run_record") or (metadata.get("run_record") if isinstance(metadata, dict) else None)
    wanted = f"to say what made {entry.qualified_name}"
    if not named:
        raise LaunchError(
            wanted, "it names no run record", "Only a checkpoint of a job that nemotron-exec has started has one"
        )
    record = record_at(named)
    if not isinstance(record.get("command"), list) or not record["command"]:
        raise LaunchError(wanted, f"its run record {named} cannot be read here", "Ask where that directory is mounted")
    return record


def command_again(record: Mapping[str, Any]) -> str:
    """A line for a shell that starts the job again: directory, environment, launcher with pinned versions, command."""
    words = [str(word) for word in record["command"]]
    pins = [word for key, name in _pinned(record) for word in ("--artifact", f"{key}={name}")]
    if pins or "options" in record:
        words = ["nemotron-exec", *map(str, record.get("options") or ()), *pins, "--", *words]
    environment = record.get("environment")
    given = [f"{name}={value}" for name, value in environment.items()] if isinstance(environment, dict) else []
    if given:
        words = ["env", *given, *words]
    return f"cd {shlex.quote(str(record.get('cwd') or '.'))} && {shlex.join(words)}"


def doubts(record: Mapping[str, Any]) -> Iterator[str]:
    """Why the command may not start the same job again."""
    if "***" in command_again(record):
        yield "*** stands in place of a secret: put it in"
    for one in record.get("config") or ():
        path, digest = (one.get("original"), one.get("original_sha256")) if isinstance(one, dict) else (None, None)
        now = _digest(path)
        if path and digest and now != digest:
            yield f"{path} {'has changed' if now else 'is gone'} since"
    code = record.get("code")
    code = code if isinstance(code, dict) else {}
    if code.get("commit"):
        changes = ", with changes that were not committed" if code.get("dirty") else ""
        yield f"the code was commit {code['commit']} of {code.get('root')}{changes}"
    if record.get("image"):
        yield f"it ran in the image {record['image']}"
    for one in record.get("artifacts") or ():
        if isinstance(one, dict) and " (" in str(one.get("reference")):
            yield f"run.{one.get('key')} takes some files only, and is pinned by the config: {one['reference']}"


def _pinned(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one in record.get("artifacts") or ():
        # A mapping with patterns cannot be written on the command line.
        if (
            isinstance(one, dict)
            and one.get("key")
            and one.get("qualified_name")
            and " (" not in str(one.get("reference"))
        ):
            yield str(one["key"]), str(one["qualified_name"])


def _digest(path: object) -> str | None:
    try:
        with open(str(path), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None
