"""The standard cache of Hugging Face, read and completed without huggingface_hub.

    <cache>/models--org--name/refs/main                       the commit that `main` was
    <cache>/models--org--name/snapshots/<commit>/config.json  a link into blobs/
    <cache>/models--org--name/nemotron-exec/<commit>.json     the record of a commit: its files with size and digest

Except for the record, the layout is that of huggingface_hub (guides/manage-cache). Only a list of its files shows
whether a snapshot is complete, and huggingface_hub keeps one since 1.20 (`trees/<commit>.json`).
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nemotron_exec.environment import homeless, user_cache
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "OFFLINE",
    "OUTER",
    "VIEW",
    "Entry",
    "HubCache",
    "Record",
    "cache_directory",
    "is_commit",
    "is_inside",
    "is_on",
    "selected",
]

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Variables that keep the libraries of a job from the network."""
OUTER = "NEMOTRON_EXEC_HUB_OFFLINE"
"""The launcher sets it together with these. A launcher inside the job then knows that no user has set them."""
VIEW = "nemotron-exec-view"
"""File in a job's view of a cache (view.py) that names the cache."""
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_LIMIT = 64 << 20  # bytes; the record of a repository with 100,000 files has 15 MB
_SCHEMA = 1
_BLOCK = 4 << 20


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's full hash, which always means the same files."""
    return _COMMIT.match(revision) is not None


def is_on(value: str) -> bool:
    """Whether a variable switches something on, by huggingface_hub's rule (constants.py, `_is_true`)."""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def cache_directory(environ: Mapping[str, str], cache_dir: str | None = None) -> tuple[str, bool]:
    """The cache directory for downloads of the hub.

    `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` and `HF_HOME` win over `--cache-dir`, because the job reads them as well.
    Without any of them it is the default of the library (huggingface_hub/constants.py).

    Args:
        environ: The launcher's environment.
        cache_dir: `--cache-dir`.

    Returns:
        The absolute path of the directory, and whether the job needs `HF_HUB_CACHE` to find it.
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            path = _absolute(environ[name], environ)
            # In a launcher inside a job, the variable names that job's view. Its file VIEW names the cache itself.
            return (_read(os.path.join(path, VIEW), 4096) or path.encode()).decode(), False
    if environ.get("HF_HOME"):
        return os.path.join(_absolute(environ["HF_HOME"], environ), "hub"), False
    if cache_dir:
        return os.path.join(absolute(cache_dir), "huggingface", "hub"), True
    cache = user_cache(environ)
    if cache is None:
        raise homeless("to find the cache of the Hugging Face hub")
    return os.path.join(absolute(cache), "huggingface", "hub"), False


@dataclass(frozen=True)
class Entry:
    """One file of a commit.

    Attributes:
        size: Size in bytes.
        sha256: Digest of the content, for a file in LFS.
        oid: Git's digest of the content, for a file outside of LFS.
    """

    size: int
    sha256: str | None = None
    oid: str | None = None

    @property
    def blob(self) -> str:
        """Name of the file in `blobs/`: the ETag of the hub."""
        return self.sha256 or self.oid or ""


@dataclass(frozen=True)
class Record:
    """The known facts of one commit of one repository.

    Attributes:
        files: Every file of the commit, by its path.
        card: The YAML block of README.md.
        asked_at: When the hub was asked, ISO 8601; empty where unknown.
    """

    files: Mapping[str, Entry]
    card: Mapping[str, Any] = field(default_factory=dict)
    asked_at: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record as it lies in the cache, and as the child process sends it."""
        files = {
            path: {name: value for name, value in vars(entry).items() if value is not None}
            for path, entry in self.files.items()
        }
        return {"schema": _SCHEMA, "asked_at": self.asked_at, "card": dict(self.card), "files": files}

    @classmethod
    def from_json(cls, data: Any) -> Record | None:
        """The inverse of `to_json`; None for any other data."""
        try:
            if data["schema"] != _SCHEMA:
                return None
            files = {
                _inside(path): Entry(_bytes(entry["size"]), _hex(entry.get("sha256"), 64), _hex(entry.get("oid"), 40))
                for path, entry in data["files"].items()
            }
            card = data["card"] if isinstance(data["card"], dict) else {}
            return cls(files, card, str(data["asked_at"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


class HubCache:
    """One cache directory (`HF_HUB_CACHE`).

    Args:
        root: The directory; it need not exist.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def repository(self, kind: str, name: str) -> str:
        """The directory of a repository."""
        return os.path.join(self.root, "--".join([f"{kind}s", *name.split("/")]))

    def snapshot(self, kind: str, name: str, commit: str) -> str:
        """The directory of a commit's files."""
        return os.path.join(self.repository(kind, name), "snapshots", commit)

    def commit_of(self, kind: str, name: str, revision: str) -> str | None:
        """The commit of a branch or tag by the last note in the cache; None where there is no note."""
        if is_commit(revision):
            return revision
        text = (_read(os.path.join(self.repository(kind, name), "refs", *revision.split("/")), 256) or b"").decode(
            "ascii", "replace"
        )
        return text.strip() if is_commit(text.strip()) else None

    def point(self, kind: str, name: str, revision: str, commit: str) -> None:
        """Note the commit of a branch or tag. Nothing happens where it is noted already, or cannot be written."""
        if is_commit(revision) or self.commit_of(kind, name, revision) == commit:
            return
        path = os.path.join(self.repository(kind, name), "refs", *revision.split("/"))
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, commit.encode())

    def record(self, kind: str, name: str, commit: str) -> Record | None:
        """The record of a commit: nemotron-exec's, or the list that huggingface_hub keeps; None if neither exists."""
        repository = self.repository(kind, name)
        for directory, read in (("nemotron-exec", Record.from_json), ("trees", _of_tree)):
            data = _read(os.path.join(repository, directory, f"{commit}.json"), _LIMIT)
            if data is not None:
                with contextlib.suppress(ValueError, RecursionError):
                    if (record := read(json.loads(data))) is not None:
                        return record
        return None

    def keep(self, kind: str, name: str, commit: str, record: Record) -> None:
        """Write the record of a commit whose files are here. Nothing happens where it cannot be written."""
        path = os.path.join(self.repository(kind, name), "nemotron-exec", f"{commit}.json")
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, json.dumps(record.to_json()).encode())

    def has(self, kind: str, name: str, commit: str, path: str) -> bool:
        """Whether a file of a snapshot exists, with any size."""
        return _size(os.path.join(self.snapshot(kind, name, commit), path)) >= 0

    def lacking(self, kind: str, name: str, commit: str, record: Record, paths: Iterable[str]) -> list[str]:
        """The files of `paths` that are missing, or have another size than on the hub."""
        snapshot = self.snapshot(kind, name, commit)
        return [path for path in paths if _size(os.path.join(snapshot, path)) != record.files[path].size]

    def damaged(self, kind: str, name: str, commit: str, record: Record, paths: Iterable[str]) -> list[str]:
        """The files of `paths` whose content has another digest than on the hub."""
        snapshot = self.snapshot(kind, name, commit)
        return [path for path in paths if not _is_intact(os.path.join(snapshot, path), record.files[path])]

    def forget(self, kind: str, name: str, commit: str, record: Record, path: str) -> None:
        """Remove one file of a snapshot with its content, so that it is downloaded anew.

        Raises:
            NotADirectoryError: A directory of the snapshot is a link to a place outside the cache.
        """
        snapshot = self.snapshot(kind, name, commit)
        directory = os.path.dirname(os.path.join(snapshot, path))
        if os.path.realpath(directory) != os.path.join(
            os.path.realpath(self.root), os.path.relpath(directory, self.root)
        ):
            raise NotADirectoryError(errno.ENOTDIR, "a link to another place", directory)
        for target in (
            os.path.join(self.snapshot(kind, name, commit), path),
            os.path.join(self.repository(kind, name), "blobs", record.files[path].blob or "-"),
        ):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)


def selected(paths: Iterable[str], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The paths that the patterns select, like `allow_patterns` and `ignore_patterns` of huggingface_hub."""
    allow, ignore = ([p + "*" if p.endswith("/") else p for p in patterns] for patterns in (include, exclude))
    return [
        path
        for path in paths
        if (not allow or any(fnmatch.fnmatchcase(path, p) for p in allow))
        and not any(fnmatch.fnmatchcase(path, p) for p in ignore)
    ]


def _of_tree(data: Any) -> Record | None:
    """The record from huggingface_hub's own list (huggingface_hub/_tree_cache.py, format 1); None if it is invalid."""
    try:
        if data["format_version"] != 1:
            return None
        return Record(
            {
                _inside(path): Entry(
                    _bytes(entry["size"]),
                    _hex(entry.get("lfs_sha256"), 64),
                    None if entry.get("lfs_sha256") else _hex(entry["blob_id"], 40),
                )
                for path, entry in data["files"].items()
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def is_inside(path: object) -> bool:
    """Whether the name of a file stays inside its repository."""
    return (
        isinstance(path, str)
        and path.strip("/.") != ""
        and not os.path.isabs(path)
        and ".." not in path.split("/")
        and "\0" not in path
    )


# Another program may have written the list of files. If one value in it is impossible, the whole list is ignored.


def _hex(value: Any, length: int) -> str | None:
    # A digest becomes the name of a file in blobs/, so check its form.
    if value is not None and not (isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value)):
        raise ValueError(value)
    return value


def _inside(path: Any) -> str:
    if not is_inside(path):
        raise ValueError(path)
    return str(path)


def _bytes(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _is_intact(path: str, entry: Entry) -> bool:
    digest = hashlib.sha256() if entry.sha256 else hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == (entry.sha256 or entry.oid or digest.hexdigest())


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1


def _read(path: str, limit: int) -> bytes | None:
    from nemotron_exec.shared_directory import files as private

    try:
        return private.read(path, limit=limit)
    except private.UnusableFileError:
        return None


def _write(path: str, data: bytes) -> None:
    """Replace a file of the cache. Like huggingface_hub's files it is readable for all whom the umask admits."""
    import tempfile

    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            mask = os.umask(0o077)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _absolute(path: str, environ: Mapping[str, str]) -> str:
    if path.startswith("~/") and environ.get("HOME"):
        path = os.path.join(environ["HOME"], path[2:])
    path = os.path.expanduser(os.path.expandvars(path))
    if path.startswith("~/"):
        raise homeless(f"to find {path}")
    return absolute(path)
