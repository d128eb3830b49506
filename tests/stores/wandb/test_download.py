"""Downloads over HTTP into the shared cache: atomic, checked and resumed. wandb is not used here."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.wandb import download, part, ranges
from nemotron_exec.stores.wandb.cache import ArtifactCache, format_bytes
from nemotron_exec.stores.wandb.download import Downloader, RemoteFile
from wandb_backend.model import Blob

if TYPE_CHECKING:
    from collections.abc import Callable

    from wandb_backend import Backend, Version

DATA = bytes(range(256)) * 20_000  # 5 MB


class Fetching:
    """One artifact on the server, and a directory to fetch it into."""

    def __init__(self, backend: Backend, directory: Path) -> None:
        self.backend = backend
        self.directory = directory
        self.version: Version | None = None
        self.told: list[int] = []
        self.faults: list[str] = []
        self.fresh: list[str] = []
        directory.mkdir()

    def seed(self, **files: bytes | Blob) -> None:
        self.version = self.backend.seed("team/p/data", files=files)

    def run(self, *names: str, timeout: float = 30.0, stall: float = 10.0) -> None:
        assert self.version is not None
        contents = self.version.manifest["contents"]
        files = [RemoteFile(n, contents[n]["size"], contents[n]["digest"]) for n in names or contents]
        downloader = Downloader(time.monotonic() + timeout, stall=stall)
        where = str(self.directory)
        downloader.fetch(
            files, where, wanted="to fetch it", url=self.url, progress=self.told.append, tell=self.faults.append
        )

    def url(self, name: str, fresh: bool) -> str:
        assert self.version is not None
        if fresh:
            self.fresh.append(name)
        return f"{self.backend.url}/storage/{self.version.id}/{name}"

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def requests(self, name: str) -> list[str | None]:
        """The `Range` of each request."""
        return [operation.variables.get("range") for operation in self.backend.find(f"GET data/{name}")]


@pytest.fixture
def fetching(wandb_backend: Backend, tmp_path: Path) -> Fetching:
    return Fetching(wandb_backend, tmp_path / "into")


def test_files_arrive_whole_and_progress_adds_up(fetching: Fetching) -> None:
    fetching.seed(a=DATA, b=b"", c=b"x")
    fetching.run()
    assert (fetching.read("a"), fetching.read("b"), fetching.read("c")) == (DATA, b"", b"x")
    assert sum(fetching.told) == len(DATA) + 1
    assert fetching.requests("b") == []  # the file is empty


def test_files_are_fetched_at_the_same_time(fetching: Fetching) -> None:
    fetching.seed(**{f"f{i}": b"x" for i in range(6)})
    fetching.backend.fail("GET data/f0", delay=3)
    fetching.run()
    assert [operation.name for operation in fetching.backend.log][-1] == "GET data/f0"


def test_a_cut_download_goes_on_where_it_stopped(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", cut=2_000_000, times=1)
    fetching.run()
    assert fetching.read("a") == DATA
    assert fetching.requests("a")[0] is None
    assert fetching.requests("a")[1] is not None
    assert sum(fetching.told) == len(DATA)


def test_a_stalled_download_is_given_up_and_resumed(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", stall=2_000_000, times=1)
    fetching.run(stall=1.0)
    assert fetching.faults == ["a: the download stalled for 1 s"]
    assert fetching.read("a") == DATA


def test_what_an_earlier_process_left_is_used(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    (fetching.directory / "a").write_bytes(DATA[:3_000_000])
    fetching.run()
    assert fetching.read("a") == DATA
    assert fetching.requests("a") == ["bytes=3000000-"]
    assert sum(fetching.told) == len(DATA)


def test_corrupt_bytes_are_fetched_afresh(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", corrupt=True, times=1)
    fetching.run()
    assert fetching.read("a") == DATA
    assert fetching.requests("a") == [None, None]
    assert sum(fetching.told) == len(DATA)


def test_a_corrupt_beginning_left_by_an_earlier_process_is_fetched_afresh(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    (fetching.directory / "a").write_bytes(b"\0" * 1000)
    fetching.run()
    assert fetching.read("a") == DATA


def test_bytes_that_stay_wrong_are_an_error_that_may_pass_and_are_not_kept(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", corrupt=True, times=None)
    with pytest.raises(TemporaryError, match="does not match its checksum, fetched twice"):
        fetching.run()
    assert not (fetching.directory / "a").exists()
    assert len(fetching.requests("a")) == 2


def test_a_body_shorter_than_the_manifest_says_is_not_taken(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", short=True, times=1)
    fetching.run()
    assert fetching.read("a") == DATA


@pytest.mark.parametrize(
    "how", [{"status": 503}, {"status": 500}, {"status": 429, "retry_after": 0}, {"hang_up": True}]
)
def test_a_burst_of_server_errors_passes(fetching: Fetching, how: dict[str, float]) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", times=2, **how)
    fetching.run()
    assert fetching.read("a") == DATA


def test_an_expired_url_is_asked_for_again(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", status=403, times=1)
    fetching.run()
    assert fetching.fresh == ["a"]
    assert fetching.read("a") == DATA


def test_a_refused_file_is_an_error_without_retries(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", status=404, times=None)
    with pytest.raises(LaunchError, match=r"refused a \(HTTP 404\)") as caught:
        fetching.run()
    assert caught.value.exit_code == 125
    assert len(fetching.requests("a")) == 2


def test_a_server_that_stays_down_is_an_error_within_the_time(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", status=503, times=None)
    began = time.monotonic()
    with pytest.raises(TemporaryError, match=r"a: HTTP 503.*what has been downloaded is kept"):
        fetching.run(timeout=3)
    assert time.monotonic() - began < 60


def test_a_disk_that_fills_up_is_an_error_that_says_what_is_needed(fetching: Fetching, tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk: the write fails in the same place."""
    fetching.seed(a=DATA)
    assert fetching.version is not None
    code = """
import json, resource, sys, time
from nemotron_exec.errors import TemporaryError
from nemotron_exec.stores.wandb.download import Downloader, RemoteFile
url, size, digest, directory = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    Downloader(time.monotonic() + 30).fetch(
        [RemoteFile("a", size, digest)], directory, wanted="to fetch it", url=lambda *_: url, progress=lambda _: None)
except TemporaryError as error:
    print(error)
"""
    entry = fetching.version.manifest["contents"]["a"]
    given = json.dumps([fetching.url("a", False), entry["size"], entry["digest"], str(fetching.directory)])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, timeout=60, check=True)
    assert "are needed in" in done.stdout
    assert "available there" in done.stdout
    assert "--cache-dir" in done.stdout


def test_the_digests_of_newer_artifacts_are_checked_too(fetching: Fetching) -> None:
    import xxhash

    fetching.seed(a=DATA)
    digest = base64.b64encode(xxhash.xxh3_128(DATA).digest()).decode()
    downloader = Downloader(time.monotonic() + 30)

    def fetch(name: str, digest: str, algorithm: str) -> None:
        downloader.fetch(
            [RemoteFile(name, len(DATA), digest, algorithm)],
            str(fetching.directory),
            wanted="to fetch it",
            url=fetching.url,
            progress=lambda _: None,
        )

    fetch("a", digest, "xxh128")
    assert fetching.read("a") == DATA
    with pytest.raises(TemporaryError, match="does not match its checksum"):
        fetch("a", base64.b64encode(b"0" * 16).decode(), "xxh128")
    with pytest.raises(LaunchError, match=r"sha3, which is not known here.*Update"):
        fetch("a", digest, "sha3")


# ---------------------------------------------------------------------- a large file, by several connections


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ranges of 256 KiB, so that 5 MB are a large file."""
    monkeypatch.setattr(ranges, "_RANGE", 1 << 18)
    monkeypatch.setattr(part, "_LARGE", 1 << 20)
    monkeypatch.setattr(download, "FAST", float("inf"))
    return 1 << 18


def starts(fetching: Fetching) -> list[int]:
    return [int((asked or "bytes=0-")[6:].partition("-")[0]) for asked in fetching.requests("a")]


def test_a_large_file_comes_by_several_connections_and_is_checked_as_a_whole(
    fetching: Fetching, small_ranges: int
) -> None:
    fetching.seed(a=DATA)
    fetching.backend.bandwidth = 2e6
    began = time.monotonic()
    fetching.run()
    seconds = time.monotonic() - began
    assert fetching.read("a") == DATA
    assert sorted(starts(fetching)) == list(range(0, len(DATA), small_ranges))
    assert sum(fetching.told) == len(DATA)
    # At the server's bandwidth, one connection would have needed all of this time.
    assert seconds < len(DATA) / 2e6, "the connections came one after another"


def test_a_server_that_knows_no_ranges_sends_a_large_file_at_once(fetching: Fetching, small_ranges: int) -> None:
    fetching.seed(a=DATA)
    fetching.backend.ranges = False
    fetching.run()
    assert fetching.read("a") == DATA
    assert fetching.requests("a") == [f"bytes=0-{small_ranges - 1}"]


def test_where_one_connection_is_fast_there_is_no_second(
    fetching: Fetching, small_ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FAST", 0.0)
    fetching.seed(a=DATA)
    fetching.run()
    assert fetching.read("a") == DATA
    assert fetching.requests("a") == [f"bytes=0-{small_ranges - 1}", f"bytes={small_ranges}-"]


@pytest.mark.parametrize("how", [{"cut": 100_000}, {"status": 503}, {"hang_up": True}, {"short": True}])
def test_a_range_that_fails_is_asked_for_again_and_what_came_before_it_is_kept(
    fetching: Fetching, small_ranges: int, how: dict[str, float]
) -> None:
    fetching.seed(a=DATA)
    (fetching.directory / "a").write_bytes(DATA[:small_ranges])
    fetching.backend.fail("GET data/a", times=2, **how)
    fetching.run()
    assert fetching.read("a") == DATA
    assert sum(fetching.told) == len(DATA)
    asked = [one for one in fetching.requests("a") if one]  # the backend notes no range for a refused request
    assert min(int(one[6:].partition("-")[0]) for one in asked) == small_ranges


def test_a_corrupt_range_is_seen(fetching: Fetching, small_ranges: int) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", corrupt=True, times=1)
    fetching.run()
    assert fetching.read("a") == DATA
    assert starts(fetching).count(0) == 2
    assert sum(fetching.told) == len(DATA)


def test_the_way_to_the_disk_begins_while_bytes_still_arrive(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a file of some gigabytes is written to disk by the last sync alone, after the last byte."""
    steps: list[tuple[int, int] | str] = []
    begin, sync = part._begin_to_sync, os.fsync

    def beginning(descriptor: int, start: int, length: int) -> None:
        assert os.fstat(descriptor).st_size >= start + length
        steps.append((start, length))
        begin(descriptor, start, length)

    def syncing(descriptor: int) -> None:
        steps.append("sync")
        sync(descriptor)

    monkeypatch.setattr(part, "_FLUSH", 1 << 20)
    monkeypatch.setattr(part, "_begin_to_sync", beginning)
    monkeypatch.setattr(part.os, "fsync", syncing)
    fetching.seed(a=DATA)
    fetching.run()
    *ranges_begun, last = steps
    assert last == "sync"
    covered = 0
    for start, length in ranges_begun:
        assert start == covered
        covered += length
    assert len(DATA) - covered < 1 << 20
    assert fetching.read("a") == DATA


def test_the_kernel_takes_the_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    answers: list[int] = []
    library = ctypes.CDLL(None, use_errno=True)

    class Library:
        def __init__(self, _name: None) -> None:
            def call(*given: int) -> None:
                library.sync_file_range.argtypes = call.argtypes  # type: ignore[attr-defined]
                answers.append(library.sync_file_range(*given))

            self.sync_file_range = call

    monkeypatch.setattr(ctypes, "CDLL", Library)
    with (tmp_path / "file").open("wb") as file:
        file.write(DATA)
        file.flush()
        part._begin_to_sync(file.fileno(), 1 << 20, 1 << 20)
    assert answers == [0]


def test_a_busy_server_gets_fewer_connections(
    fetching: Fetching, small_ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    receive = ranges.Ranges.receive

    def count(self: ranges.Ranges, part: object, url: str, lanes: int, take: object) -> None:
        asked.append(lanes)
        receive(self, part, url, lanes, take)  # type: ignore[arg-type]

    monkeypatch.setattr(ranges.Ranges, "receive", count)
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", status=429, retry_after=0, times=1)
    fetching.run()
    assert asked == [4]
    assert fetching.read("a") == DATA


def test_a_disk_that_refuses_a_range_ends_all_of_them(
    fetching: Fetching, small_ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetching.seed(a=DATA)
    write = part.Part.write

    def refuse(self: part.Part, chunk: bytes) -> None:
        if self.done > 4 * small_ranges:
            raise OSError(errno.EIO, "Input/output error")
        write(self, chunk)

    monkeypatch.setattr(part.Part, "write", refuse)
    with pytest.raises(TemporaryError, match="Input/output error"):
        fetching.run()
    assert not [thread for thread in threading.enumerate() if thread.name == "digest"]


# ---------------------------------------------------------------------- the cache


def test_free_space_is_looked_at_first(tmp_path: Path) -> None:
    cache = ArtifactCache(str(tmp_path / "cache"))
    with (
        pytest.raises(
            TemporaryError, match=r"1000\.0 PB are needed in .*cache.*, and .* are available there"
        ) as caught,
        cache.room(10**18, "to fetch it"),
    ):
        pass
    assert caught.value.exit_code == 75
    with cache.room(1000, "to fetch it"):
        pass


def test_room_is_reserved_for_all_downloads_together(tmp_path: Path) -> None:
    import psutil

    cache = ArtifactCache(str(tmp_path))
    free = psutil.disk_usage(str(tmp_path)).free
    with cache.room(free * 6 // 10, "first"), pytest.raises(TemporaryError), cache.room(free * 6 // 10, "second"):
        pass


def test_a_download_is_there_complete_or_not_at_all(tmp_path: Path) -> None:
    cache = ArtifactCache(str(tmp_path / "cache"))
    digest = hashlib.md5(b"x").hexdigest()
    (tmp_path / "cache" / "wandb" / ".partial" / digest).mkdir()
    assert cache.missing(digest, {"a": 1}) == ["a"]
    with open(os.path.join(cache.partial(digest), "a"), "wb") as file:
        file.write(b"1")
    assert cache.missing(digest, {"a": 1}) == ["a"]
    assert cache.publish(digest) == cache.path(digest)
    assert cache.missing(digest, {"a": 1}) == []


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        (lambda path: path.symlink_to(path.parent), "a symbolic link"),
        (lambda path: path.write_bytes(b""), "not a directory"),
        (lambda path: (path.mkdir(), path.chmod(0o777)), "others may write to"),
    ],
    ids=["link", "file", "open to all"],
)
def test_a_cache_that_is_not_ours_is_refused(tmp_path: Path, prepare: Callable[[Path], object], found: str) -> None:
    prepare(tmp_path / "wandb")
    with pytest.raises(LaunchError, match=f"{found}.*--cache-dir"):
        ArtifactCache(str(tmp_path))


def test_a_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path
    if os.geteuid() == 0:
        (tmp_path / "wandb").mkdir(mode=0o700)
        os.chown(tmp_path / "wandb", 12345, -1)
    else:
        directory = Path("/usr")  # root's
    with pytest.raises(LaunchError, match=r"(belongs to user 12345|cannot be made).*--cache-dir"):
        ArtifactCache(str(directory))


def test_an_abandoned_download_goes_after_a_week_and_one_that_is_made_never(tmp_path: Path) -> None:
    cache = ArtifactCache(str(tmp_path))
    old = time.time() - 8 * 86_400
    for digest in ("abandoned", "continued", "held-by-another", "with-a-new-file", "of-yesterday"):
        directory = Path(cache.partial(digest))
        (directory / "part").write_bytes(b"x")
        for path in (directory / "part", directory):
            os.utime(path, (old, old) if digest != "of-yesterday" else (old + 7 * 86_400,) * 2)
    (Path(cache.partial("with-a-new-file")) / "part").touch()
    os.utime(cache.partial("with-a-new-file"), (old, old))
    with ArtifactCache(str(tmp_path)).lease("held-by-another", lambda: False):
        cache.forget_abandoned("continued")
    left = set(os.listdir(tmp_path / "wandb" / ".partial"))
    assert left == {"continued", "held-by-another", "with-a-new-file", "of-yesterday"}
    assert not os.listdir(tmp_path / "wandb" / ".lease")


def test_a_strange_digest_does_not_become_a_path(tmp_path: Path) -> None:
    cache = ArtifactCache(str(tmp_path))
    assert os.path.dirname(cache.path("../../etc")) == cache.root


def test_one_downloads_while_the_others_wait(tmp_path: Path) -> None:
    cache = ArtifactCache(str(tmp_path))
    order: list[str] = []
    inside = threading.Event()
    finish = threading.Event()

    def first() -> None:
        with cache.lease("0123456789abcdef", lambda: True):
            inside.set()
            finish.wait(30)
            order.append("first")

    def second() -> None:
        with cache.lease("0123456789abcdef", lambda: not order):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    finish.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (64 << 20, "67.1 MB"), (3.2e12, "3.2 TB")]
)
def test_bytes_are_written_for_people(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_a_part_that_is_longer_than_the_servers_file_is_fetched_from_its_beginning(fetching: Fetching) -> None:
    fetching.seed(a=DATA)
    (fetching.directory / "a").write_bytes(DATA[:3_000_000])
    fetching.backend.fail("GET data/a", status=416, times=1)
    fetching.run()
    assert fetching.requests("a")[1:] == [None]
    assert fetching.read("a") == DATA


class Clock:
    """Stands in for the downloader's module `time`: it records sleeps and does not wait."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(download, "time", one)
    return one


@pytest.mark.parametrize(("asked", "slept"), [(7, 7.0), (0, 0.0), (3600, 10.0)])
def test_the_server_says_how_long_to_wait_up_to_a_stall(
    fetching: Fetching, clock: Clock, asked: int, slept: float
) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", status=429, retry_after=asked, times=1)
    fetching.run(timeout=3600.0, stall=10.0)
    assert clock.slept == [slept]
    assert fetching.read("a") == DATA


def test_pauses_grow_and_the_file_is_given_up_after_six_failures(fetching: Fetching, clock: Clock) -> None:
    fetching.seed(a=DATA)
    fetching.backend.fail("GET data/a", status=503, times=None)
    with pytest.raises(TemporaryError, match="HTTP 503"):
        fetching.run(timeout=3600.0)
    assert len(fetching.requests("a")) == 6
    assert all(0.7 < slept / expected < 1.3 for slept, expected in zip(clock.slept, (0.5, 1, 2, 4, 8), strict=True))


def test_a_body_that_is_still_coming_when_the_time_is_over_is_left(fetching: Fetching, clock: Clock) -> None:
    fetching.seed(a=DATA)
    assert fetching.version is not None
    entry = fetching.version.manifest["contents"]["a"]

    def progress(_: int) -> None:
        clock.now += 3600

    with pytest.raises(TemporaryError, match=r"the time limit .*has passed.*what has been downloaded is kept"):
        Downloader(clock.now + 60).fetch(
            [RemoteFile("a", entry["size"], entry["digest"])],
            str(fetching.directory),
            wanted="to fetch it",
            url=fetching.url,
            progress=progress,
        )
    assert 0 < (fetching.directory / "a").stat().st_size < len(DATA)


def test_a_download_that_somebody_takes_up_while_it_is_looked_at_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemotron_exec.shared_directory.lease import Lease

    cache = ArtifactCache(str(tmp_path))
    directory = Path(cache.partial("abandoned"))
    old = time.time() - 8 * 86_400
    os.utime(directory, (old, old))
    acquire = Lease.acquire

    def taken_up(lease: Lease) -> bool:
        (directory / "part").write_bytes(b"x")
        return acquire(lease)

    monkeypatch.setattr(Lease, "acquire", taken_up)
    cache.forget_abandoned("another")
    assert (directory / "part").read_bytes() == b"x"
