"""Finds the version of a store that is of the same save, so that several processes that report it make one version.

The path alone does not identify a save. A restarted job saves iteration 10 again over the old files, and that is a new
version. A version is of the same save if another process registered it while this process ran. It must not be one that
this process has counted as its own save before.

`manifest.register` asks under its lock, so that of two processes at once the first registers and the second finds it.
The second process then takes over the first one's description: W&B, too, recognises a version by its content.
"""

from __future__ import annotations

import datetime
import threading

from .. import job
from ..manifest import listing, names, read

# Versions older than this process are of earlier attempts of the job, or of other jobs.
_BEGAN = datetime.datetime.now(datetime.timezone.utc)
# A late flush puts an old version behind newer ones. So the search ends only after this many old versions.
_OLDER = 8


class _Known:
    """The versions that this process knows.

    Attributes:
        own: (checkpoint, number): event of the version.
        seen: (root, name): highest version looked at, and the newest version of each checkpoint among them.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.own: dict[tuple[str, int | None], str] = {}
        self.seen: dict[tuple[str, str], tuple[int, dict[tuple[str, int | None], int]]] = {}

    def inherit(self, parents):
        """A forked child takes over its parent's knowledge."""
        self.own, self.seen = parents.own, parents.seen


def mark(entry):
    """Note in a new outbox entry when its process began and which version it replaces: that identifies the save."""
    known = job.part(_Known)
    with known.lock:
        entry["since"] = _BEGAN.isoformat()
        entry["supersedes"] = known.own.get(_key(entry))


def own(entry):
    """Count an entry's version as a save of this process: the next save to the same path is a new version."""
    known = job.part(_Known)
    with known.lock:
        known.own[_key(entry)] = entry["event"]


def is_known(path, number):
    """Whether this process has registered a save of that number in that path, by any report."""
    known = job.part(_Known)
    with known.lock:
        return (path, number) in known.own


def find_new(entry, files):
    """`find` for the process that has saved: it reads only versions that it has not read before."""
    name = entry["name"]
    known = job.part(_Known)
    with known.lock:
        top, newest = known.seen.get((files.root, name), (0, {}))
        newest = dict(newest)
    fresh = _look(entry, files, top)
    newest.update((key, number) for key, number in reversed(fresh) if key is not None)
    top = max([top, *(number for _, number in fresh)])
    with known.lock:
        known.seen[(files.root, name)] = (top, newest)
    return _judged(entry, files, newest.get(_key(entry)))


def find(entry, files):
    """The number of the version of the entry's save, or None. The entry takes over that version's description.

    Args:
        entry: An outbox entry that `mark` has seen.
        files: The store's file system object.
    """
    for key, number in _look(entry, files, 0):
        if key == _key(entry):
            return _judged(entry, files, number)
    return None


def replaced(entry, files):
    """The number of the version whose data an entry's checkpoint has overwritten, or None."""
    alias = next(iter(entry["aliases"]), None)
    number = listing.read_alias(files, entry["name"], alias) if alias else None
    record = _read(files, entry["name"], number) if number is not None else None
    if record is None or record.manifest.get("checkpoint_path") != entry["checkpoint_path"]:
        return None
    return None if files.exists(record.directory + "/pruned") else number


def _look(entry, files, above):
    """The versions above a number as (key or None, number), newest first, back to the start of the entry's process."""
    since = _time(entry.get("since"))
    found = []
    older = 0
    for number in reversed(listing.numbers(files, entry["name"])):
        if number <= above or since is None or older >= _OLDER:
            break
        record = _read(files, entry["name"], number)
        written = _time(record.manifest.get("created_at")) if record is not None else None
        if written is None or written < since:
            older += 1
            found.append((None, number))
            continue
        found.append((_key(dict(record.manifest, iteration=record.manifest["metadata"].get("iteration"))), number))
    return found


def _judged(entry, files, number):
    if number is None:
        return None
    record = _read(files, entry["name"], number)
    if record is None:
        return None
    event = record.manifest["event"]
    if event == entry["event"]:
        return number
    if event == entry.get("supersedes") or files.exists(record.directory + "/pruned"):
        return None
    for key in ("event", "created_at", "metadata", "used_artifacts"):
        entry[key] = record.manifest[key]
    if record.manifest.get("wandb_run"):
        # The other process has a W&B run and sends the checkpoint. If both sent it, W&B would have two versions.
        entry["sent_by"], entry["wandb"] = record.manifest["wandb_run"], None
    return number


def _read(files, name, number):
    """A version that a patch has registered; None for all others, and for a damaged version."""
    try:
        record = read.read_version(files, name, number, skip_gone=False)
    except names.StoreError:
        return None
    ours = isinstance(record.manifest.get("event"), str) and isinstance(record.manifest.get("metadata"), dict)
    return record if ours else None


def _key(entry):
    return entry.get("checkpoint_path"), entry.get("iteration")


def _time(text):
    try:
        found = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None
