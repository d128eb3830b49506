"""The outbox: checkpoints that are complete on disk and that W&B has not confirmed yet.

One small JSON file per checkpoint, in `.nemotron-exec/outbox/` beside the checkpoints. The file is written durably
before any other step for a checkpoint, and removed after the last step. So if a process dies in between, the file says
which steps are left. These steps need neither the hand-off nor the process that wrote the file.

No name in the outbox may begin with `iter_` or `step_`: Megatron-Bridge searches its save directory for `iter_*`, at
every depth, and takes the rest of the name for a number.
"""

from __future__ import annotations

import errno
import json
import os

from .. import disk, job
from ..paths.absolute import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..documents import Entry

SCHEMA = 1
DIRECTORY = os.path.join(".nemotron-exec", "outbox")
_SUFFIX = ".json"
_TEMPORARY = ".tmp"
_LEFT = 600  # seconds after which a temporary file is a dead writer's: a live one needs it for one write and one fsync
_MAX_ENTRY = 4 << 20  # bytes; an entry has a few thousand
# The types that readers rely on, checked because other users may write to the directory. A key may be missing.
_TYPES = {
    "store": str,
    "name": str,
    "save_dir": str,
    "checkpoint_path": str,
    "local_path": str,
    "renamed_from": str,
    "aliases": list,
    "used_artifacts": list,
    "metadata": dict,
    "process": dict,
    "wandb": dict,
    "ends_with": int,
    "hooks": list,
    # Keys of an offline run (offline_run.py).
    "run": str,
    "file": str,
    "local_file": str,
    "url": str,
    "inputs": list,
    "ended": bool,
}


class OutboxError(Exception):
    """Raised for an entry that cannot be used; `args[0]` says why, for people."""


def directory_of(save_dir):
    """The outbox beside the checkpoints in `save_dir`, a local directory."""
    return os.path.join(save_dir, DIRECTORY)


def new_event():
    """A unique name for one completed checkpoint, across all processes: 32 hexadecimal digits."""
    # Use the system's randomness: a job may seed `random` alike on all ranks.
    return os.urandom(16).hex()


def write(directory: str, entry: Mapping[str, Any], prefix: str = "checkpoint-") -> str:
    """Write one entry so that it survives the machine's death, and return its path.

    Args:
        directory: The outbox; made if missing.
        entry: The record, with its `event`. `schema` is added.
        prefix: What the file's name begins with: the kind of the entry.

    Raises:
        OSError: The directory or the file cannot be written; no half-written file stays.
    """
    link = linked(directory)
    if link:
        raise OSError(errno.ELOOP, "%s is a symbolic link" % link)
    make_directories(directory)
    path = os.path.join(directory, prefix + entry["event"] + _SUFFIX)
    write_durably(path, json.dumps(dict(entry, schema=SCHEMA), indent=1, default=str))
    if job.once("outbox swept", directory):
        sweep(directory, os.stat(path).st_mtime)
    return path


def linked(path):
    """The symbolic link in the part of a path from `.nemotron-exec` on; None where there is none.

    With such a link, another user who may write to the save directory could redirect nemotron-exec's files.
    """
    ours = [path]
    while os.path.basename(path) != os.path.dirname(DIRECTORY):
        path = os.path.dirname(path)
        if path in ("", os.sep):
            return None
        ours.append(path)
    return next((path for path in ours if os.path.islink(path)), None)


def sweep(directory, now):
    """Remove the half-written files of killed processes.

    Args:
        directory: The outbox.
        now: The time of the file server's clock, in seconds.
    """
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            if name.endswith(_TEMPORARY) and os.lstat(path).st_mtime < now - _LEFT:
                os.unlink(path)
        except OSError:
            continue  # another process has removed it


def entries(directory, prefix="checkpoint-"):
    """The entries of one outbox, oldest first, as `(path, entry)`. `unreadable` has the others."""
    found = []
    for path in _paths(directory, prefix):
        try:
            found.append((path, read(path)))
        except (OSError, OutboxError):
            continue
    return sorted(found, key=lambda pair: (str(pair[1].get("created_at", "")), pair[0]))


def unreadable(directory):
    """Entries that cannot be used, as `(path, why)`."""
    found = []
    for path in _paths(directory) + _paths(directory, "run-"):
        try:
            read(path)
        except FileNotFoundError:
            continue  # another process has sent it meanwhile
        except (OSError, OutboxError) as error:
            found.append((path, str(error)))
    return found


def read(path: str) -> Entry:
    """One entry.

    Raises:
        OSError: It cannot be read.
        OutboxError: It is no entry, or a later version of nemotron-exec wrote it.
    """
    try:
        entry = json.loads(_content(path).decode("utf-8"))
    except (ValueError, RecursionError):
        raise OutboxError("it is not JSON") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        raise OutboxError("it is no outbox entry")
    if entry.get("schema") != SCHEMA:
        raise OutboxError("its schema is %r, and this version knows %d" % (entry.get("schema"), SCHEMA))
    target = entry.get("wandb")
    aliases = target.get("aliases", []) if isinstance(target, dict) else []
    wrong = [key for key, kind in _TYPES.items() if not isinstance(entry.get(key), (kind, type(None)))]
    if wrong or not isinstance(aliases, list):
        raise OutboxError("it is no outbox entry: its %s" % ", ".join(wrong or ["wandb.aliases"]))
    checked: Entry = entry  # type: ignore[assignment]
    return checked


def _content(path):
    """The bytes of an entry."""
    try:
        return disk.read_regular(path, _MAX_ENTRY)
    except disk.TooLargeError as error:
        raise OutboxError("it is %s, and no entry is" % error) from None
    except disk.UnusableFileError as error:
        raise OutboxError("it is %s" % error) from None


def state(path: str, entry: Entry) -> str:
    """Whether an entry's checkpoint is complete: an entry may be written before the framework's last step, a rename.

    Args:
        path: The entry's file.
        entry: The entry.

    Returns:
        "complete" after the rename, and for entries without one; "unfinished" while the directory has its former name;
        "gone" if neither name exists. For an output (outputs.py): "complete" if its command ended with exit code 0,
        "gone" with another code, "unfinished" without a code.
    """
    if entry.get("ends_with") is not None:
        return _ended(exit_code_of(path), entry["ends_with"])
    former = entry.get("renamed_from")
    if not former:
        return "complete"
    # Look beside the entry, too: this process may see the directory under another path than the job.
    local = str(entry.get("local_path"))
    parents = [os.path.dirname(local), os.path.dirname(os.path.dirname(os.path.dirname(path)))]
    if any(os.path.lexists(os.path.join(parent, former)) for parent in parents):
        return "unfinished"
    there = any(os.path.isdir(os.path.join(parent, os.path.basename(local))) for parent in parents)
    return "complete" if there else "gone"


def exit_code_of(path):
    """The file beside an output's entry to which the command's exit code is written: one byte."""
    return path[: -len(_SUFFIX)] + ".exit"


def _ended(path: str, wanted: int) -> str:
    try:
        code = _content(path)
    except (OSError, OutboxError):
        return "unfinished"
    if not code:
        return "unfinished"
    return "complete" if code == bytes([wanted]) else "gone"


def remove(path):
    """Remove a delivered entry, without fsync: an entry that a power cut brings back is sent again, and counts once."""
    for name in (path, exit_code_of(path)):
        try:
            os.unlink(name)
        except FileNotFoundError:
            continue


def find(directory):
    """The outboxes for `directory`: the one inside it, those of its direct children, and itself if it is one.

    The list has no duplicates and only directories that exist.
    """
    candidates = [directory_of(directory), os.path.join(directory, "outbox"), directory]
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        names = []
    # iter_* and step_* are checkpoints, of which there may be thousands, and hold no outbox.
    candidates += [
        directory_of(os.path.join(directory, name)) for name in names if not name.startswith((".", "iter_", "step_"))
    ]
    found = []
    for candidate in candidates:
        ours = os.path.basename(candidate) == "outbox" and os.path.isdir(candidate) and not linked(candidate)
        if ours and candidate not in found:
            found.append(candidate)
    return found


def write_durably(path, text):
    """Replace the file `path` by `text`: after a power cut the file has the old content or the new.

    Raises:
        OSError: The file system's error; the temporary file is removed.
    """
    temporary = "%s.%d.%s%s" % (path, os.getpid(), os.urandom(4).hex(), _TEMPORARY)
    disk.write_new(temporary, text.encode("utf-8"), 0o644, durable=True)
    try:
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    disk.sync_directory(os.path.dirname(path))


def make_directories(directory):
    """Make a directory with its parents, durably."""
    if os.path.isdir(directory):
        return
    directory = there = absolute(directory)
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    os.makedirs(directory, exist_ok=True)
    while len(directory) > len(there):
        directory = os.path.dirname(directory)
        disk.sync_directory(directory)


def _paths(directory, prefix="checkpoint-"):
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [os.path.join(directory, name) for name in names if name.startswith(prefix) and name.endswith(_SUFFIX)]
