"""The inventory of a version: names and sizes of its files, in `inventory.json` beside its manifest.

It is taken once the data are complete, off the training thread, by one pass over the directories. A launcher that
resolves the version compares the data with it, so that a job never loads a checkpoint that was cut or has lost files. A
version without an inventory (of another program or an older release) is not compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from .files import open_files
from .names import StoreError

__all__ = ["NAME", "add_digests", "damage", "read", "record", "take"]

NAME = "inventory.json"
_SCHEMA = 1
_OURS = ".nemotron-exec"  # left out of the inventory: outbox entries and run records come and go
_SHOWN = 3  # files named in a message
_BLOCK = 1 << 20  # bytes


def take(path):
    """`{relative name: size in bytes}` of the regular files in a directory, or of one file under the name ``""``.

    Raises:
        OSError: A directory cannot be read, or the path is gone.
    """
    if not os.path.isdir(path):
        return {"": os.stat(path).st_size}
    found = {}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(path, below)) as entries:
            for entry in entries:
                name = os.path.join(below, entry.name)
                if entry.name == _OURS:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif entry.is_file():
                    found[name] = entry.stat().st_size
    return found


def record(root, version_directory, path):
    """Take the inventory of a version's data and put it beside its manifest.

    Args:
        root: The store: a path, or a file system object.
        version_directory: Where manifest.json is.
        path: The data, as this process names them.

    Returns:
        The inventory: names and sizes.

    Raises:
        OSError: The data cannot be read.
        StoreError: The store does not take the inventory.
    """
    found = take(path)
    _write(open_files(root), version_directory, {"files": found})
    return found


def read(files, version_directory):
    """The inventory of a version as a dict with `files`; None without one, and for a damaged one."""
    data = files.read("{}/{}".format(version_directory, NAME))
    if data is None:
        return None
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("schema") != _SCHEMA or not isinstance(found.get("files"), dict):
        return None
    sound = all(isinstance(size, int) for size in found["files"].values())
    return found if sound else None


def damage(inventory, path, digests=False):
    """The difference between data and inventory, as text; None without one. Further and longer files are no damage.

    Args:
        inventory: What `read` returned.
        path: The data, as this process names them.
        digests: Whether to read and compare every file whose digest was recorded.
    """
    recorded = inventory["files"]
    try:
        there = take(path)
    except OSError as error:
        return "cannot be read: {}".format(error.strerror or error)
    lost = sorted(name for name in recorded if name not in there)
    if lost:
        return "has lost {} of its {} files ({})".format(len(lost), len(recorded), _shown(lost))
    cut = sorted(name for name in recorded if there[name] < recorded[name])
    if cut:
        sizes = "{} has {} of {} bytes".format(cut[0] or path, there[cut[0]], recorded[cut[0]])
        return "is cut: {}{}".format(sizes, "" if len(cut) == 1 else ", and {} more files".format(len(cut) - 1))
    if digests:
        known = inventory.get("sha256") or {}
        changed = [name for name in sorted(known) if name in there and _digest(os.path.join(path, name)) != known[name]]
        if changed:
            return "has other bytes than when it was recorded ({})".format(_shown(changed))
    return None


def add_digests(root, version_directory, path, rate):
    """Read the data of a version at a bounded rate, and record the SHA-256 of each file.

    Args:
        root: The store.
        version_directory: Where manifest.json is.
        path: The data, as this process names them.
        rate: Bytes a second.
    """
    files = open_files(root)
    found = read(files, version_directory)
    if found is None or found.get("sha256"):
        return
    digests = {name: _digest(os.path.join(path, name), rate) for name in sorted(found["files"])}
    _write(files, version_directory, {"files": found["files"], "sha256": digests})


def _digest(path, rate=None):
    digest = hashlib.sha256()
    with open(path.rstrip("/"), "rb", buffering=0) as stream:
        while True:
            began = time.monotonic()
            block = stream.read(_BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)
            if rate:
                time.sleep(max(0.0, len(block) / rate - (time.monotonic() - began)))


def _write(files, version_directory, content):
    text = json.dumps(dict(content, schema=_SCHEMA), separators=(",", ":"), sort_keys=True)
    if not files.exists(version_directory + "/manifest.json"):
        raise StoreError(
            "to write the inventory of {}".format(version_directory), "there is no such version", "Register it first"
        )
    files.write("{}/{}".format(version_directory, NAME), text.encode("utf-8", "surrogateescape"))


def _shown(names):
    more = len(names) - _SHOWN
    listed = ", ".join(name if name.isprintable() else repr(name) for name in names[:_SHOWN])
    return listed + (", and {} more".format(more) if more > 0 else "")
