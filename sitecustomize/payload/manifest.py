"""The manifest store: versions of artifacts as small JSON files beside which the data stays where it is.

    {root}/{name}/v{N}/metadata.json    the fields of ${art:NAME,FIELD}
    {root}/{name}/v{N}/manifest.json    what it is, where, out of what; written last: the version exists from here on
    {root}/{name}/v{N}/pruned           empty: the framework has deleted the data
    {root}/{name}/latest                "v{N}", no newline
    {root}/{name}/aliases/{alias}       "v{N}", no newline

Layout, keys and bytes are those of NVIDIA's Nemotron (`src/nemo_runspec/manifest_tracker.py`); `aliases`, `pruned` and
the manifest's keys `aliases` and `transient` are ours, and its readers do not mind them.

Promises, for any number of writers on any number of hosts, each of which may die at any instruction:

* No two writers share a number: the directory `vN` is made exclusively before anything is written into it.
* What several writers know to be one thing is one version (`register(unless=…)`).
* A reader sees a version whole or not at all: manifest.json comes last, by rename.
* `latest` never moves backward. Writers take turns through the file `.latest.lock`, for all of a version; one that a
  dead writer left is broken after `STALE_LOCK` seconds without change. A writer that is stopped for longer than that in
  between its last look at the lock and its rename could still set `latest` back; the next writer mends it.

Not promised: data that is deleted while it is being resolved, and writers that are not ours (Nemotron's own moves
`latest` without a lock, and after one collision takes a directory that exists).

Python 3.8, standard library only: the injector registers checkpoints with this file, the launcher reads with it.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import errno
import json
import os
import re
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Files(Protocol):
        """What a store needs of a file system. Paths are absolute, with `/`."""

        root: str

        def list(self, directory: str) -> list[tuple[str, bool]]:
            """Names in a directory, each with whether it is a directory; empty where there is no such directory."""

        def read(self, path: str) -> bytes | None:
            """The whole content of a regular file, None where there is none."""

        def write(self, path: str, data: bytes) -> None:
            """Put a file in place, whole, durably; replaces what was there."""

        def create(self, path: str, data: bytes) -> bool:
            """The same, but False where something of that name exists."""

        def exists(self, path: str) -> bool:
            """Whether there is a file of that name."""

        def remove(self, path: str) -> None:
            """Remove a file; nothing happens where there is none."""

        def claim(self, directory: str) -> bool:
            """Make a directory with its parents and be the only one to have made it: False where it exists."""

        def remove_tree(self, directory: str) -> None:
            """Remove a directory with all that is in it."""

        def break_lock(self, path: str, content: bytes) -> None:
            """Remove a lock of a dead writer, if it still holds `content`."""


__all__ = [
    "LocalFiles",
    "Record",
    "StoreError",
    "UnknownArtifactError",
    "Version",
    "advance_latest",
    "aliases",
    "check_name",
    "data_path",
    "default_root",
    "is_local",
    "mark_pruned",
    "missing_data",
    "names",
    "numbers",
    "open_files",
    "read_alias",
    "read_latest",
    "read_version",
    "register",
    "safe_name",
    "set_alias",
    "uncommitted",
    "versions",
]

MAX_FILE = 16 * 1024 * 1024  # bytes; a manifest is a few kB, so more than this is no manifest
STALE_LOCK = 10.0  # seconds; the lock is held for the time of three small files
LOCK_WAIT = 60.0  # seconds
_DEPTH = 8  # parts of a name

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*\Z")
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@\-]*\Z")
_VERSION = re.compile(r"v(0|[1-9][0-9]{0,8})\Z")
_NUMBER = re.compile(r"v?([0-9]{1,9})\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?://|/)|[A-Za-z][A-Za-z0-9+.\-]*::")
_RESERVED = ("latest", "aliases", "pruned", "manifest.json", "metadata.json")


class StoreError(Exception):
    """The store could not do it.

    Args:
        wanted: What was to be done, naming the file.
        found: What stood in the way.
        remedy: What the user can do about it.
        temporary: It may pass later (disk full, stale file handle).
    """

    def __init__(self, wanted, found, remedy, temporary=False):
        super().__init__("{}: {}. {}".format(wanted, found, remedy))
        self.wanted = wanted
        self.found = found
        self.remedy = remedy
        self.temporary = temporary


class UnknownArtifactError(StoreError):
    """No such name, version or alias in this store."""


class Version:
    """What `register` returns.

    Attributes:
        number: N of `vN`.
        directory: Where its manifest.json is, as the file system object names it.
        name: The artifact's name.
        new: False where `register` found that it was there.
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


class Record(collections.namedtuple("Record", "number manifest metadata directory")):
    """A version as it was read: `manifest` is manifest.json, `metadata` is metadata.json ({} where there is none)."""

    __slots__ = ()


# Roots and names ------------------------------------------------------------------------------------------------


def default_root(environ=None):
    """Root of the store that the environment names: a path or a URI.

    `NEMOTRON_EXEC_STORE`, else `NEMO_ARTIFACT_ROOT` (Nemotron's own), else a directory under the user's data directory.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("NEMOTRON_EXEC_STORE") or environ.get("NEMO_ARTIFACT_ROOT")
    if named:
        return named
    data = environ.get("XDG_DATA_HOME") or ""
    if not os.path.isabs(data):  # the XDG specification says to ignore a relative one
        data = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return os.path.join(data, "nemotron-exec", "artifacts")


def is_local(root):
    """Whether a root is a path of this machine (`file://` included), not a URI that needs fsspec."""
    return str(root).startswith("file:") or not _SCHEME.match(str(root))


def check_name(name):
    """Return the name, or raise StoreError where it could not be a directory below the root."""
    parts = name.split("/") if isinstance(name, str) else []
    bad = [part for part in parts if not _PART.match(part) or part in _RESERVED or _VERSION.match(part)]
    if parts and len(parts) <= _DEPTH and not bad:
        return name
    raise StoreError(
        "to name an artifact",
        "{!r}{}".format(name, ", whose part {!r} no store takes".format(bad[0]) if bad else ""),
        "Write a name of letters, digits, '.', '_' and '-', parts joined by '/'; "
        "'..', 'v7', 'latest' and 'aliases' are no parts",
    )


def safe_name(text):
    """Make a name out of any text: other characters become `-`. For names that come from directories."""
    parts = []
    for part in str(text).split("/"):
        part = re.sub(r"[^A-Za-z0-9._\-]+", "-", part).lstrip(".-")
        if part:
            parts.append(part + "-artifact" if part in _RESERVED or _VERSION.match(part) else part)
    return "/".join(parts[:_DEPTH]) or "artifact"


# Local files ----------------------------------------------------------------------------------------------------


class LocalFiles:
    """A store on a path of this machine: every step is atomic and on disk before the next begins.

    Attributes:
        root: Absolute path.
        deferred: While this is a set, nothing waits for the disk; `settle` does so later, for all of it. For a writer
            whose caller is in a hurry, and who can register again what a power cut has taken.
        lock_wait: Seconds for which `register` waits for the other writers.
    """

    def __init__(self, root):
        self.deferred = None
        self.lock_wait = LOCK_WAIT
        root = os.fspath(root)
        if root.startswith("file:"):
            root = "/" + root[len("file:") :].lstrip("/")
        self.root = os.path.abspath(os.path.expanduser(root))

    def __repr__(self):
        return "LocalFiles({!r})".format(self.root)

    def list(self, directory):
        """Names in a directory, each with whether it is a directory."""
        try:
            with os.scandir(directory) as entries:
                return [(entry.name, _is_dir(entry)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as e:
            raise _failed("to read the directory {}".format(directory), e) from e

    def read(self, path):
        """Content of a regular file, None where there is none."""
        wanted = "to read {}".format(path)
        try:
            # A store may be writable by others: a link could lead anywhere, a pipe would never end.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            if e.errno == errno.ELOOP:
                raise StoreError(wanted, "it is a symbolic link", "Put a regular file there") from e
            raise _failed(wanted, e) from e
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StoreError(wanted, "it is not a regular file", "Put a regular file there")
            with os.fdopen(os.dup(fd), "rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as e:
            raise _failed(wanted, e) from e
        finally:
            os.close(fd)
        return _bounded(wanted, data)

    def write(self, path, data):
        """Replace a file, by rename."""
        temporary = self._temporary(path, data, durable=self.deferred is None)
        try:
            os.replace(temporary, path)
            if self.deferred is not None:
                self.deferred.add(path)
            self._sync(os.path.dirname(path))
        except OSError as e:
            raise _failed("to write {}".format(path), e) from e
        finally:
            _forget(temporary)

    def create(self, path, data):
        """Make a file unless there is one: False then."""
        # A link appears with its content, where an exclusive open would show an empty file first. Locks are made with
        # this: they are of no use after the machine has died, so the disk is not waited for.
        temporary = self._temporary(path, data, durable=False)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
                raise _failed("to create {}".format(path), e) from e
            return self._create_without_link(path, data)
        finally:
            _forget(temporary)
        return True

    def exists(self, path):
        """Whether anything has that name."""
        return os.path.lexists(path)

    def remove(self, path):
        """Remove a file, if it is there."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as e:
            raise _failed("to remove {}".format(path), e) from e

    def claim(self, directory):
        """Make a directory unless there is one: False then."""
        parent = os.path.dirname(directory)
        try:
            self._make(parent)
            os.mkdir(directory)
            self._sync(parent)
        except FileExistsError as e:
            if not os.path.isdir(parent):
                raise _failed("to make the directory {}".format(parent), e) from e
            return False
        except OSError as e:
            raise _failed("to make the directory {}".format(directory), e) from e
        return True

    def remove_tree(self, directory):
        """Remove a directory with all that is in it."""
        import shutil

        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as e:
            raise _failed("to remove {}".format(directory), e) from e

    def break_lock(self, path, content):
        """Remove a dead writer's lock, if it still holds `content`."""
        aside = "{}.{}".format(path, os.urandom(16).hex())
        try:
            # Renaming has one winner; whoever renames a lock that is no longer the dead one gives it back.
            os.rename(path, aside)
            with open(aside, "rb") as file:
                taken = file.read(MAX_FILE)
            if taken != content:
                with contextlib.suppress(OSError):
                    os.link(aside, path)
        except FileNotFoundError:
            return
        except OSError as e:
            raise _failed("to break the lock {}".format(path), e) from e
        finally:
            _forget(aside)

    def _make(self, directory):
        if os.path.isdir(directory):
            return
        os.makedirs(directory, exist_ok=True)
        upper = directory
        while len(upper) > len(os.path.dirname(self.root)):
            upper = os.path.dirname(upper)
            self._sync(upper)

    def _temporary(self, path, data, durable=True):
        temporary = os.path.join(os.path.dirname(path), ".{}.{}".format(os.path.basename(path), os.urandom(16).hex()))
        try:
            self._make(os.path.dirname(path))
        except OSError as e:
            raise _failed("to make the directory {}".format(os.path.dirname(path)), e) from e
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        except OSError as e:
            _forget(temporary)
            raise _failed("to write {}".format(path), e) from e
        return temporary

    def _create_without_link(self, path, data):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
        except OSError as e:
            raise _failed("to create {}".format(path), e) from e
        return True

    def settle(self):
        """Wait for the disk to have what was written while `deferred` was a set.

        Raises:
            OSError: It does not have all of it; what it lacks is tried again by the next call.
        """
        waiting, self.deferred = self.deferred or set(), None
        try:
            for path in sorted(waiting):
                if os.path.isdir(path):
                    self._sync(path)
                elif os.path.lexists(path):
                    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
        except OSError:
            self.deferred = waiting
            raise

    def _sync(self, directory):
        if self.deferred is not None:
            self.deferred.add(directory)
            return
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            return  # a parent that we may enter but not read
        try:
            os.fsync(fd)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # FUSE and friends cannot
                raise
        finally:
            os.close(fd)


def open_files(root):
    """File system object of a root: itself if it is one, else LocalFiles.

    Raises:
        StoreError: The root is a URI, which needs fsspec and so the launcher (`stores/manifest.py`).
    """
    if hasattr(root, "claim"):
        return root
    if not is_local(os.fspath(root)):
        raise StoreError(
            "to open the manifest store {}".format(root),
            "its root is a URI, which the standard library cannot reach",
            "Use nemotron-artifact, or a store on a shared file system",
        )
    return LocalFiles(root)


def _label(files):
    # A bucket's root is no URI any more.
    return getattr(files, "uri", files.root)


def _is_dir(entry):
    try:
        return entry.is_dir()
    except OSError:
        return False


def _forget(path):
    with contextlib.suppress(OSError):
        os.unlink(path)


def _bounded(wanted, data):
    if len(data) > MAX_FILE:
        raise StoreError(
            wanted, "it has more than {} MiB".format(MAX_FILE >> 20), "A manifest store holds small files only"
        )
    return data


_TEMPORARY = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE)


def _failed(wanted, e):
    remedy = "Check the directory and its file system"
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "Change its permissions or owner, or name another store (--store, NEMOTRON_EXEC_STORE)"
    elif e.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "Free some space there, or name another store (--store, NEMOTRON_EXEC_STORE)"
    return StoreError(wanted, "{} ({})".format(e.strerror or e, type(e).__name__), remedy, e.errno in _TEMPORARY)


# Writing --------------------------------------------------------------------------------------------------------


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
        path: Where the data is; a path or a URI, recorded as given.
        metadata: `metadata` of manifest.json; its `iteration` and `absolute_path` are fields of metadata.json too.
        fields: More fields for metadata.json.
        used_artifacts: What it was made from, as `name:vN`.
        inputs: What it was made from outside of the store, as URIs.
        producer: Who made it; default as Nemotron has it: `NEMO_EXPERIMENT_ID`, else "local".
        created_at: ISO 8601; default now.
        aliases: Names beside `latest` by which it can be asked for.
        move_latest: False for a version that `latest` must never mean, such as a checkpoint that will not be kept.
        extra: More keys for manifest.json; those of Nemotron are not changed by it.
        unless: `unless(files)` gives the number of a version that is the same thing, or None. Asked while no other
            writer can add one: what several processes report at once is registered once.

    Returns:
        The Version. It exists for readers as soon as this returns, `latest` and aliases included.

    Raises:
        StoreError: Nothing was registered, or the version exists and `latest` does not mean it yet (the message says).
    """
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    for alias in aliases:
        _check_alias(alias)
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
    # What cannot be written must not cost a number.
    fields_text = _json(table)
    _json(manifest)
    number = None
    while number is None:
        with _lock(files, directory + "/.latest.lock") as still_ours:
            there = None if unless is None else unless(files)
            if there is not None:
                if move_latest:  # whoever wrote it may have died before this
                    _advance(files, directory, there, still_ours)
                return Version(name, there, "{}/v{}".format(directory, there), new=False)
            number = _add(files, name, manifest, fields_text, still_ours)
            moved = number is None or not move_latest or _advance(files, directory, number, still_ours)
    if not moved:
        advance_latest(files, name, number)
    for alias in aliases:
        set_alias(files, name, alias, number)
    return Version(name, number, "{}/v{}".format(directory, number))


def _add(files, name, manifest, fields_text, still_ours):
    """Write the next version; its number, or None where the lock was lost before the version existed."""
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
    """Make `latest` mean version `number`, unless it means a later one or a later one exists by now.

    Returns:
        The number that `latest` means afterwards.
    """
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    while True:
        left = "; the version is written, and `latest` does not mean it yet"
        with _lock(files, directory + "/.latest.lock", left) as still_ours:
            meant = _advance(files, directory, number, still_ours)
        # Without an answer somebody took us for dead and holds the lock now: once more, after them.
        if meant is not None:
            return meant


def _advance(files, directory, number, still_ours):
    """`advance_latest` of one who holds the lock; None where it is held no more, and nothing was changed."""
    path = directory + "/latest"
    current = _pointer(files, path, strict=False)
    for later in sorted(_numbers(files, directory), reverse=True):
        if later <= number:
            break
        # While `latest` is missing, readers take the highest: setting a lower one would be a step back.
        if not _is_transient(files, "{}/v{}".format(directory, later)):
            number = later
            break
    if current is not None and current >= number:
        return current
    if not still_ours():
        return None
    files.write(path, "v{}".format(number).encode())
    return number


def set_alias(root, name, alias, number):
    """Make an alias mean version `number`, wherever it pointed before."""
    files = open_files(root)
    if alias == "latest":
        advance_latest(files, name, number)
        return
    path = "{}/{}/aliases/{}".format(files.root, check_name(name), _check_alias(alias))
    files.write(path, "v{}".format(number).encode())


def mark_pruned(root, name, number):
    """Record that the framework has deleted the data of a version."""
    files = open_files(root)
    directory = "{}/{}/v{}".format(files.root, check_name(name), number)
    if files.exists(directory + "/manifest.json"):
        files.write(directory + "/pruned", b"")


def _allocate(files, name):
    directory = "{}/{}".format(files.root, name)
    number = max(_numbers(files, directory), default=0)
    for attempt in range(1000):
        number = max([number, *_numbers(files, directory)]) if attempt % 10 == 9 else number
        number += 1
        if files.claim("{}/v{}".format(directory, number)):
            return directory, number
    raise StoreError(
        "to add a version of {} to {}".format(name, _label(files)),
        "a thousand numbers in a row were taken by others",
        "Try again",
        temporary=True,
    )


def _json(data):
    wanted = "to record {}".format(data.get("name") or "the fields of an artifact")
    try:
        # Exactly json.dump(…, indent=2, default=str), as Nemotron writes it: no final newline.
        text = json.dumps(data, indent=2, default=str).encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise StoreError(wanted, "its metadata is no JSON ({})".format(e), "Give plain values with text as keys") from e
    return _bounded(wanted, text)


def _check_alias(alias):
    if isinstance(alias, str) and _ALIAS.match(alias) and not _NUMBER.match(alias):
        return alias
    raise StoreError(
        "to name an alias",
        "{!r}".format(alias),
        "Write one of letters, digits, '.', '_', '+', '@' and '-' that does not look like a version",
    )


@contextlib.contextmanager
def _lock(files, path, left=""):
    """Hold a lock file; yields a function that says whether it is still ours. `left`: what is not done without it."""
    mine = json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "nonce": os.urandom(16).hex()}).encode()
    patience = getattr(files, "lock_wait", LOCK_WAIT)
    deadline = time.monotonic() + patience
    seen = None
    since = time.monotonic()
    while not files.create(path, mine):
        # No clock but our own is asked: a lock is dead when its content has not changed for STALE_LOCK.
        holder = files.read(path)
        now = time.monotonic()
        if holder != seen:
            seen, since = holder, now
        elif holder is not None and now - since > STALE_LOCK:
            files.break_lock(path, holder)
        if now > deadline:
            raise StoreError(
                "to take the lock {}".format(path),
                "others have held it for {:g} s{}".format(patience, left),
                "Remove the file if no job writes to this store",
                temporary=True,
            )
        import random

        time.sleep(random.uniform(0.005, 0.05))  # noqa: S311
    try:
        yield lambda: files.read(path) == mine
    finally:
        if files.read(path) == mine:
            files.remove(path)


# Reading --------------------------------------------------------------------------------------------------------


def names(root):
    """Names of all artifacts that have a version, sorted."""
    files = open_files(root)
    found = []

    def walk(directory, parts):
        entries = files.list(directory)
        if parts and any(
            _VERSION.match(entry) and files.exists("{}/{}/manifest.json".format(directory, entry))
            for entry, is_directory in entries
            if is_directory
        ):
            found.append("/".join(parts))
        if len(parts) < _DEPTH:
            for entry, is_directory in entries:
                if is_directory and _PART.match(entry) and entry not in _RESERVED and not _VERSION.match(entry):
                    walk("{}/{}".format(directory, entry), parts + [entry])

    walk(files.root, [])
    return sorted(found)


def numbers(root, name):
    """Numbers that writers have taken, ascending: all versions, and what is not yet one. A single look at the store."""
    files = open_files(root)
    return sorted(_numbers(files, "{}/{}".format(files.root, check_name(name))))


def versions(root, name):
    """Numbers of all versions of an artifact, ascending; empty where there is no such artifact."""
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    return sorted(
        number
        for number in _numbers(files, directory)
        if files.exists("{}/v{}/manifest.json".format(directory, number))
    )


def uncommitted(root, name):
    """Numbers that a writer took and for which there is no manifest: it is still writing, or died."""
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    return sorted(set(_numbers(files, directory)).difference(versions(files, name)))


def aliases(root, name):
    """The aliases of an artifact and the numbers they mean, without `latest`."""
    files = open_files(root)
    directory = "{}/{}/aliases".format(files.root, check_name(name))
    found = {}
    for alias, is_directory in sorted(files.list(directory)):
        if not is_directory and _ALIAS.match(alias):
            found[alias] = _pointer(files, "{}/{}".format(directory, alias))
    return found


def read_latest(root, name):
    """What the file `latest` says, None where there is none."""
    files = open_files(root)
    return _pointer(files, "{}/{}/latest".format(files.root, check_name(name)))


def read_alias(root, name, alias):
    """What the file of an alias says, None where there is none."""
    files = open_files(root)
    return _pointer(files, "{}/{}/aliases/{}".format(files.root, check_name(name), _check_alias(alias)), strict=False)


def read_version(root, name, reference="latest", *, skip_gone=True, on_skip=None, localise=None):
    """Read one version.

    Args:
        root: Path of the store, or a file system object.
        name: Name of the artifact.
        reference: `v3`, `3`, 3, `latest` or an alias. `latest` and aliases pass over versions whose data is gone,
            unless `skip_gone` is False: `latest` to the next lower version, an alias to the newest other version that
            was registered with it. A version that is named by its number is never passed over.
        skip_gone: See above.
        on_skip: Called with (number, reason) for each version that was passed over.
        localise: Translates a recorded path into the one that it has here.

    Returns:
        The Record (number, manifest, metadata, directory).

    Raises:
        UnknownArtifactError: There is no such artifact, version or alias, or all that it could mean are gone.
        StoreError: A file of the version is damaged.
    """
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    text = str(reference)
    wanted = "to find {}:{} in {}".format(name, text if not text.isdigit() else "v" + text, _label(files))
    number = _NUMBER.match(text)
    if number:
        if files.exists("{}/v{}/manifest.json".format(directory, int(number.group(1)))):
            return _read(files, directory, int(number.group(1)))
        raise _unknown_version(files, name, wanted)
    skipped = []

    def skip(number, reason):
        skipped.append("v{} {}".format(number, reason))
        if on_skip is not None:
            on_skip(number, reason)

    if text == "latest":
        candidates = _latest_candidates(files, directory)
    else:
        candidates = _alias_candidates(files, directory, _check_alias(text))
    for candidate in candidates:
        if not files.exists("{}/v{}/manifest.json".format(directory, candidate)):
            skip(candidate, "has no manifest")
            continue
        record = _read(files, directory, candidate)
        reason = missing_data(files, record, localise) if skip_gone else None
        if reason is None:
            return record
        skip(candidate, reason)
    if not skipped:
        raise _unknown_version(files, name, wanted, text)
    raise UnknownArtifactError(
        wanted, "; ".join(skipped), "Name another version, or register the data again with nemotron-artifact add"
    )


def data_path(record):
    """The path whose absence means that the version's data is gone: `checkpoint_path`, else `path`."""
    manifest, metadata = record[1], record[2]
    for table in (manifest, manifest.get("metadata"), metadata, metadata.get("metadata")):
        if isinstance(table, dict) and isinstance(table.get("checkpoint_path"), str) and table["checkpoint_path"]:
            return table["checkpoint_path"]
    return manifest["path"]


def missing_data(root, record, localise=None):
    """Why the data of a version cannot be used, None where it can. URIs are taken to be there."""
    files = open_files(root)
    if files.exists(record[3] + "/pruned"):
        return "was pruned by the framework that wrote it"
    path = data_path(record)
    if path.startswith("file:"):
        path = "/" + path[len("file:") :].lstrip("/")
    if _SCHEME.match(path):
        return None
    local = localise(path) if localise is not None else path
    if os.path.exists(local):
        return None
    # The path is what a file says: a terminal must not obey it.
    return "has lost its data: {} is not there".format(path if path.isprintable() else repr(path))


def _latest_candidates(files, directory):
    latest = _pointer(files, directory + "/latest")
    if latest is not None:
        yield latest
    for number in sorted(_numbers(files, directory), reverse=True):
        if (latest is None or number < latest) and not _is_transient(files, "{}/v{}".format(directory, number)):
            yield number


def _alias_candidates(files, directory, alias):
    meant = _pointer(files, "{}/aliases/{}".format(directory, alias))
    if meant is not None:
        yield meant
    for number in sorted(_numbers(files, directory), reverse=True):
        if number != meant and alias in _listed_aliases(files, "{}/v{}".format(directory, number)):
            yield number


def _listed_aliases(files, version_directory):
    try:
        manifest = _load(files, version_directory + "/manifest.json") or {}
    except StoreError:
        return []
    listed = manifest.get("aliases")
    return listed if isinstance(listed, list) else []


def _is_transient(files, version_directory):
    # A damaged manifest must not keep other versions from being found.
    try:
        manifest = _load(files, version_directory + "/manifest.json")
    except StoreError:
        return True
    return manifest is None or manifest.get("transient") is True


def _numbers(files, directory):
    for entry, is_directory in files.list(directory):
        match = _VERSION.match(entry)
        if match and is_directory:
            yield int(match.group(1))


def _pointer(files, path, strict=True):
    data = files.read(path)
    if data is None:
        return None
    match = _VERSION.match(data.decode("utf-8", "replace").strip())
    if match:
        return int(match.group(1))
    if not strict:
        return None
    raise StoreError(
        "to read {}".format(path),
        "{!r} instead of a version such as 'v3'".format(data[:40]),
        "Write the version into it",
    )


def _read(files, directory, number):
    directory = "{}/v{}".format(directory, number)
    path = directory + "/manifest.json"
    manifest = _load(files, path)
    if manifest is None:
        raise StoreError("to read {}".format(path), "it has just been removed", "Try again", temporary=True)
    wanted = "to read {}".format(path)
    if not isinstance(manifest.get("path"), str) or not manifest["path"] or "\0" in manifest["path"]:
        found = "no `path`" if "path" not in manifest else "`path` is {!r}".format(manifest["path"])
        raise StoreError(wanted, found, "Write the path of the data into it, as a string")
    for key, kind, called in _TYPES:
        if manifest.get(key) is not None and not isinstance(manifest[key], kind):
            raise StoreError(wanted, "`{}` is {!r}".format(key, manifest[key]), "It has to be {}".format(called))
    return Record(number, manifest, _load(files, directory + "/metadata.json") or {}, directory)


_TYPES = (
    ("type", str, "a string"),
    ("metadata", dict, "an object"),
    ("inputs", list, "a list"),
    ("used_artifacts", list, "a list"),
)


def _load(files, path):
    data = files.read(path)
    if data is None:
        return None
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise StoreError(
            "to read {}".format(path), "not JSON ({})".format(e), "Mend the file, or remove the version's directory"
        ) from e
    if not isinstance(value, dict):
        raise StoreError(
            "to read {}".format(path), "JSON that is not an object", "Mend the file, or remove the version's directory"
        )
    return value


def _unknown_version(files, name, wanted, alias=""):
    there = versions(files, name)
    if not there:
        return _unknown_name(files, name, wanted)
    shown = ["v{}".format(number) for number in there]
    if len(shown) > 10:
        shown = shown[:3] + ["…"] + shown[-6:]
    found = "{} has the versions {}".format(name, ", ".join(shown))
    have = ["latest", *aliases(files, name)]
    if alias:
        found += " and the aliases " + ", ".join(have)
    return UnknownArtifactError(wanted, found, (alias and _nearest(alias, have)) or "Name one of them")


def _unknown_name(files, name, wanted):
    have = names(files)
    if not have:
        return UnknownArtifactError(
            wanted,
            "the store is empty",
            "Check the store's root, or add one: nemotron-artifact add {} PATH".format(name),
        )
    close = _nearest(name, have)
    found = "no artifact of that name; there are {}".format(", ".join(have[:10]) + (", …" if len(have) > 10 else ""))
    return UnknownArtifactError(wanted, found, close or "Check the name, or the store's root")


def _nearest(name, have):
    import difflib

    close = difflib.get_close_matches(name, have, 3, 0.5)
    tail = name.rsplit("/", 1)[-1]
    close += [other for other in have if other.rsplit("/", 1)[-1] == tail and other not in close][:3]
    return "Did you mean {}?".format(" or ".join(close[:3])) if close else ""
