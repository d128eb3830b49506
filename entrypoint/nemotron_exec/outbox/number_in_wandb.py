"""Records the name that W&B gives a checkpoint beside its version in the manifest store."""

from __future__ import annotations

from nemotron_exec.sitecustomize.payload.checkpoints import delivery, record, same_save
from nemotron_exec.sitecustomize.payload.manifest import register
from nemotron_exec.stores.manifest import open_files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

    from nemotron_exec.sitecustomize.payload.documents import Entry, EntryForWandb

__all__ = ["find", "note", "note_name"]


def find(entry: Entry | EntryForWandb, files: Any) -> int | None:
    """The number of the version in the manifest store that was made from an entry, or from the same save."""
    number: int | None = record.find(entry, files)
    return same_save.find(entry, files) if number is None else number


def note(entry: Entry | EntryForWandb, artifact: Any) -> None:
    """Record the version that W&B has committed. It never raises."""
    delivery.note_wandb(entry, artifact, lambda qualified_name: note_name(entry, qualified_name))


def note_name(entry: Entry | EntryForWandb, qualified_name: str) -> None:
    """Record `entity/project/name:vN` where the store has a version of the entry."""
    files = open_files(entry["store"])
    number = entry.get("number") if entry.get("registered") else None
    number = find(entry, files) if number is None else number
    if number is not None:
        register.note_wandb(files, entry["name"], number, qualified_name)
