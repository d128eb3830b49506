"""The manifest store on any fsspec file system, such as a bucket, with the methods that payload/manifest.py needs.

A bucket differs from a directory in three ways:

* A write is one PUT, so a reader sees a file whole or not at all. File systems without that (SFTP, HDFS) get a
  temporary file and a rename.
* A number is claimed by an object `vN/.claim`, created only if there is none (`If-None-Match: *` on S3, generation 0 on
  GCS, no overwrite on Azure). Each process tests once whether the server obeys. If it does not (some S3 look-alikes),
  or the file system has no such condition, the claim is written, and read again after `SETTLE` seconds. Of writers that
  come close together the last one wins. A writer that stalls longer between its look and its write may share a number.
* `latest` is moved under a claim of the same kind. A dead writer's claim is removed without an atomic rename, so two
  writers that break it within the same milliseconds may both go on. A last look at the lock before the write makes that
  rarer.
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

# On these object stores a PUT is atomic.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory", "hf"})
# The drivers of these pass the condition on to the server. The default of fsspec only checks first.
_CONDITIONAL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
# All files of memory:// are in one dictionary, and each has a single position.
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
        """Seconds for which this writer trusts its lock unread; 0 where two writers may both have made it."""
        return STALE_LOCK / 2 if self._conditional else 0.0

    def __repr__(self) -> str:
        return f"FsspecFiles({self.uri!r})"

    def list(self, directory: str) -> list[tuple[str, bool]]:
        """The names in a directory, each with whether it is a directory."""
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
        """The content of a file; None where there is none."""
        wanted = f"to read {path}"
        with self._doing(wanted):
            self._fs.invalidate_cache()
            try:
                # Use one GET with a range: it needs no size, which may be out of date. A plain read sends a HEAD more,
                # and errors of a HEAD have no text.
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
        """Replace a file as a whole."""
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
        """Create a file. Return False if it exists already."""
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
                # For a missing object drivers list its prefix after the HEAD, because it could be a directory. A GET
                # avoids that.
                self._fs.cat_file(path, start=0, end=1)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
                _raise_for_bucket(wanted, e)
                return False
            except Exception as e:
                if not _is_empty(e):
                    raise
            return True

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        with self._doing(f"to remove {path}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def claim(self, directory: str) -> bool:
        """Claim a directory for this writer alone. Return False where another writer has claimed it."""
        return self.create(f"{directory}/.claim", uuid.uuid4().hex.encode())

    def remove_tree(self, directory: str) -> None:
        """Remove a directory with all its content."""
        with self._doing(f"to remove {directory}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(directory, recursive=True)

    def break_lock(self, path: str, content: bytes) -> None:
        """Remove the lock of a dead writer, if it still holds `content`."""
        if self.read(path) == content:
            self.remove(path)

    def reader(self) -> FsspecReader:
        """The store for one look-up: each version's directory is listed once."""
        return FsspecReader(self)

    def snapshot(self, name: str | None = None) -> FsspecSnapshot:
        """All small files of the store, or of one artifact, fetched together. It serves listings, not writers."""
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
        # Keep the probe, so that the next process needs one request. A server that ignores the condition accepts both.
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
            # Each driver raises the exceptions of its client library.
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
    """The files that `FsspecFiles.snapshot` has fetched; payload/manifest.py reads it like a file system."""

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
        """The snapshot itself."""
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
        """Refuse: a snapshot cannot be written to."""
        raise StoreError(f"to write {directory}", "this is a snapshot of the store", "Write to the store itself")

    def create(self, path: str, data: bytes) -> bool:
        """Refuse: a snapshot cannot be written to."""
        del data
        return self.claim(path)


# Error codes of S3 and its look-alikes, from botocore, with their meanings. Waiting mends none of them.
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
    """The codes and class names in a driver's exception and its causes, the innermost last."""
    found: list[str] = []
    while e is not None and len(found) < 20:
        response = getattr(e, "response", None)
        if isinstance(response, dict):
            found.append(str((response.get("Error") or {}).get("Code")))
        found.append(type(e).__name__)
        e = e.__cause__ or e.__context__
    return found


def _is_empty(e: Exception) -> bool:
    """Whether a server has refused a range because the object is empty."""
    return any(code in ("InvalidRange", "416", "RequestedRangeNotSatisfiable") for code in _codes(e))


def _raise_for_bucket(wanted: str, e: Exception) -> None:
    """Raise an error if the bucket is missing, not only the file."""
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
    # A missing bucket stays missing. Any other answer of a remote server may change later.
    lasting = isinstance(e, (FileNotFoundError, ValueError, TypeError, NotImplementedError))
    return StoreError(wanted, f"{kind}: {e}", "Check the store's URI and its server", temporary=not lasting)
