"""Garbage of a manifest store: versions without data, files that dead writers left, aliases of versions that are gone.

Data is never touched, only the store's own small files. A version number is never used twice, so the directory of the
highest version stays, empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names
from nemotron_exec.sitecustomize.payload.paths import mountinfo

if TYPE_CHECKING:
    from nemotron_exec.artifact_cli.inventory import Entry, Inventory

__all__ = ["Garbage", "collect", "find_garbage"]

OLD = 24 * 3600.0  # seconds; a younger file may belong to a running writer
_UNMOUNTED = "its file system may only not be mounted here (--unmounted)"
_LEFT_BEHIND = re.compile(r"\..+\.[0-9a-f]{32}\Z|.+\.tmp\.\d+\Z|\.latest_tmp_\d+\Z|\.probe-[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class Garbage:
    """One item of the store that may be removed.

    Attributes:
        kind: "version", "unfinished", "alias" or "temporary".
        subject: Name of the item, for people.
        reason: Why it may go.
        path: File or directory.
        keep_directory: Whether the directory itself stays, so that its version number is not used again.
    """

    kind: str
    subject: str
    reason: str
    path: str
    keep_directory: bool = False

    def to_json(self) -> dict[str, str]:
        """One object of `--json`."""
        return {"kind": self.kind, "subject": self.subject, "reason": self.reason, "path": self.path}


def find_garbage(
    files: Any, inventory: Inventory, *, unmounted: bool = False, now: float | None = None
) -> tuple[list[Garbage], list[str]]:
    """The items that may be removed, and a line with the reason for each version without data that must stay.

    Args:
        files: The store.
        inventory: All its versions.
        unmounted: Whether a version counts as gone even if its file system may only not be mounted here.
        now: Seconds since the epoch.
    """
    now = time.time() if now is None else now
    found: list[Garbage] = []
    kept: list[str] = []
    used_by = {used: entry for entry in inventory.entries if not entry.missing for used in entry.used_artifacts}
    for name, entries in inventory.by_name().items():
        numbers = {entry.number for entry in entries}
        unfinished = listing.uncommitted(files, name)
        highest = max([*numbers, *unfinished])
        for entry in entries:
            if not entry.missing:
                continue
            if why := _must_stay(entry, used_by, unmounted):
                kept.append(f"{entry.qualified_name} {entry.missing}, and stays: {why}")
                continue
            found.append(
                Garbage("version", entry.qualified_name, entry.missing, entry.directory, entry.number == highest)
            )
        base = f"{files.root}/{name}"
        with contextlib.suppress(manifest_names.StoreError):  # `verify` reports a damaged alias
            for alias, number in listing.aliases(files, name).items():
                if number not in numbers:
                    reason = f"means v{number}, which does not exist"
                    found.append(Garbage("alias", f"{name}:{alias}", reason, f"{base}/aliases/{alias}"))
        if isinstance(files, manifest_files.LocalFiles):
            found += _left_behind(name, base, unfinished, highest, now)
    return found, kept


def collect(files: Any, garbage: list[Garbage]) -> list[Garbage]:
    """Remove the items from the store, and return them.

    Raises:
        layout.StoreError: An item could not be removed. The store stays usable.
    """
    removed = []
    for item in garbage:
        if item.kind in ("alias", "temporary"):
            files.remove(item.path)
        else:
            # Remove the manifest first: no reader may find half a version.
            for file in ("manifest.json", "metadata.json", "inventory.json", "pruned"):
                files.remove(f"{item.path}/{file}")
            if not item.keep_directory:
                files.remove_tree(item.path)
        removed.append(item)
    return removed


def _must_stay(entry: Entry, used_by: dict[str, Entry], unmounted: bool) -> str | None:
    if "latest" in entry.aliases:
        return "`latest` means it"
    user = used_by.get(entry.qualified_name)
    if user is not None:
        return f"{user.qualified_name} was made from it"
    pruned = "pruned" in (entry.missing or "")
    if pruned or unmounted:
        return None
    path = read.data_path((entry.number, entry.manifest, entry.fields, entry.directory)).removeprefix("file://")
    return _may_be_unmounted(path.rstrip("/") or "/", entry.manifest.get("file_system"))


def _may_be_unmounted(path: str, recorded: Any) -> str | None:
    """Why data may still exist although nothing is at its path; None where it is gone.

    Args:
        path: Where the data was.
        recorded: `file_system` of the manifest. Manifests of other programs and of older versions have none.
    """
    if not os.path.isabs(path):
        return f"{path!r} is no absolute path, so nobody can tell whether it is gone (--unmounted)"
    nearest = os.path.dirname(path)
    while not os.path.isdir(nearest) and nearest != "/":
        nearest = os.path.dirname(nearest)
    known = isinstance(recorded, str)
    if known and (here := mountinfo.file_system(nearest)) != recorded:
        return f"it lay on {recorded}, and {nearest} is on {here}: {_UNMOUNTED}"
    parent = os.path.dirname(path)
    if nearest != parent and not known:
        return f"{parent} is not there either: {_UNMOUNTED}"
    # A mount point without its file system is an empty directory, too. Only the recorded file system tells it from a
    # directory that a user has emptied.
    if (nearest != parent or not known) and (nearest == "/" or not os.listdir(nearest)):
        return f"{nearest} is empty, as a mount point is: {_UNMOUNTED}"
    return None


def _left_behind(name: str, base: str, unfinished: list[int], highest: int, now: float) -> list[Garbage]:
    found = []
    for number in unfinished:
        path = f"{base}/v{number}"
        # An empty directory of the highest version number is no garbage: `collect` leaves it there.
        if _age(path, now) > OLD and not (number == highest and not os.listdir(path)):
            reason = "has no manifest: its writer died"
            found.append(Garbage("unfinished", f"{name}:v{number}", reason, path, number == highest))
    for directory, directories, names in os.walk(base):
        directories[:] = [one for one in directories if directory != base or re.match(r"v\d+\Z|aliases\Z", one)]
        for file in names:
            path = f"{directory}/{file}"
            if _LEFT_BEHIND.match(file) and _age(path, now) > OLD:
                found.append(Garbage("temporary", path, "a writer died while it wrote this", path))
    return found


def _age(path: str, now: float) -> float:
    try:
        return now - os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0
