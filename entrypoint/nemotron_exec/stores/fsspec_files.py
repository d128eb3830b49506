"""Any fsspec file system, as payload/manifest.py wants it: the manifest store in a bucket.

What holds there, as opposed to a directory:

* A write is one PUT, so a reader sees a file whole or not at all. File systems without that (SFTP, HDFS) get a
  temporary file and a rename.
* A number is claimed with an object `vN/.claim` that is created only if there is none (`If-None-Match: *` on S3,
  generation 0 on GCS, no overwrite on Azure). This is tried out once a process. Where the server ignores the condition
  (some S3 look-alikes) or the file system has none, the claim is written, left to settle for `SETTLE` seconds and read
  again: of writers that come close together the last one wins, one that stalls for longer in between its look and its
  write may share a number.
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

from nemotron_exec.sitecustomize.payload.manifest import MAX_FILE, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FsspecFiles", "FsspecSnapshot"]

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

    def __repr__(self) -> str:
        return f"FsspecFiles({self.uri!r})"

    def list(self, directory: str) -> list[tuple[str, bool]]:
        """Names in a directory, each with whether it is a directory."""
        with self._doing(f"to list {directory}"):
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(directory, detail=True)
            except (FileNotFoundError, NotADirectoryError):
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
                if (self._fs.info(path).get("size") or 0) > MAX_FILE:
                    raise StoreError(
                        wanted, f"it has more than {MAX_FILE >> 20} MiB", "A manifest store holds small files only"
                    )
                # One GET without a range: with the size of a moment ago, a `v10` that replaced `v9` would read as `v1`.
                return bytes(self._fs.cat_file(path))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except IsADirectoryError as e:
                raise StoreError(wanted, "it is not a regular file", "Put a regular file there") from e

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
        with self._doing(f"to look for {path}"):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(path))

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._doing(f"to remove {path}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def claim(self, directory: str) -> bool:
        """Be the only one to write below a directory: False where somebody else is, or has."""
        # Writers that are not ours claim nothing; what they have begun is seen all the same.
        return not self.list(directory) and self.create(f"{directory}/.claim", uuid.uuid4().hex.encode())

    def remove_tree(self, directory: str) -> None:
        """Remove a directory with all that is in it."""
        with self._doing(f"to remove {directory}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(directory, recursive=True)

    def break_lock(self, path: str, content: bytes) -> None:
        """Remove a dead writer's lock, if it still holds `content`."""
        if self.read(path) == content:
            self.remove(path)

    def snapshot(self) -> FsspecSnapshot:
        """All small files of the store as they are now, fetched together: for listings, not for writers."""
        with self._doing(f"to list {self.root}"):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self.root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                found = {}
            sizes = {path: int(info.get("size") or 0) for path, info in found.items()}
            small = [path for path, size in sizes.items() if size <= MAX_FILE and not path.endswith("/.claim")]
            content = self._fs.cat(small, on_error="omit") if small else {}
        return FsspecSnapshot(self.root, sizes, {path: bytes(data) for path, data in content.items()})

    def _try_out(self) -> bool:
        if not self._protocols & _CONDITIONAL:
            return False
        method = getattr(self._fs, "_pipe_file", None) or self._fs.pipe_file
        if "mode" not in inspect.signature(method).parameters:
            return False
        probe = f"{self.root}/.probe-{uuid.uuid4().hex}"
        try:
            return self._create_if_absent(probe, b"1") and not self._create_if_absent(probe, b"2")
        except StoreError as e:
            if e.temporary or isinstance(e.__cause__, PermissionError):
                raise
            return False
        finally:
            with contextlib.suppress(StoreError):
                self.remove(probe)

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


class FsspecSnapshot:
    """What `FsspecFiles.snapshot` saw; payload/manifest.py reads it like a file system."""

    def __init__(self, root: str, sizes: dict[str, int], content: dict[str, bytes]) -> None:
        self.root = root
        self._sizes = sizes
        self._content = content
        self._tree: dict[str, dict[str, bool]] = {}
        for path in sizes:
            child, is_directory = path, False
            while child != root and "/" in child:
                parent, name = child.rsplit("/", 1)
                self._tree.setdefault(parent, {})[name] = is_directory
                child, is_directory = parent, True

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


def _failed(wanted: str, e: Exception) -> StoreError:
    kind = type(e).__name__
    if isinstance(e, PermissionError) or "Credential" in kind or "Auth" in kind:
        return StoreError(wanted, f"{kind}: {e}", "Check the credentials and what they may do there")
    # A missing bucket stays missing; anything else a remote server says may pass.
    lasting = isinstance(e, (FileNotFoundError, ValueError, TypeError, NotImplementedError))
    return StoreError(wanted, f"{kind}: {e}", "Check the store's URI and its server", temporary=not lasting)
