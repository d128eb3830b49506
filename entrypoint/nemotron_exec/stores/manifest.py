"""The manifest store: versions as JSON files in a directory or a bucket, the data where it is.

The embedded default; needs no server. Layout and promises: payload/manifest.py.
"""

from __future__ import annotations

import os
import re
import time

from nemotron_exec.artifact import Artifact
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload import manifest as layout

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from nemotron_exec.message import Messages
    from nemotron_exec.reference import Reference
    from nemotron_exec.stores import Progress

__all__ = ["ManifestStore", "artifact_of", "open_files"]

_ITERATION = re.compile(r"iter_(\d+)\Z")


def open_files(root: str) -> Any:
    """File system object of a store's root: a local path, `file://…`, or any URI that fsspec has a driver for.

    Raises:
        layout.StoreError: There is no driver.
    """
    if layout.is_local(root):
        return layout.LocalFiles(root)
    from nemotron_exec.stores.fsspec_files import FsspecFiles

    return FsspecFiles(root)


class ManifestStore:
    """Pins references to versions in a manifest store.

    Args:
        root: Path or fsspec URI.
        messages: Told of versions that `latest` or an alias passes over.
        localise: Translates a path as it was recorded on the host into the one that it has here.
    """

    def __init__(
        self, root: str, messages: Messages | None = None, *, localise: Callable[[str], str] | None = None
    ) -> None:
        self.root = root
        self._messages = messages
        self._localise = localise

    def resolve(self, references: Sequence[Reference], *, progress: Progress, timeout: float) -> list[Artifact]:
        """Pin every reference to a version whose data exists here, in the order given.

        Args:
            references: All that the job names; slashes are part of the name.
            progress: Called once for each.
            timeout: Bound on the whole call, seconds, looked at in between references.

        Raises:
            LaunchError: Unknown name or version, damaged manifest, data gone, store not readable.
            TemporaryError: The store's server or file system may answer later.
        """
        deadline = time.monotonic() + timeout
        try:
            files = open_files(self.root)
        except layout.StoreError as e:
            raise _launch_error(e) from e
        artifacts: list[Artifact] = []
        for reference in references:
            if time.monotonic() > deadline:
                raise TemporaryError(
                    f"to look up {len(references)} artifacts in the manifest store {self.root}",
                    f"only {len(artifacts)} were found within {timeout:.0f} s",
                    "Try again, or give it longer with --timeout",
                )
            artifacts.append(self._resolve_one(files, reference))
            progress(reference.text)
        return artifacts

    def _resolve_one(self, files: Any, reference: Reference) -> Artifact:
        where = f"run.{reference.key} ({reference.origin})"
        skipped: list[str] = []
        try:
            record = layout.read_version(
                files,
                reference.name,
                reference.alias,
                on_skip=lambda number, reason: skipped.append(f"v{number} {reason}"),
                localise=self._localise,
            )
            gone = layout.missing_data(files, record, self._localise)
        except layout.StoreError as e:
            raise _launch_error(e, where) from e
        if gone:
            raise LaunchError(
                f"{where}: to use {reference.name}:v{record.number} of {self.root}",
                f"it {gone}",
                "Name another version, or put the data back",
            )
        if skipped and self._messages:
            self._messages.warning(
                f"{where}: {reference.name}:{reference.alias} is v{record.number}, since " + "; ".join(skipped)
            )
        return artifact_of(record, reference, self._localise)


def artifact_of(record: layout.Record, reference: Reference, localise: Callable[[str], str] | None = None) -> Artifact:
    """The artifact that a version in the store stands for."""
    manifest, fields = record.manifest, record.metadata
    metadata = manifest.get("metadata") or {}
    recorded = manifest["path"]
    if recorded.startswith("file:"):
        recorded = "/" + recorded.removeprefix("file:").lstrip("/")
    path = localise(recorded) if localise and os.path.isabs(recorded) else recorded
    iteration = _first_number(fields.get("iteration"), metadata.get("iteration"))
    # Legacy: the recorded path is the iteration's directory. Megatron-Bridge wants the save directory and the number
    # (nemo_runspec/config/resolvers.py, resolve_artifact_pre_init).
    if legacy := _ITERATION.match(os.path.basename(path.rstrip("/"))):
        path = os.path.dirname(path.rstrip("/"))
    else:
        legacy = _ITERATION.match(os.path.basename(str(metadata.get("absolute_path") or "").rstrip("/")))
    if iteration is None and legacy:
        iteration = int(legacy.group(1))
    kind = manifest.get("type") or fields.get("type")
    return Artifact(
        key=reference.key,
        reference=reference.text,
        store="manifest",
        name=reference.name,
        version=f"v{record.number}",
        type=kind if isinstance(kind, str) else "",
        path=path,
        qualified_name=f"{reference.name}:v{record.number}",
        iteration=iteration,
        fields=fields,
        metadata=metadata,
        source=record.directory,
    )


def _first_number(*values: object) -> int | None:
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
    return None


def _launch_error(e: layout.StoreError, where: str = "") -> LaunchError:
    kind = TemporaryError if e.temporary else LaunchError
    return kind(f"{where}: {e.wanted}" if where else e.wanted, e.found, e.remedy)
