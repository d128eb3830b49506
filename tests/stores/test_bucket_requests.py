"""The requests of a manifest store in a bucket, and the messages for refused requests, on real HTTP servers."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from buckets import Requests, s3, slow
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.manifest import register
from nemotron_exec.stores.fsspec_files import FsspecFiles
from nemotron_exec.stores.manifest import ManifestStore

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [f"n{i}" for i in range(8)]


# All moto servers of a process share their buckets, so this file has a store of its own.
STORE = f"s3://artifacts/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Requests]:
    """A bucket with eight artifacts, whose every answer takes 20 ms."""
    import s3fs

    with s3() as environ, pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        files = FsspecFiles(STORE)
        for name in NAMES:
            register.register(files, name, type="model", path="/", metadata={"a": 1})
        with slow(0.02) as requests:
            yield requests
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def requests(bucket: Requests) -> Requests:
    """The requests of one test."""
    bucket.clear()
    return bucket


def resolve(store: str, *references: str) -> list[str]:
    wanted = [parse_reference("key", reference, Origin("the test")) for reference in references]
    found = ManifestStore(store).resolve(wanted, progress=lambda *_: None, timeout=60)
    return [f"{artifact.name}:{artifact.version}" for artifact in found]


def test_a_reference_costs_four_requests_and_all_are_asked_for_at_once(requests: Requests) -> None:
    assert resolve(STORE, *(f"{name}:latest" for name in NAMES)) == [f"{name}:v1" for name in NAMES]
    assert len(requests.seen) <= 4 * len(NAMES), requests.seen
    assert requests.most >= 4


def test_a_version_by_its_number_costs_one_less(requests: Requests) -> None:
    assert resolve(STORE, "n1:v1") == ["n1:v1"]
    # The requests are for the directory, the manifest, the fields and the name in W&B.
    assert len(requests.seen) <= 3, requests.seen


def test_a_further_version_costs_twelve_requests_and_one_more_in_a_new_process(requests: Requests) -> None:
    files = FsspecFiles(STORE)
    register.register(files, "n1", type="model", path="/", metadata={})
    first = len(requests.seen)
    requests.clear()
    register.register(files, "n1", type="model", path="/", metadata={})
    assert len(requests.seen) <= 12, requests.seen
    assert first <= 13
    assert resolve(STORE, "n1:latest") == ["n1:v3"]


@pytest.mark.parametrize(
    "words",
    [["ls"], pytest.param(["graph"], marks=pytest.mark.ci), ["verify"], pytest.param(["gc"], marks=pytest.mark.ci)],
)
def test_a_command_reads_the_store_once_and_side_by_side(requests: Requests, words: list[str]) -> None:
    command = [sys.executable, "-m", "nemotron_exec.artifact_cli", *words, "--store", STORE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    paths = [seen.partition("?")[0] for seen in requests.seen if "list-type" not in seen]
    assert len(paths) == len(set(paths)), sorted(paths)
    assert sum("list-type" in seen for seen in requests.seen) == 1, requests.seen
    assert requests.most >= 4


def test_one_artifact_is_shown_without_reading_the_others(requests: Requests) -> None:
    command = [sys.executable, "-m", "nemotron_exec.artifact_cli", "show", "n3", "--store", STORE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not [seen for seen in requests.seen if "n3" not in seen], requests.seen


# ---------------------------------------------------------------------- what is refused


class Refusing(http.server.BaseHTTPRequestHandler):
    """An S3 server that refuses every request with S3's own error."""

    code, status = "", 403

    def do_GET(self) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize(
    ("code", "status", "found"),
    [
        ("ExpiredToken", 400, "the credentials have expired"),
        ("InvalidAccessKeyId", 403, "the access key is not known there"),
        ("SignatureDoesNotMatch", 403, "the secret key does not belong to the access key"),
        ("AccessDenied", 403, "access is denied"),
        ("NoSuchBucket", 404, "there is no such bucket"),
    ],
)
def test_what_a_bucket_refuses_has_its_own_words_and_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, code: str, status: int, found: str
) -> None:
    import s3fs

    handler = type("Handler", (Refusing,), {"code": code, "status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            with pytest.raises(LaunchError, match=found) as caught:
                resolve("s3://artifacts/store", "data:latest")
        finally:
            server.shutdown()
            s3fs.S3FileSystem.clear_instance_cache()
    assert not isinstance(caught.value, TemporaryError)
    assert caught.value.exit_code == 125


def test_missing_credentials_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(LaunchError, match="there are no credentials"):
        resolve("s3://artifacts/store", "data:latest")
    s3fs.S3FileSystem.clear_instance_cache()
