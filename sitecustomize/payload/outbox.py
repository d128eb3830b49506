"""The outbox: checkpoints that are complete on disk and that W&B has not confirmed yet.

One small JSON file per checkpoint, in `.nemotron-exec/outbox/` beside the checkpoints. It is written, durably, before
anything else happens to a checkpoint, and it is removed when everything has: so whatever dies in between, the file
says what is still to be done. It holds all that is needed to do it, and needs neither the hand-off nor the process
that wrote it.

No name in here may begin with `iter_` or `step_`: Megatron-Bridge searches its save directory for `iter_*`, at every
depth, and takes what follows for a number.
"""

from __future__ import annotations

import errno
import json
import os

SCHEMA = 1
DIRECTORY = os.path.join(".nemotron-exec", "outbox")
_SUFFIX = ".json"


class OutboxError(Exception):
    """An entry that cannot be used; `args[0]` says why, in words for people."""


def directory_of(save_dir):
    """The outbox beside the checkpoints in `save_dir`, a local directory."""
    return os.path.join(save_dir, DIRECTORY)


def new_event():
    """A name for one completed checkpoint that no other has, in any process: 32 hexadecimal digits."""
    # The system's randomness, so that a job which seeds `random` alike on all ranks does no harm.
    return os.urandom(16).hex()


def write(directory, entry):
    """Write one entry so that it survives the machine's death, and return its path.

    Args:
        directory: The outbox; made if missing.
        entry: The record, with its `event`. `schema` is added.

    Raises:
        OSError: The directory cannot be made or the file not written; nothing half-written stays.
    """
    _make_directories(directory)
    path = os.path.join(directory, "checkpoint-" + entry["event"] + _SUFFIX)
    write_durably(path, json.dumps(dict(entry, schema=SCHEMA), indent=1, default=str))
    return path


def entries(directory):
    """The entries of one outbox, oldest first, as `(path, entry)`. Unreadable ones are left out: see `unreadable`."""
    found = []
    for path in _paths(directory):
        try:
            found.append((path, read(path)))
        except (OSError, OutboxError):
            continue
    return sorted(found, key=lambda pair: (str(pair[1].get("created_at", "")), pair[0]))


def unreadable(directory):
    """Entries that are there and cannot be used, as `(path, why)`."""
    found = []
    for path in _paths(directory):
        try:
            read(path)
        except FileNotFoundError:
            continue  # sent by somebody else meanwhile
        except (OSError, OutboxError) as error:
            found.append((path, str(error)))
    return found


def read(path):
    """One entry.

    Raises:
        OSError: It cannot be read.
        OutboxError: It is no entry, or one of a later version of nemotron-exec.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags), encoding="utf-8") as stream:
        try:
            entry = json.load(stream)
        except ValueError:
            raise OutboxError("it is not JSON") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        raise OutboxError("it is no outbox entry")
    if entry.get("schema") != SCHEMA:
        raise OutboxError("its schema is %r, and this version knows %d" % (entry.get("schema"), SCHEMA))
    return entry


def state(path, entry):
    """What became of an entry that was written before the framework renamed the checkpoint, its last step.

    Args:
        path: Where the entry lies.
        entry: The entry.

    Returns:
        "complete", as all others are; "unfinished" while the directory has its former name; "gone" where neither is to
        be seen.
    """
    former = entry.get("renamed_from")
    if not former:
        return "complete"
    # The entry's own place as well: here the directory may have another name than for the job.
    local = str(entry.get("local_path"))
    parents = [os.path.dirname(local), os.path.dirname(os.path.dirname(os.path.dirname(path)))]
    if any(os.path.lexists(os.path.join(parent, former)) for parent in parents):
        return "unfinished"
    there = any(os.path.isdir(os.path.join(parent, os.path.basename(local))) for parent in parents)
    return "complete" if there else "gone"


def remove(path):
    """Forget an entry that has been delivered. Not durable: an entry that comes back is sent again, and counts once."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def find(directory):
    """The outboxes for `directory`: its own, itself if it is one, and those of its direct children.

    A list without repetitions; directories that do not exist are left out.
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
        if os.path.basename(candidate) == "outbox" and os.path.isdir(candidate) and candidate not in found:
            found.append(candidate)
    return found


def write_durably(path, text):
    """Replace the file `path` by `text`: after a power cut there is the old content or the new, never a part.

    Raises:
        OSError: With the file system's own reason; the temporary file is gone.
    """
    temporary = "%s.%d.%s.tmp" % (path, os.getpid(), os.urandom(4).hex())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        try:
            data = text.encode("utf-8")
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(directory):
    """Make the names in `directory` durable, where the file system can."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no fsync for directories, and need none.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def _make_directories(directory):
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    os.makedirs(directory, exist_ok=True)
    sync_directory(directory)
    sync_directory(parent)
    sync_directory(os.path.dirname(parent) or ".")


def _paths(directory):
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [
        os.path.join(directory, name) for name in names if name.startswith("checkpoint-") and name.endswith(_SUFFIX)
    ]
