"""Finds the commit of one reference, and has huggingface_hub fetch its files into the cache, complete and checked."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import functools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.huggingface.cache import Entry, HubCache, Record, is_inside, selected
from nemotron_exec.stores.huggingface.faults import (
    FullError,
    Subject,
    classify,
    first_line,
    is_full,
    no_room,
    went_through,
)
from nemotron_exec.stores.huggingface.nearest import unknown
from nemotron_exec.stores.huggingface.one_at_a_time import turn
from nemotron_exec.stores.huggingface.patience import Patience, UnknownError, XetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nemotron_exec.stores.room import Room

__all__ = ["Fetch", "Wanted"]

_WORKERS = 8  # files at the same time, like huggingface_hub
_ASKED = 4  # tries to reach the hub before the cache is used; half as many where the cache may have the answer
_TRIED = 6  # tries of a download that brought no bytes
_REQUEST = 10.0  # seconds for one request to the API


@dataclass(frozen=True)
class Wanted:
    """One reference of the request."""

    index: int
    key: str
    text: str
    origin: str
    type: str
    name: str
    revision: str
    include: Sequence[str]
    exclude: Sequence[str]

    @property
    def wanted(self) -> str:
        """First part of the error messages."""
        return f"run.{self.key} ({self.origin}): to get {self.text} from the Hugging Face hub"


class Fetch:
    """Fetches one reference.

    Args:
        item: The reference.
        hub: The module huggingface_hub.
        api: The HfApi of the module.
        cache: The cache for the files.
        patience: Bounds the repeats of requests.
        room: The free space of the cache.
        token: Whether the client has a token.
        tell: Called with lines for the user.

    Attributes:
        busy: The current work, for messages, while no bytes arrive; None while they arrive.
    """

    def __init__(
        self,
        item: Wanted,
        *,
        hub: Any,
        api: Any,
        cache: HubCache,
        patience: Patience,
        room: Room,
        token: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.item = item
        self.busy: str | None = f"{item.text}: asking the hub"
        self._hub = hub
        self._api = api
        self._cache = cache
        self._patience = patience
        self._room = room
        self._tell = tell
        address = str(api.endpoint).rstrip("/")
        self._subject = Subject(item.wanted, item.type, item.name, item.revision, address, cache.root, token)
        self._blobs: set[str] = set()
        self._odd: list[str] = []
        self._had = 0
        self._total = 0

    def run(self) -> tuple[str, Record]:
        """Fetch the files into the cache. Return the commit and its record.

        Raises:
            LaunchError: The request can never succeed.
            TemporaryError: The request may succeed later.
            UnreachableError: The hub did not answer; the cache may have the answer.
            XetError: Xet storage has failed.
        """
        item = self.item
        known = self._cache.commit_of(item.type, item.name, item.revision) is not None
        try:
            commit, record = self._patience.call(self._ask, self._subject, _ASKED // 2 if known else _ASKED)
        except UnknownError:
            raise unknown(self._api, self._subject) from None
        paths = selected(record.files, item.include, item.exclude)
        if odd := selected(self._odd, item.include, item.exclude):
            found = f"its file {odd[0]!r} has a name that leads out of the repository"
            raise LaunchError(item.wanted, found, "Leave it out with `{hf: …, exclude: [PATTERN]}`, and tell its owner")
        if not paths:
            self._refuse_nothing(record)
        lacking = functools.partial(self._cache.lacking, item.type, item.name, commit, record, paths)
        while lacking():
            try:
                with turn(self._cache, item.type, item.name, self._subject, lacking, self._say_busy) as held:
                    if held:
                        self._download(commit, record, paths)
            except NotADirectoryError as error:
                answer = classify(error, self._subject)
                assert isinstance(answer, LaunchError)
                raise answer from None
            except FullError:
                needed = sum(record.files[path].size for path in lacking())
                raise no_room(self._subject, needed, self._room.free(), refused=True) from None
        self._cache.keep(item.type, item.name, commit, record)
        self._cache.point(item.type, item.name, item.revision, commit)
        return commit, record

    def progress(self) -> tuple[int, int] | None:
        """Bytes that have arrived, and bytes that are needed; None before and after the download."""
        return (min(self._had + self._arrived(), self._total), self._total) if self._blobs else None

    def _say_busy(self) -> None:
        self.busy = f"{self.item.text}, which another launcher downloads"

    # ------------------------------------------------------------------ which commit

    def _ask(self) -> tuple[str, Record]:
        item = self.item
        info = self._api.repo_info(item.name, repo_type=item.type, revision=item.revision, timeout=_REQUEST)
        commit = str(info.sha)
        known = self._cache.record(item.type, item.name, commit)
        if known is not None:
            paths = selected(known.files, item.include, item.exclude)
            if not paths or self._cache.lacking(item.type, item.name, commit, known, paths):
                known = None  # another program wrote this list, which may be incomplete: ask the hub
        files = known.files if known is not None else _list(self._api, item, commit, self._odd)
        card = info.card_data.to_dict() if info.card_data is not None else {}
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        # Convert to JSON and back: a card may hold dates, and `from_json` checks paths and digests.
        record = Record.from_json(json.loads(json.dumps(Record(files, card, now).to_json(), default=str)))
        assert record is not None
        return commit, record

    def _refuse_nothing(self, record: Record) -> NoReturn:
        some = ", ".join(sorted(record.files)[:8]) or "none"
        patterns = ", ".join([*self.item.include, *(f"not {pattern}" for pattern in self.item.exclude)]) or "all"
        found = f"none of its {len(record.files)} files is wanted ({patterns})"
        raise LaunchError(self.item.wanted, found, f"Its files: {some}")

    # ------------------------------------------------------------------ its files

    def _download(self, commit: str, record: Record, paths: list[str]) -> None:
        item = self.item
        lacking = self._cache.lacking(item.type, item.name, commit, record, paths)
        for path in lacking:  # a file of another size would keep the new one out
            self._cache.forget(item.type, item.name, commit, record, path)
        sizes = {record.files[path].blob: record.files[path].size for path in lacking}
        with self._room.reserve(sum(sizes.values()), lambda asked, free: no_room(self._subject, asked, free)):
            self._total = sum(record.files[path].size for path in paths)
            self._had = self._total - sum(sizes.values())
            self._blobs = set(sizes)
            try:
                self._download_checked(commit, record, lacking)
            finally:
                self._blobs = set()

    def _download_checked(self, commit: str, record: Record, paths: list[str]) -> None:
        item = self.item
        for last in (False, True):
            self.busy = None
            try:
                self._patience.call(lambda: self._snapshot(commit), self._subject, _TRIED, self._arrived)
            except UnknownError:
                raise unknown(self._api, self._subject) from None
            wrong = self._wrong(commit, record, paths)
            if not wrong:
                return
            for path in wrong:
                self._cache.forget(item.type, item.name, commit, record, path)
            if last:
                found = f"{', '.join(wrong[:3])} came twice with other bytes than the hub's digest says"
                raise TemporaryError(item.wanted, found, "Start the job again, and check the proxies to the hub")
            self._tell(f"{item.text}: {wrong[0]} arrived damaged: fetching it again")

    def _snapshot(self, commit: str) -> None:
        try:
            self._hub.snapshot_download(
                self.item.name,
                repo_type=self.item.type,
                revision=commit,
                cache_dir=self._cache.root,
                allow_patterns=list(self.item.include) or None,
                ignore_patterns=list(self.item.exclude) or None,
                max_workers=_WORKERS,
                library_name="nemotron-exec",
            )
        except Exception as error:
            # hf_xet raises exceptions with texts of its Rust library, which change with every version.
            if went_through("xet_get", error) and not is_full(error):
                raise XetError(first_line(error)) from None
            raise

    def _wrong(self, commit: str, record: Record, paths: list[str]) -> list[str]:
        """The fetched files that differ from the hub's, by size, or if no size differs by digest."""
        item = self.item
        short = self._cache.lacking(item.type, item.name, commit, record, paths)
        if short:
            return short
        wrong: list[str] = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            damaged = pool.map(lambda path: self._cache.damaged(item.type, item.name, commit, record, [path]), paths)
            for done, found in enumerate(damaged):
                self.busy = f"{item.text}: checking the digests, {done + 1} of {len(paths)} files"
                wrong += found
        return wrong

    def _arrived(self) -> int:
        return _bytes_of(self._cache.repository(self.item.type, self.item.name), self._blobs)


def _list(api: Any, item: Wanted, commit: str, odd: list[str]) -> dict[str, Entry]:
    """The files of a commit. Names that lead out of the repository are added to `odd`."""
    files: dict[str, Entry] = {}
    for one in api.list_repo_tree(item.name, repo_type=item.type, revision=commit, recursive=True):
        if getattr(one, "blob_id", None) is None:
            continue  # the entry is a directory
        if not is_inside(one.path):
            odd.append(str(one.path))
            continue
        lfs = getattr(one, "lfs", None)
        sha256 = lfs["sha256"] if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
        files[one.path] = Entry(int(one.size), sha256, None if sha256 else one.blob_id)
    return files


def _bytes_of(repository: str, blobs: set[str]) -> int:
    """Bytes of the blobs that have arrived, complete or as `.incomplete` files of any name."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(os.path.join(repository, "blobs")) as entries:
        for entry in entries:
            blob = entry.name.partition(".")[0]
            if blob in blobs:
                with contextlib.suppress(OSError):
                    found[blob] = max(found.get(blob, 0), entry.stat().st_size)
    return sum(found.values())
