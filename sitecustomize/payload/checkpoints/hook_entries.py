"""The open work of `run.on_checkpoint`: one small JSON file for each pair of a checkpoint and a hook.

The outbox entry of a checkpoint names its hooks. When the checkpoint is in the store, each hook gets an entry in
`.nemotron-exec/hooks/` beside the outbox, and the outbox entry forgets it. An entry whose command has ended well moves
to `done/`. So whatever dies in between, a file names each hook that is still to be run, and no hook has two entries.

The next start runs the command in an entry. So an entry counts only if its file belongs to the user who runs it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import stat
import time

from .. import disk, notice
from ..manifest import names
from . import outbox

__all__ = []

SCHEMA = 1
DIRECTORY = "hooks"
DONE = "done"
RUNS = "runs"
WAITING, RUNNING, HELD, FAILED = "waiting", "running", "held", "failed"
ENDED, GONE = "done", "gone"
_KEPT = 200  # entries of finished hooks that stay in one directory, with their output
_MOST = 1 << 20  # bytes; an entry has a few thousand
_PATIENCE = 5.0  # seconds to wait for the lock; its holder writes a few small files
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class ForeignError(Exception):
    """A file that another user may have written; `args[0]` says why."""


def beside(box):
    """The directory of hooks beside an outbox."""
    return os.path.join(os.path.dirname(box), DIRECTORY)


def of_save_directory(save_dir):
    """The directory of hooks in a save directory, or in the root of a store."""
    return beside(outbox.directory_of(save_dir))


def hand_over(entry, path):
    """Give each hook of a registered checkpoint an entry of its own, durably, and let the outbox entry forget them.

    Args:
        entry: The outbox entry, registered.
        path: The outbox entry's file.

    Returns:
        The paths of the new entries.

    Raises:
        OSError: The entries cannot be written. The outbox entry still names its hooks; a second call makes no
            duplicates.
        ForeignError: The outbox entry belongs to another user.
    """
    hooks = [hook for hook in entry.get("hooks") or () if is_hook(hook)]
    made = []
    # Without its file, another process has sent the entry and has done this.
    if hooks and os.path.lexists(path):
        check_owner(path)
        directory = beside(os.path.dirname(path))
        link = outbox.linked(directory)
        if link:
            raise ForeignError("%s is a symbolic link" % link)
        outbox.make_directories(directory)
        with locked(os.path.join(directory, "lock"), _PATIENCE):
            counts = _counts(directory)
            for hook in hooks:
                if _selected(hook, entry) and _counted(hook, entry, counts):
                    made += _enter(directory, hook, entry)
            outbox.write_durably(os.path.join(directory, "counts"), json.dumps(counts))
    entry.pop("hooks", None)
    if os.path.lexists(path):
        outbox.write_durably(path, json.dumps(dict(entry, schema=outbox.SCHEMA), indent=1, default=str))
    return made


def is_hook(hook):
    """Whether a value is a hook as the launcher writes it into the hand-off."""
    return (
        isinstance(hook, dict)
        and isinstance(hook.get("command"), str)
        and isinstance(hook.get("name"), str)
        and _NAME.match(hook["name"]) is not None
    )


def entries(directory):
    """The open entries, oldest first, as `(path, entry)`, without those of other users."""
    found = []
    for path in _paths(directory):
        with contextlib.suppress(OSError, ValueError, ForeignError):
            found.append((path, read(path)))
    return sorted(found, key=_age)


def finished(directory):
    """The newest entries whose command has ended well, oldest first, as `(path, entry)`."""
    return entries(os.path.join(directory, DONE))


def foreign(directory):
    """The entries that do not count, as `(path, why)`."""
    found = []
    for path in _paths(directory):
        try:
            read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, ForeignError) as error:
            found.append((path, str(error)))
    return found


def read(path):
    """One entry.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no entry.
        ForeignError: It is another user's.
    """
    entry = json.loads(content(path).decode("utf-8"))
    hook = entry.get("hook") if isinstance(entry, dict) else None
    if not is_hook(hook) or not isinstance(entry.get("checkpoint"), dict) or not isinstance(entry.get("state"), str):
        raise ValueError("it is no hook's entry")
    if entry.get("schema") != SCHEMA:
        raise ValueError("its schema is %r, and this version knows %d" % (entry.get("schema"), SCHEMA))
    return entry


def content(path):
    """The bytes of a regular file of this user's.

    Raises:
        OSError: It cannot be read.
        ForeignError: It is no regular file, or belongs to another user.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        _check(found, path)
        data = os.read(descriptor, _MOST)
        while len(data) < found.st_size <= _MOST:
            part = os.read(descriptor, _MOST)
            if not part:
                break
            data += part
        return data
    finally:
        os.close(descriptor)


def check_owner(path):
    """Refuse a file that another user may have written.

    Raises:
        OSError: It is not there.
        ForeignError: It is another user's.
    """
    _check(os.lstat(path), path)


def write(path, entry):
    """Replace an entry, durably."""
    outbox.write_durably(path, json.dumps(dict(entry, schema=SCHEMA), indent=1, default=str))


def finish(path, entry):
    """Move an entry to `done/`: write the new file, then remove the old. The oldest entries there are removed."""
    done = os.path.join(os.path.dirname(path), DONE)
    os.makedirs(done, exist_ok=True)
    write(os.path.join(done, os.path.basename(path)), entry)
    for left in (path, exit_code_of(path)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(left)
    disk.sync_directory(os.path.dirname(path))
    there = _paths(done)
    if len(there) > _KEPT + 20:  # clean up once in 20 entries
        for old, entry in finished(os.path.dirname(path))[:-_KEPT]:
            for left in (old, str(entry.get("log") or "")):
                with contextlib.suppress(OSError):
                    os.unlink(left)


def exit_code_of(path):
    """The file to which the shell that runs the command writes its exit code."""
    return path[: -len(".json")] + ".exit"


def identity(entry):
    """The name of an entry for people: the hook and the first digits of the checkpoint's event."""
    return "%s-%s" % (entry["hook"]["name"], str(entry.get("event"))[:8])


@contextlib.contextmanager
def locked(path, patience):
    """Hold a lock of the kernel, which ends with the process. Yields whether this process holds it.

    Args:
        path: The lock file.
        patience: Seconds to wait for it.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    try:
        deadline = time.monotonic() + patience
        held = False
        while not held:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.05)
            except OSError as error:
                # The file system has no locks. The entry itself names the process that runs it.
                notice.debug("no lock on %s: %s" % (path, error))
                held = True
        yield held
    finally:
        os.close(descriptor)


def _paths(directory):
    try:
        there = os.listdir(directory)
    except OSError:
        return []
    return [os.path.join(directory, name) for name in there if name.startswith("hook-") and name.endswith(".json")]


def _age(pair):
    return str(pair[1].get("created_at", "")), pair[0]


def _check(found, path):
    if not stat.S_ISREG(found.st_mode):
        raise ForeignError("it is not a regular file")
    if found.st_mode & 0o022:
        raise ForeignError("others may write to it")
    if found.st_uid not in (os.geteuid(), 0) and found.st_uid != _owner_given_in(os.path.dirname(path)):
        raise ForeignError("it belongs to user %d, and its command is not run" % found.st_uid)


def _owner_given_in(directory):
    """The owner of files that this process creates there. NFS with root_squash gives them to another user."""
    probe = os.path.join(directory, "owner.%s.tmp" % os.urandom(8).hex())
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        os.unlink(probe)


def _selected(hook, entry):
    if hook.get("when") == "best":
        return entry.get("best") is True
    return hook.get("when") == "all" or not entry["metadata"].get("transient")


def _counts(directory):
    try:
        found = json.loads(content(os.path.join(directory, "counts")).decode("utf-8"))
    except (OSError, ValueError, ForeignError):
        return {}
    return found if isinstance(found, dict) else {}


def _counted(hook, entry, counts):
    """Whether it is this checkpoint's turn (`every: N`). After a crash, the last counted one is not counted again."""
    last = counts.get(hook["name"])
    last = last if isinstance(last, dict) and isinstance(last.get("count"), int) else {"count": 0}
    if last.get("event") != entry["event"]:
        last = {"count": last["count"] + 1, "event": entry["event"]}
    counts[hook["name"]] = last
    every = hook.get("every")
    return not isinstance(every, int) or every < 2 or last["count"] % every == 0


def _enter(directory, hook, entry):
    base = "hook-%s-%s" % (hook["name"], entry["event"])
    path = os.path.join(directory, base + ".json")
    if os.path.lexists(path) or os.path.lexists(os.path.join(directory, DONE, base + ".json")):
        return []
    last = hook.get("when") == "last"
    alias = next(iter(entry.get("aliases") or ()), "checkpoint")
    log = "hook-%s-%s-%s.log" % (hook["name"], re.sub(r"[^\w.-]", "-", str(alias)), entry["event"][:8])
    one = {
        "event": entry["event"],
        "created_at": entry["created_at"],
        "hook": hook,
        "state": HELD if last else WAITING,
        "attempts": 0,
        "not_before": 0,
        "why": "the command has not ended with exit code 0 yet" if last else None,
        "cwd": hook.get("cwd"),
        "process": entry.get("process"),
        "ended": entry.get("end_file"),
        "log": os.path.join(os.path.dirname(directory), RUNS, log),
        "entered_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "checkpoint": _checkpoint(entry),
    }
    write(path, one)
    if last:
        for other, earlier in entries(directory):
            if other != path and earlier["state"] == HELD and earlier["hook"]["name"] == hook["name"]:
                os.unlink(other)
    return [path]


def _checkpoint(entry):
    """The facts about the checkpoint for the hook's command."""
    metadata = entry["metadata"]
    number = entry.get("number")
    version = None if number is None else "v%d" % number
    target = entry.get("wandb")
    reference = "%s:%s" % (entry["name"], version or next(iter(entry.get("aliases") or ()), "latest"))
    if isinstance(target, dict) and entry.get("looked_up_in_wandb") and target.get("aliases"):
        # W&B numbers versions on its own, and has not numbered this one yet: name it by its alias.
        reference = "%s:%s" % (names.wandb_name(target["name"]), target["aliases"][0])
    return {
        "name": entry["name"],
        "version": version,
        "path": entry["checkpoint_path"],
        "local_path": entry["local_path"],
        "save_dir": entry["save_dir"],
        "iteration": entry.get("iteration"),
        "aliases": list(entry.get("aliases") or ()),
        "best": entry.get("best"),
        "format": metadata.get("format"),
        "hf_path": metadata.get("hf_path") or (entry["checkpoint_path"] if metadata.get("format") == "hf" else None),
        "reference": reference,
        "store": entry.get("store"),
        "metrics": {key[len("metrics.") :]: metadata[key] for key in metadata if key.startswith("metrics.")},
    }
