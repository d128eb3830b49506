"""What may be forgotten in a manifest store: versions without data, what dead writers left, aliases of nothing.

Data is never touched, only the store's own small files. A number is never given out twice: of the highest version the
empty directory stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.sitecustomize.payload import manifest as layout

if TYPE_CHECKING:
    from nemotron_exec.inventory import Entry, Inventory

__all__ = ["Garbage", "collect", "find_garbage"]

OLD = 24 * 3600.0  # seconds; what is younger may belong to a writer that lives
_LEFT_BEHIND = re.compile(r"\..+\.[0-9a-f]{32}\Z|.+\.tmp\.\d+\Z|\.latest_tmp_\d+\Z|\.probe-[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class Garbage:
    """One thing that may be removed.

    Attributes:
        kind: "version", "unfinished", "alias" or "temporary".
        subject: What it is, for people.
        reason: Why it may go.
        path: File or directory.
        keep_directory: Whether the directory itself stays, so that its number is not given out again.
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
    """What may go, and what was left alone, with the reason.

    Args:
        files: The store.
        inventory: All its versions.
        unmounted: Whether data counts as gone where its parent directory is not there either: more likely that file
            system is not mounted here.
        now: Seconds since the epoch.
    """
    now = time.time() if now is None else now
    found: list[Garbage] = []
    kept: list[str] = []
    used_by = {used: entry for entry in inventory.entries if not entry.missing for used in entry.used_artifacts}
    for name, entries in inventory.by_name().items():
        numbers = {entry.number for entry in entries}
        unfinished = layout.uncommitted(files, name)
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
        with contextlib.suppress(layout.StoreError):  # verify tells of a damaged one
            for alias, number in layout.aliases(files, name).items():
                if number not in numbers:
                    reason = f"means v{number}, which does not exist"
                    found.append(Garbage("alias", f"{name}:{alias}", reason, f"{base}/aliases/{alias}"))
        if isinstance(files, layout.LocalFiles):
            found += _left_behind(name, base, unfinished, highest, now)
    return found, kept


def collect(files: Any, garbage: list[Garbage]) -> list[Garbage]:
    """Remove it; returns what was removed.

    Raises:
        layout.StoreError: Something could not be removed; the store works all the same.
    """
    removed = []
    for item in garbage:
        if item.kind in ("alias", "temporary"):
            files.remove(item.path)
        else:
            # The manifest goes first: no reader may find half a version.
            for file in ("manifest.json", "metadata.json", "pruned"):
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
    path = layout.data_path((entry.number, entry.manifest, entry.fields, entry.directory))
    parent = os.path.dirname(path.removeprefix("file://").rstrip("/"))
    if parent in ("", "/") or not os.path.isdir(parent):
        return f"{parent or '/'} is not there either, so its file system may only not be mounted here (--unmounted)"
    return None


def _left_behind(name: str, base: str, unfinished: list[int], highest: int, now: float) -> list[Garbage]:
    found = []
    for number in unfinished:
        path = f"{base}/v{number}"
        # An empty directory of the highest number is what `collect` itself leaves.
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
