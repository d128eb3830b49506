"""Any fsspec file system, as payload/manifest.py wants it: the manifest store in a bucket.

What holds there, as opposed to a directory:

* A write is one PUT, so a reader sees a file whole or not at all. File systems without that (SFTP, HDFS) get a
  temporary file and a rename.
* A number is claimed with an object `vN/.claim` that is created only if there is none (`If-None-Match: *` on S3,
  generation 0 on GCS, no overwrite on Azure). This is tried out once a process. Where the server ignores the condition
  (some S3 look-alikes) or the file system has none, the claim is written, left to settle for `SETTLE` seconds and read
  again: of writers that come close together the last one wins. A writer that stalls for longer between its look and
  its write may share a number.
* `latest` moves under the same kind of claim. A dead writer's is removed without an atomic rename, so that two
  writers that break it within the same milliseconds may both go on; the last look at the lock before the write makes
  that rarer.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from nemotron_exec.sitecustomize.payload.manifest.files import MAX_FILE
from nemotron_exec.sitecustomize.payload.manifest.lock import STALE_LOCK
from nemotron_exec.sitecustomize.payload.manifest.names import _VERSION, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FsspecFiles", "FsspecReader", "FsspecSnapshot"]

SETTLE = 1.0  # seconds

# A PUT is atomic there.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory", "hf"})
# Their drivers pass the condition on to the server; fsspec's own default only looks first.
_CONDITIONAL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
# All of memory:// is one dictionary whose files have one position each.
_MEMORY = threading.RLock()


class FsspecFiles:
    """A manifest store on an fsspec URI.

    Raises:
        StoreError: No driver for this URI is installed, or it cannot be configured.
    """

    def __init__(self, uri: str) -> None:
        wanted = f"to open the manifest store {uri}"
        try:
            from fsspec.core import url_to_fs

            self._fs, root = url_to_fs(uri)
        except (ImportError, ValueError) as e:
            raise StoreError(wanted, str(e), "Install the file system's fsspec driver, or check the URI") from e
        except Exception as e:
            raise _failed(wanted, e) from e
        self.uri = uri
        self.root = str(root).rstrip("/")
        protocol = self._fs.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._guard: Any = _MEMORY if "memory" in self._protocols else contextlib.nullcontext()
        self._conditional: bool | None = None

    @property
    def lock_trust(self) -> float:
        """Seconds for which this writer trusts its lock unread: 0 where two writers may both have made it."""
        return STALE_LOCK / 2 if self._conditional else 0.0

    def __repr__(self) -> str:
        return f"FsspecFiles({self.uri!r})"

    def list(self, directory: str) -> list[tuple[str, bool]]:
        """Names in a directory, each with whether it is a directory."""
        with self._doing(f"to list {directory}"):
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(directory, detail=True)
            except (FileNotFoundError, NotADirectoryError) as e:
                _raise_for_bucket(f"to list {directory}", e)
                return []
        named = ((entry["name"].rstrip("/"), entry["type"] == "directory") for entry in entries)
        return [
            (name.rsplit("/", 1)[-1], is_directory) for name, is_directory in named if name != directory.rstrip("/")
        ]

    def read(self, path: str) -> bytes | None:
        """Content of a file, None where there is none."""
        wanted = f"to read {path}"
        with self._doing(wanted):
            self._fs.invalidate_cache()
            try:
                # One GET, whose end does not depend on a size of a moment ago. A plain one is a HEAD more, and of that
                # an error has no words.
                data = bytes(self._fs.cat_file(path, start=0, end=MAX_FILE + 1))
            except (FileNotFoundError, NotADirectoryError) as e:
                _raise_for_bucket(wanted, e)
                return None
            except IsADirectoryError as e:
                raise StoreError(wanted, "it is not a regular file", "Put a regular file there") from e
            except Exception as e:
                if not _is_empty(e):
                    raise
                return b""
        if len(data) > MAX_FILE:
            raise StoreError(
                wanted, f"it has more than {MAX_FILE >> 20} MiB", "A manifest store holds small files only"
            )
        return data

    def write(self, path: str, data: bytes) -> None:
        """Replace a file, whole."""
        with self._doing(f"to write {path}"):
            if self._protocols & _OBJECT_STORES:
                self._fs.pipe_file(path, data)
                return
            directory, name = path.rsplit("/", 1)
            self._fs.makedirs(directory, exist_ok=True)
            temporary = f"{directory}/.{name}.{uuid.uuid4().hex}"
            self._fs.pipe_file(temporary, data)
            self._fs.mv(temporary, path)

    def create(self, path: str, data: bytes) -> bool:
        """Make a file unless there is one: False then."""
        if self._conditional is None:
            self._conditional = self._try_out()
        if self._conditional:
            return self._create_if_absent(path, data)
        if self.exists(path):
            return False
        self.write(path, data)
        time.sleep(SETTLE)
        return self.read(path) == data

    def exists(self, path: str) -> bool:
        """Whether there is a file of that name."""
        wanted = f"to look for {path}"
        with self._doing(wanted):
            self._fs.invalidate_cache()
            if not self._protocols & _OBJECT_STORES:
                return bool(self._fs.exists(path))
            try:
                # After a HEAD of a missing object drivers list its prefix as well: it could be a directory.
                self._fs.cat_file(path, start=0, end=1)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
                _raise_for_bucket(wanted, e)
                return False
            except Exception as e:
                if not _is_empty(e):
                    raise
            return True

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._doing(f"to remove {path}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def claim(self, directory: str) -> bool:
        """Claim a directory for this writer alone: False where another writer has claimed it."""
        return self.create(f"{directory}/.claim", uuid.uuid4().hex.encode())

    def remove_tree(self, directory: str) -> None:
        """Remove a directory with all that is in it."""
        with self._doing(f"to remove {directory}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(directory, recursive=True)

    def break_lock(self, path: str, content: bytes) -> None:
        """Remove a dead writer's lock, if it still holds `content`."""
        if self.read(path) == content:
            self.remove(path)

    def reader(self) -> FsspecReader:
        """The store as one look-up sees it: what stands in a version's directory is asked for once."""
        return FsspecReader(self)

    def snapshot(self, name: str | None = None) -> FsspecSnapshot:
        """All small files of the store, or of one artifact, fetched together: for listings, not for writers."""
        below = f"{self.root}/{name}" if name else self.root
        with self._doing(f"to list {below}"):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(below, detail=True)
            except (FileNotFoundError, NotADirectoryError) as e:
                _raise_for_bucket(f"to list {below}", e)
                found = {}
            sizes = {path: int(info.get("size") or 0) for path, info in found.items()}
            small = [path for path, size in sizes.items() if size <= MAX_FILE and not path.endswith("/.claim")]
            content = self._fs.cat(small, on_error="omit") if small else {}
        return FsspecSnapshot(self.root, self.uri, sizes, {path: bytes(data) for path, data in content.items()})

    def _try_out(self) -> bool:
        if not self._protocols & _CONDITIONAL:
            return False
        method = getattr(self._fs, "_pipe_file", None) or self._fs.pipe_file
        if "mode" not in inspect.signature(method).parameters:
            return False
        # It stays: the next process asks once. A server that ignores the condition takes both.
        probe = f"{self.root}/.probe"
        try:
            return not (self._create_if_absent(probe, b"1") and self._create_if_absent(probe, b"1"))
        except StoreError as e:
            if e.temporary or isinstance(e.__cause__, PermissionError):
                raise
            return False

    def _create_if_absent(self, path: str, data: bytes) -> bool:
        with self._doing(f"to create {path}"):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def _doing(self, wanted: str) -> Iterator[None]:
        try:
            with self._guard:
                yield
        except StoreError:
            raise
        except Exception as e:
            # Each driver raises what its client library raises.
            raise _failed(wanted, e) from e


class FsspecReader(FsspecFiles):
    """A store for one look-up: it lists a version's directory once, and reads only files that are in the list."""

    def __init__(self, files: FsspecFiles) -> None:
        self.__dict__.update(files.__dict__)
        self._listed: dict[str, dict[str, bool]] = {}

    def exists(self, path: str) -> bool:
        """Whether there is a file of that name."""
        directory, name = path.rsplit("/", 1)
        if not _VERSION.match(directory.rsplit("/", 1)[-1]):
            return super().exists(path)
        if directory not in self._listed:
            self._listed[directory] = dict(self.list(directory))
        return self._listed[directory].get(name) is False

    def read(self, path: str) -> bytes | None:
        """Content of a file, None where there is none."""
        directory = path.rsplit("/", 2)[-2]
        return None if _VERSION.match(directory) and not self.exists(path) else super().read(path)


class FsspecSnapshot:
    """What `FsspecFiles.snapshot` saw; payload/manifest.py reads it like a file system."""

    def __init__(self, root: str, uri: str, sizes: dict[str, int], content: dict[str, bytes]) -> None:
        self.root = root
        self.uri = uri
        self._sizes = sizes
        self._content = content
        self._tree: dict[str, dict[str, bool]] = {}
        for path in sizes:
            child, is_directory = path, False
            while child != root and "/" in child:
                parent, name = child.rsplit("/", 1)
                self._tree.setdefault(parent, {})[name] = is_directory
                child, is_directory = parent, True

    def snapshot(self, name: str | None = None) -> FsspecSnapshot:
        """Itself."""
        del name
        return self

    def list(self, directory: str) -> list[tuple[str, bool]]:
        """Names in a directory, each with whether it is a directory."""
        return list(self._tree.get(directory, {}).items())

    def read(self, path: str) -> bytes | None:
        """Content of a file, None where there is none."""
        if path in self._content or path not in self._sizes:
            return self._content.get(path)
        raise StoreError(
            f"to read {path}", f"it has more than {MAX_FILE >> 20} MiB", "A manifest store holds small files only"
        )

    def exists(self, path: str) -> bool:
        """Whether there is a file of that name."""
        return path in self._sizes

    def claim(self, directory: str) -> bool:
        """A snapshot is not written to."""
        raise StoreError(f"to write {directory}", "this is a snapshot of the store", "Write to the store itself")

    def create(self, path: str, data: bytes) -> bool:
        """A snapshot is not written to."""
        del data
        return self.claim(path)


# What S3 and its look-alikes say, as botocore hands it on: what that means, and what to do. None of it passes.
_REFUSALS = {
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidToken": "the session token is not valid there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "AccessDenied": "access is denied",
    "AllAccessDisabled": "access is denied",
    "403": "access is denied",
    "NoCredentialsError": "there are no credentials",
    "PartialCredentialsError": "the credentials are incomplete",
}
_RENEW = "Give this process credentials that may read and write there (AWS_PROFILE, AWS_ACCESS_KEY_ID, …)"


def _codes(e: BaseException | None) -> list[str]:
    """What a driver's exception says of itself, innermost last: codes of the server, and names of classes."""
    found: list[str] = []
    while e is not None and len(found) < 20:
        response = getattr(e, "response", None)
        if isinstance(response, dict):
            found.append(str((response.get("Error") or {}).get("Code")))
        found.append(type(e).__name__)
        e = e.__cause__ or e.__context__
    return found


def _is_empty(e: Exception) -> bool:
    """Whether a server has refused a range since the object has no bytes."""
    return any(code in ("InvalidRange", "416", "RequestedRangeNotSatisfiable") for code in _codes(e))


def _raise_for_bucket(wanted: str, e: Exception) -> None:
    """Raise where not the file is missing, but the bucket."""
    if "NoSuchBucket" in _codes(e):
        raise StoreError(wanted, "there is no such bucket", "Check the store's URI, or make the bucket") from e


def _failed(wanted: str, e: Exception) -> StoreError:
    kind = type(e).__name__
    codes = _codes(e)
    _raise_for_bucket(wanted, e)
    for code in codes:
        if code in _REFUSALS:
            return StoreError(wanted, f"{_REFUSALS[code]} ({code})", _RENEW)
    if isinstance(e, PermissionError) or "Credential" in kind or "Auth" in kind:
        return StoreError(wanted, f"{kind}: {e}", "Check the credentials and what they may do there")
    # A missing bucket stays missing; anything else a remote server says may pass.
    lasting = isinstance(e, (FileNotFoundError, ValueError, TypeError, NotImplementedError))
    return StoreError(wanted, f"{kind}: {e}", "Check the store's URI and its server", temporary=not lasting)
