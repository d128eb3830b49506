"""Lists, chooses and fetches the files of a W&B artifact."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.wandb.buckets import check_driver, fetch
from nemotron_exec.stores.wandb.cache import ArtifactCache
from nemotron_exec.stores.wandb.download import Downloader, RemoteFile
from nemotron_exec.stores.wandb.faults import first_line, not_here
from nemotron_exec.stores.wandb.link import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nemotron_exec.stores.wandb.connection import Connection
    from nemotron_exec.stores.wandb.link import Link

__all__ = ["Fetcher", "read_json"]

_SMALL = 16 << 20  # bytes; a metadata.json has some hundred


def read_json(path: str) -> Any:
    """The content of a small JSON file; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(_SMALL))
    except (OSError, ValueError):
        return None


def _remote_file(name: str, entry: Any) -> RemoteFile:
    """An entry of the manifest in the form that the downloader takes."""
    # wandb/sdk/artifacts/artifact_manifest_entry.py, DIGEST_ALGORITHM_EXTRA_KEY. Older manifests have MD5 only.
    algorithm = str((getattr(entry, "extra", None) or {}).get("alg") or "md5").lower()
    return RemoteFile(name, entry.size, str(entry.digest), algorithm)


def _present(directory: str, files: Iterable[RemoteFile]) -> int:
    """Bytes of `files` that an earlier attempt has left on disk."""
    found = 0
    for file in files:
        with contextlib.suppress(OSError):
            found += os.stat(os.path.join(directory, file.name)).st_size
    return found


class Fetcher:
    """Brings files of artifacts into the cache.

    Args:
        connection: The connection, to list the files.
        link: Gets the progress, and translates a recorded path into the path here.
        cache_directory: The directory of the cache, opened for the first download.
        deadline: `time.monotonic()` at which all work must be done.
        stall: Seconds without a byte after which a connection is closed.
    """

    def __init__(
        self, connection: Connection, link: Link, cache_directory: str, *, deadline: float, stall: float
    ) -> None:
        self._connection = connection
        self._link = link
        self._cache_directory = cache_directory
        self._deadline = deadline
        self._stall = stall
        self._cache: ArtifactCache | None = None
        self._opened: Downloader | None = None
        self._lock = threading.Lock()

    def download(
        self, artifact: Any, entries: Mapping[str, Any], references: Mapping[str, str], wanted: str, what: str
    ) -> str:
        """The directory with all files of the artifact; they are downloaded if the cache lacks some."""
        with self._lock:
            if self._cache is None:
                self._cache = ArtifactCache(self._cache_directory)
            cache = self._cache
        digest = str(artifact.digest)
        remote = [n for n, e in entries.items() if e.ref is not None and n not in references]
        files = {n: _remote_file(n, e) for n, e in entries.items() if e.ref is None}
        sizes = {n: f.size for n, f in files.items() if f.size is not None}
        links = {n: self._link.localise(p) for n, p in references.items()}
        for name, path in links.items():
            if not os.path.exists(path):
                raise not_here(wanted, references[name])
        goal = cache.path(digest)
        unsized = [n for n in [*files, *remote, *links] if n not in sizes]

        def lacks() -> list[str]:
            return cache.missing(digest, sizes) + [n for n in unsized if not os.path.lexists(os.path.join(goal, n))]

        def wait() -> bool:
            if time.monotonic() > self._deadline:
                raise TemporaryError(wanted, "another launcher is still downloading it", "Start the job again")
            self._link.say("waiting", what=what)
            return bool(lacks())

        if not lacks():
            return goal
        for name in remote:
            check_driver(name, str(entries[name].ref), wanted)
        with cache.lease(digest, wait):
            missing = lacks()
            if not missing:
                return goal
            partial = cache.partial(digest)
            todo = [files[n] for n in missing if n in files]
            total = sum(f.size or 0 for f in todo) + sum(entries[n].size or 0 for n in missing if n in remote)
            cache.forget_abandoned(digest)
            with cache.room(max(0, total - _present(partial, todo)), wanted):
                progress = Progress(self._link, what, 0, total)
                progress(0)
                self._downloader().fetch(
                    todo,
                    partial,
                    wanted=wanted,
                    url=self._urls(artifact, wanted),
                    progress=progress,
                    tell=lambda fault: self._link.say("retry", what=what, found=f"{what}, {fault}"),
                )
                for name in (n for n in missing if n in links):
                    target = os.path.join(partial, name)
                    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        os.symlink(links[name], target)
                fetch(
                    {n: artifact.get_entry(n) for n in missing if n in remote},
                    partial,
                    wanted=wanted,
                    deadline=self._deadline,
                    alive=lambda uri: self._link.say("busy", what=f"{what}: {uri}"),
                    progress=progress,
                )
            return cache.publish(digest)

    def small_file(self, artifact: Any, entry: Any, wanted: str) -> Any:
        """The content of the artifact's own metadata.json; None where it is no JSON."""
        data = self._downloader().get(
            _remote_file("metadata.json", entry),
            wanted=wanted,
            url=self._urls(artifact, wanted, ["metadata.json"]),
            limit=_SMALL,
        )
        with contextlib.suppress(ValueError):
            return json.loads(data)
        return None

    def _downloader(self) -> Downloader:
        with self._lock:
            if self._opened is None:
                self._opened = Downloader(
                    self._deadline, stall=self._stall, transport=self._connection.server.transport
                )
            return self._opened

    def _urls(self, artifact: Any, wanted: str, names: list[str] | None = None) -> Callable[[str, bool], str]:
        """A function for the URL of each file. It lists the files once, and asks again for an expired URL."""
        known: dict[str, str] = {}
        lock = threading.Lock()

        def url(name: str, fresh: bool) -> str:
            with lock:
                if not known:
                    known.update(self._list(artifact, wanted, names))
                elif fresh or name not in known:
                    known.update(self._list(artifact, wanted, [name]))
                if name not in known:
                    found = f"W&B's manifest names {name}, and its list of files does not"
                    raise LaunchError(wanted, found, "Log the artifact anew")
                return known[name]

        return url

    def _list(self, artifact: Any, wanted: str, names: list[str] | None) -> dict[str, str]:
        try:
            return {str(f.name): str(f.direct_url) for f in artifact.files(names=names, per_page=1000)}
        except Exception as error:  # noqa: BLE001
            self._connection.raise_for(error, wanted)
            found = f"its files cannot be listed ({first_line(error)})"
            raise TemporaryError(wanted, found, "Start the job again") from None
