"""A new version in the manifest store, whole or not at all."""

from __future__ import annotations

import datetime
import json
import os

from .files import label_of, open_files, read_bounded
from .listing import read_pointer, version_numbers
from .lock import writer_lock
from .names import HIGHEST, StoreError, check_alias, check_name
from .read import newest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

__all__ = ["Version", "advance_latest", "mark_pruned", "note_wandb", "register", "set_alias"]


class Version:
    """A version in the store, as `register` returns it.

    Attributes:
        number: N of `vN`.
        directory: The directory of manifest.json, as the file system object names it.
        name: The artifact's name.
        new: False where the store had the version already.
    """

    def __init__(self, name, number, directory, new=True):
        self.name = name
        self.number = number
        self.directory = directory
        self.new = new

    @property
    def qualified_name(self):
        """`name:vN`, as lineage records it."""
        return "{}:v{}".format(self.name, self.number)

    def __repr__(self):
        return "<Version {}>".format(self.qualified_name)


def register(
    root,
    name,
    *,
    type,  # noqa: A002
    path,
    metadata,
    fields=None,
    used_artifacts=(),
    inputs=(),
    producer=None,
    created_at=None,
    aliases=(),
    move_latest=True,
    extra=None,
    unless=None,
):
    """Add a version of an artifact; the data stays where it is.

    Args:
        root: Path of the store, or a file system object.
        name: Name of the artifact, with or without slashes.
        type: "dataset", "model", …
        path: The path or URI of the data, recorded as given.
        metadata: `metadata` of manifest.json; its `iteration` and `absolute_path` are fields of metadata.json too.
        fields: More fields for metadata.json.
        used_artifacts: The artifacts that it was made from, as `name:vN`.
        inputs: URIs of the data outside the store that it was made from.
        producer: The job that made it; default as in Nemotron: `NEMO_EXPERIMENT_ID`, else "local".
        created_at: ISO 8601; default now.
        aliases: Further names, beside `latest`, for look-ups.
        move_latest: False for a version that `latest` must never mean, such as a checkpoint that will not be kept.
        extra: More keys for manifest.json; they do not replace Nemotron's keys.
        unless: `unless(files)` gives the number of an equal version, or None. It is called under the lock, so that
            several processes that report the same save at once register it once.

    Returns:
        The Version. It exists for readers as soon as this returns, `latest` and aliases included.

    Raises:
        StoreError: Nothing was registered, or the version exists but `latest` does not mean it yet. The message says
            which.
    """
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    for alias in aliases:
        check_alias(alias)
    created_at = created_at or datetime.datetime.now().astimezone().isoformat()
    metadata = dict(metadata)
    known = {"path": str(path), "type": type, "created_at": created_at}
    table = dict(known)
    table.update((key, metadata[key]) for key in ("iteration", "absolute_path") if key in metadata)
    table.update(fields or {})
    table.update(known)
    table.pop("metadata", None)
    table["metadata"] = metadata
    manifest = {
        "name": name,
        "version": 0,
        "type": type,
        "path": str(path),
        "created_at": created_at,
        "producer": producer or os.environ.get("NEMO_EXPERIMENT_ID", "local"),
        "metadata": metadata,
        "inputs": list(inputs),
        "used_artifacts": list(used_artifacts),
    }
    if aliases:
        manifest["aliases"] = list(aliases)
    if not move_latest:
        manifest["transient"] = True
    for key, value in (extra or {}).items():
        manifest.setdefault(key, value)
    # Serialize before a number is taken: an error must not use up a number.
    fields_text = _json(table)
    _json(manifest)
    number = None
    while number is None:
        with writer_lock(files, directory + "/.latest.lock") as still_ours:
            if hasattr(files, "sweep"):
                files.sweep(directory, directory + "/.latest.lock")
            there = None if unless is None else unless(files)
            if there is not None:
                version_directory = "{}/v{}".format(directory, there)
                if move_latest:  # the version's writer may have died before this step
                    _advance(files, directory, there, still_ours)
                if hasattr(files, "confirm"):
                    names = ("metadata.json", "manifest.json")
                    files.confirm([directory + "/latest", *(version_directory + "/" + name for name in names)])
                return Version(name, there, "{}/v{}".format(directory, there), new=False)
            number = _add(files, name, manifest, fields_text, still_ours)
            moved = number is None or not move_latest or _advance(files, directory, number, still_ours)
    if not moved:
        advance_latest(files, name, number)
    for alias in aliases:
        set_alias(files, name, alias, number)
    return Version(name, number, "{}/v{}".format(directory, number))


def _add(files, name, manifest, fields_text, still_ours):
    """Write the next version. Return its number; None if the lock was lost before the version existed."""
    directory, number = _allocate(files, name)
    manifest["version"] = number
    version_directory = "{}/v{}".format(directory, number)
    files.write(version_directory + "/metadata.json", fields_text)
    if not still_ours():
        files.remove_tree(version_directory)
        return None
    files.write(version_directory + "/manifest.json", _json(manifest))
    return number


def advance_latest(root, name, number):
    """Make `latest` mean version `number`, or a newer version that exists by now (`read.in_order`).

    Returns:
        The number that `latest` means afterwards.
    """
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    while True:
        left = "; the version is written, and `latest` does not mean it yet"
        with writer_lock(files, directory + "/.latest.lock", left) as still_ours:
            meant = _advance(files, directory, number, still_ours)
        # None: another writer broke the lock because this process was stopped for too long. Take it again and retry.
        if meant is not None:
            return meant


def _advance(files, directory, number, still_ours):
    """`advance_latest` under the lock. Returns None, with no change made, if the lock was lost."""
    path = directory + "/latest"
    current = read_pointer(files, path, strict=False)
    # A later version may exist whose writer has not moved `latest` yet, or died before that.
    considered = {later for later in version_numbers(files, directory) if later > number or later == current}
    if considered:
        number = newest_of(files, directory, considered | {number}) or number
    if current == number:
        return current
    if not still_ours():
        return None
    files.write(path, "v{}".format(number).encode())
    return number


def set_alias(root, name, alias, number):
    """Make an alias mean version `number`, unless it means a checkpoint that was saved later (`read.in_order`)."""
    files = open_files(root)
    if alias == "latest":
        advance_latest(files, name, number)
        return
    directory = "{}/{}".format(files.root, check_name(name))
    path = "{}/aliases/{}".format(directory, check_alias(alias))
    meant = read_pointer(files, path, strict=False)
    if meant not in (None, number) and newest_of(files, directory, {meant, number}, transient=True) == meant:
        return
    files.write(path, "v{}".format(number).encode())


def mark_pruned(root, name, number):
    """Record that the framework has deleted the data of a version."""
    files = open_files(root)
    directory = "{}/{}/v{}".format(files.root, check_name(name), number)
    if files.exists(directory + "/manifest.json"):
        files.write(directory + "/pruned", b"")


def note_wandb(root, name, number, qualified_name):
    """Record a version's name in W&B: W&B numbers versions on its own, from v0 on, in the order of arrival."""
    files = open_files(root)
    directory = "{}/{}/v{}".format(files.root, check_name(name), number)
    if files.exists(directory + "/manifest.json"):
        files.write(directory + "/wandb", qualified_name.encode("utf-8"))


def _allocate(files, name):
    directory = "{}/{}".format(files.root, name)
    taken = set(version_numbers(files, directory))
    number = _highest(files, directory, taken)
    for attempt in range(1000):
        if attempt % 10 == 9:
            taken = set(version_numbers(files, directory))
            number = max(number, _highest(files, directory, taken))
        number += 1
        if number > HIGHEST:
            raise StoreError(
                "to add a version of {} to {}".format(name, label_of(files)),
                "v{} is there, and no version can be higher".format(HIGHEST),
                "Register under another name, or remove that version if it came by mistake",
            )
        # Nemotron's writers do not claim a number exclusively, so check for a version that one of them has begun.
        if number not in taken and files.claim("{}/v{}".format(directory, number)):
            return directory, number
    raise StoreError(
        "to add a version of {} to {}".format(name, label_of(files)),
        "a thousand numbers in a row were taken by others",
        "Try again",
        temporary=True,
    )


def _highest(files, directory, numbers):
    """The highest number with a manifest, 0 without one. A directory without one does not count."""
    for number in sorted(numbers, reverse=True):
        if files.exists("{}/v{}/manifest.json".format(directory, number)):
            return number
    return 0


def _json(data):
    wanted = "to record {}".format(data.get("name") or "the fields of an artifact")
    try:
        # Exactly json.dump(…, indent=2, default=str), as Nemotron writes it: no final newline.
        text = json.dumps(data, indent=2, default=str).encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise StoreError(wanted, "its metadata is no JSON ({})".format(e), "Give plain values with text as keys") from e
    return read_bounded(wanted, text)
