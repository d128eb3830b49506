"""Everything that a manifest store holds, read once: listings, the graph and checks work on it.

A damaged version does not stop the reading.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nemotron_exec.sitecustomize.payload.manifest import listing, read
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Entry", "Inventory", "take_inventory"]


@dataclass(frozen=True)
class Entry:
    """One version.

    Attributes:
        name: Artifact name.
        number: N of `vN`.
        directory: The directory of its manifest.json.
        manifest: Content of manifest.json; empty where it is damaged.
        fields: Content of metadata.json.
        damaged: The fault of its files; None if they read well.
        missing: Why its data cannot be used, None if it can.
        aliases: The aliases that point to this version now, `latest` included.
        wandb: `entity/project/name:vN` of the same version in W&B, where that is known.
    """

    name: str
    number: int
    directory: str
    manifest: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    damaged: str | None = None
    missing: str | None = None
    aliases: tuple[str, ...] = ()
    wandb: str | None = None

    @property
    def qualified_name(self) -> str:
        """`name:vN`."""
        return f"{self.name}:v{self.number}"

    @property
    def type(self) -> str:
        """The kind of its data: `model`, `dataset`."""
        return str(self.manifest.get("type") or self.fields.get("type") or "")

    @property
    def path(self) -> str:
        """Where the data is, as recorded."""
        return str(self.manifest.get("path") or "")

    @property
    def iteration(self) -> int | None:
        """Training iteration of a checkpoint."""
        for table in (self.manifest.get("metadata"), self.fields):
            value = table.get("iteration") if isinstance(table, dict) else None
            if isinstance(value, int):
                return value
        return None

    @property
    def created_at(self) -> str:
        """Time of its creation, ISO 8601."""
        return str(self.manifest.get("created_at") or "")

    @property
    def transient(self) -> bool:
        """Whether `latest` never points to this version."""
        return self.manifest.get("transient") is True

    @property
    def used_artifacts(self) -> tuple[str, ...]:
        """The versions of this store that it was made from, as recorded."""
        return tuple(str(used) for used in self.manifest.get("used_artifacts") or ())

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs from outside of the store that it was made from."""
        return tuple(str(uri) for uri in self.manifest.get("inputs") or ())

    def to_json(self) -> dict[str, Any]:
        """One object of `--json`."""
        return {
            "name": self.name,
            "version": self.number,
            "qualified_name": self.qualified_name,
            "type": self.type,
            "path": self.path,
            "iteration": self.iteration,
            "created_at": self.created_at,
            "aliases": list(self.aliases),
            "wandb": self.wandb,
            "missing": self.missing,
            "damaged": self.damaged,
            "directory": self.directory,
        }


@dataclass(frozen=True)
class Inventory:
    """The versions of a store.

    Attributes:
        root: The store's root, as its file system names it.
        entries: Every version that was read, by name and number.
        counts: How many versions each artifact has, those that were not read included.
        problems: Damaged files that belong to no version (`latest`, aliases), each with its fault.
    """

    root: str
    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def by_name(self) -> dict[str, list[Entry]]:
        """Versions of each artifact, ascending."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.name, []).append(entry)
        return found


def take_inventory(
    files: Any,
    names: list[str] | None = None,
    localise: Callable[[str], str] | None = None,
    *,
    newest: int | None = None,
    only_latest: bool = False,
    number: int | None = None,
) -> Inventory:
    """Read every version of the artifacts `names`, or of all.

    Args:
        files: The store.
        names: Which artifacts; None for all.
        localise: Translates a recorded path into the path of the same data here.
        newest: Read only this many versions of each artifact, those with the highest numbers.
        only_latest: Read only the version of each artifact that `latest` points to.
        number: Read only the version with this number.

    Raises:
        layout.StoreError: The store itself cannot be read.
    """
    if hasattr(files, "snapshot"):
        files = files.snapshot(names[0] if names is not None and len(names) == 1 else None)
    entries = []
    problems = []
    counts: dict[str, int] = {}
    for name in listing.names(files) if names is None else names:
        pointers = {}
        try:
            pointers["latest"] = listing.read_latest(files, name)
        except manifest_names.StoreError as e:
            problems.append(f"{e.wanted.removeprefix('to read ')}: {e.found}")
        try:
            pointers.update(listing.aliases(files, name))
        except manifest_names.StoreError as e:
            problems.append(f"{e.wanted.removeprefix('to read ')}: {e.found}")
        numbers = [number] if number is not None else listing.versions(files, name)
        counts[name] = len(numbers)
        if only_latest:
            numbers = [pointers["latest"]] if pointers.get("latest") in numbers else numbers[-1:]
        for one in numbers[-newest:] if newest else numbers:
            here = tuple(alias for alias, meant in pointers.items() if meant == one)
            entries.append(_read(files, name, one, here, localise))
    return Inventory(files.root, tuple(entries), tuple(problems), counts)


def _read(files: Any, name: str, number: int, aliases: tuple[str, ...], localise: Callable[[str], str] | None) -> Entry:
    directory = f"{files.root}/{name}/v{number}"
    try:
        record = read.read_version(files, name, number)
    except manifest_names.StoreError as e:
        file = os.path.basename(e.wanted)
        return Entry(name, number, directory, damaged=f"{file}: {e.found}", aliases=aliases)
    missing = read.missing_data(files, record, localise)
    in_wandb = read.wandb_name(files, record)
    return Entry(name, number, directory, record.manifest, record.metadata, None, missing, aliases, in_wandb)
