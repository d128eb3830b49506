"""The manifest store: versions are JSON files in a directory or a bucket, and the data stays where it is.

It is the default, and needs no server. payload/manifest.py describes its layout and promises.
"""

from __future__ import annotations

import time

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.frozen import replace
from nemotron_exec.sitecustomize.payload.artifact import describe_record
from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import listing, names, read

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
    from nemotron_exec.stores.protocol import Progress, StoreContext

__all__ = ["ManifestStore", "artifact_of", "open_files"]

_AT_ONCE = 16  # references that are looked up at the same time


def open_files(root: str) -> Any:
    """The file system of a store's root: a local path, `file://…`, or any URI for which fsspec has a driver.

    Raises:
        layout.StoreError: There is no driver for the URI.
    """
    if names.is_local(root):
        return manifest_files.LocalFiles(root)
    from nemotron_exec.stores.fsspec_files import FsspecFiles

    return FsspecFiles(root)


class ManifestStore:
    """Pins references to versions in a manifest store.

    Args:
        root: Path or fsspec URI.
        messages: Gets a warning for versions that `latest` or an alias skips.
        localise: Translates a path recorded on the host into the path of the same data here.
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
            references: All references of the job; slashes are part of the name.
            progress: Called once for each reference.
            timeout: Seconds for the whole call, checked between references.

        Raises:
            LaunchError: A name or version is unknown, a manifest is damaged, data is gone, or the store cannot be read.
            TemporaryError: The store's server or file system may answer later.
        """
        deadline = time.monotonic() + timeout
        try:
            files = open_files(self.root)
        except names.StoreError as e:
            raise _launch_error(e) from e
        if hasattr(files, "reader"):
            return self._side_by_side(files, references, progress, deadline, timeout)
        artifacts: list[Artifact] = []
        for reference in references:
            if time.monotonic() > deadline:
                raise self._late(references, len(artifacts), timeout)
            artifacts.append(self._resolve_one(files, reference))
            progress(reference.text)
        return artifacts

    def _side_by_side(
        self, files: Any, references: Sequence[Reference], progress: Progress, deadline: float, timeout: float
    ) -> list[Artifact]:
        """Look up all references at the same time, because each request to the store costs a round trip."""
        import concurrent.futures

        pool = concurrent.futures.ThreadPoolExecutor(min(_AT_ONCE, max(1, len(references))))
        try:
            futures = [pool.submit(self._resolve_one, files.reader(), reference) for reference in references]
            artifacts: list[Artifact] = []
            for reference, future in zip(references, futures, strict=True):
                try:
                    artifacts.append(future.result(max(0.0, deadline - time.monotonic())))
                except concurrent.futures.TimeoutError:
                    raise self._late(references, len(artifacts), timeout) from None
                progress(reference.text)
            return artifacts
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _late(self, references: Sequence[Reference], found: int, timeout: float) -> TemporaryError:
        return TemporaryError(
            f"to look up {len(references)} artifacts in the manifest store {self.root}",
            f"only {found} were found within {timeout:.0f} s",
            "Try again, or give it longer with --timeout",
        )

    def _resolve_one(self, files: Any, reference: Reference) -> Artifact:
        """The version of a reference. If `a/b/c` is unknown, it is that of `a-b-c`, if there is one."""
        try:
            return self._resolve_name(files, reference)
        except LaunchError as error:
            if len(reference.parts) == 1 or not isinstance(error.__cause__, names.UnknownArtifactError):
                raise
            kebab = replace(reference, parts=("-".join(reference.parts),))
            if not listing.versions(files, kebab.name):
                raise
            artifact = self._resolve_name(files, kebab)
        if self._messages:
            self._messages.info(f"run.{reference.key}: the store has no {reference.name}; using {kebab.name}")
        return artifact

    def _resolve_name(self, files: Any, reference: Reference) -> Artifact:
        where = f"run.{reference.key} ({reference.origin})"
        skipped: list[str] = []
        try:
            record = read.read_version(
                files,
                reference.name,
                reference.alias,
                on_skip=lambda number, reason: skipped.append(f"v{number} {reason}"),
                localise=self._localise,
            )
            # For an alias `read_version` has compared the data already.
            numbered = reference.alias.removeprefix("v").isdigit()
            gone = read.missing_data(files, record, self._localise, whole=numbered)
        except names.StoreError as e:
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
        self._warn_of_another_number(files, record, reference, where)
        return artifact_of(record, reference, self._localise)

    def _warn_of_another_number(self, files: Any, record: read.Record, reference: Reference, where: str) -> None:
        """Warn if `vN` of a checkpoint means another checkpoint in W&B, where numbers begin at v0."""
        if reference.alias != f"v{record.number}" or self._messages is None:
            return
        known = read.wandb_name(files, record)
        shared = next(iter(record.manifest.get("aliases") or ()), None)
        if known is not None and shared and known.rpartition(":")[2] != reference.alias:
            self._messages.warning(
                f"{where}: {reference.name}:{reference.alias} of the manifest store is {known} in W&B, where "
                f"{reference.alias} is another checkpoint. {reference.name}:{shared} means this one in both"
            )


def artifact_of(record: read.Record, reference: Reference, localise: Callable[[str], str] | None = None) -> Artifact:
    """The artifact for a version in the store."""
    return Artifact.from_json(describe_record(record, reference.key, reference.text, reference.name, localise))


def _launch_error(e: names.StoreError, where: str = "") -> LaunchError:
    kind = TemporaryError if e.temporary else LaunchError
    return kind(f"{where}: {e.wanted}" if where else e.wanted, e.found, e.remedy)


def open_store(context: StoreContext) -> ManifestStore:
    """The manifest store at the root of `context`."""
    localise = context.localise
    if localise is None:
        from nemotron_exec.sitecustomize.payload.paths.host import localise
    return ManifestStore(context.root, context.messages, localise=localise)
