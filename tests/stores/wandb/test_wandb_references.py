"""Artifacts in W&B that refer to data in buckets: the real client's drivers fetch it, or there is one clear error."""

from __future__ import annotations

import os
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from buckets import slow
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.origin import Origin
from nemotron_exec.stores.protocol import StoreContext
from nemotron_exec.stores.table import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nemotron_exec.artifacts.artifact import Artifact
    from wandb_backend import Backend

WEIGHTS = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """moto's server on loopback: a real HTTP server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(s3_server: str) -> dict[str, str]:
    return {
        "AWS_S3_ENDPOINT_URL": s3_server,  # wandb's name for the endpoint
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-shows",
        "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Bucket:
    """A bucket of this test's own."""

    def __init__(self, credentials: dict[str, str]) -> None:
        import boto3

        self.client = boto3.client(
            "s3",
            endpoint_url=credentials["AWS_S3_ENDPOINT_URL"],
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
            region_name=credentials["AWS_REGION"],
        )
        self.name = f"b{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=self.name)

    def put(self, key: str, data: bytes) -> dict[str, Any]:
        """Put an object; returns the manifest's entry for it, as `add_reference` makes it."""
        etag = self.client.put_object(Bucket=self.name, Key=key, Body=data)["ETag"].strip('"')
        return {"ref": f"s3://{self.name}/{key}", "digest": etag, "size": len(data), "extra": {"etag": etag}}


@pytest.fixture
def bucket(credentials: dict[str, str]) -> Bucket:
    return Bucket(credentials)


@pytest.fixture
def resolve(wandb_environ: dict[str, str], credentials: dict[str, str], tmp_path: Path) -> Callable[..., Artifact]:
    def run(text: str, told: Callable[..., None] = lambda *_: None, **environ: str) -> Artifact:
        everything = {**wandb_environ, **credentials, **environ}
        context = StoreContext(root="", environ=everything, project="nemotron", cache_dir=str(tmp_path / "cache"))
        store = open_store("wandb", context)
        (found,) = store.resolve([parse_reference("data", text, Origin("cfg.yaml", 3))], progress=told, timeout=60)
        return found

    return run


def test_references_to_a_bucket_are_fetched_once_beside_the_files(
    wandb_backend: Backend, bucket: Bucket, resolve: Callable[..., Artifact], tmp_path: Path
) -> None:
    references = {"iter_7/weights": bucket.put("run/weights", WEIGHTS), "vocab": bucket.put("run/vocab", b"v")}
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"}, references=references)
    told: list[tuple[Any, ...]] = []
    found = resolve("data", told=lambda *what: told.append(what))
    with open(os.path.join(found.path, "iter_7/weights"), "rb") as file:
        assert file.read() == WEIGHTS
    assert sorted(os.listdir(found.path)) == ["blend.json", "iter_7", "vocab"]
    assert told[-1][0] == found.qualified_name
    total = len(WEIGHTS) + len(b"v{}")
    assert ("data:v0", total, total) in told
    assert os.listdir(tmp_path / "cache" / "wandb" / ".partial") == []
    # The next job needs neither bucket nor key.
    bucket.client.delete_object(Bucket=bucket.name, Key="run/weights")
    assert resolve("data").path == found.path


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "an object that is gone": ({"ref": "s3://{bucket}/gone", "digest": "0" * 32, "size": 1}, "s3://{bucket}/gone"),
    "a bucket that is not there": ({"ref": "s3://no-such-bucket-here/x", "digest": "0" * 32}, "no-such-bucket-here/x"),
    "an object that was overwritten": (
        {"ref": "s3://{bucket}/new", "digest": "0" * 32, "size": 3},
        "s3://{bucket}/new",
    ),
}


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
def test_a_reference_that_cannot_be_fetched_is_one_error(
    wandb_backend: Backend, bucket: Bucket, resolve: Callable[..., Artifact], tmp_path: Path, row: Any
) -> None:
    entry, named = row
    bucket.put("new", b"new")
    entry = {**entry, "ref": entry["ref"].format(bucket=bucket.name)}
    version = wandb_backend.seed("team/nemotron/data", references={"weights": entry})
    with pytest.raises(LaunchError) as caught:
        resolve("data")
    text = str(caught.value)
    assert caught.value.exit_code == 125, text
    assert "run.data: data (cfg.yaml:3)" in text
    assert named.format(bucket=bucket.name) in text
    assert "AWS_PROFILE" in caught.value.remedy
    assert "a-secret-that-nobody-shows" not in text
    assert not (tmp_path / "cache" / "wandb" / version.digest).exists()


def test_a_store_that_is_down_may_come_back(wandb_backend: Backend, resolve: Callable[..., Artifact]) -> None:
    entry = {"ref": "s3://bucket/weights", "digest": "0" * 32, "size": 1}
    wandb_backend.seed("team/nemotron/data", references={"weights": entry})
    with pytest.raises(TemporaryError, match="s3://bucket/weights"):
        resolve("data", AWS_S3_ENDPOINT_URL="http://127.0.0.1:9")


def test_a_size_that_was_not_logged_is_not_taken(
    wandb_backend: Backend, bucket: Bucket, resolve: Callable[..., Artifact]
) -> None:
    wandb_backend.seed("team/nemotron/data", references={"weights": {**bucket.put("w", WEIGHTS), "size": 5}})
    with pytest.raises(TemporaryError, match="gave 1024000 bytes, and 5 were logged"):
        resolve("data")


UNFETCHABLE = {
    "no driver": ("gs://bucket/weights", "google.cloud.storage is not installed", "pip install google-cloud-storage"),
    "no such scheme": ("msc://profile/weights", "fetches no msc URIs", "absolute_path"),
}


@pytest.mark.parametrize("row", UNFETCHABLE.values(), ids=UNFETCHABLE)
def test_what_cannot_be_fetched_is_said_before_the_first_byte(
    wandb_backend: Backend, resolve: Callable[..., Artifact], row: tuple[str, str, str]
) -> None:
    uri, found, remedy = row
    wandb_backend.seed("team/nemotron/data", files={"large": b"1"}, references={"weights": uri})
    with pytest.raises(LaunchError) as caught:
        resolve("data")
    assert caught.value.exit_code == 125
    assert uri in caught.value.found
    assert found in caught.value.found
    assert remedy in caught.value.remedy
    assert wandb_backend.operations("GET data/large") == 0


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_the_signature_of_a_reference_is_not_shown(wandb_backend: Backend, resolve: Callable[..., Artifact]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        uri = f"http://ann:hush@127.0.0.1:{server.server_port}/weights?X-Amz-Signature=f00ba4"
        wandb_backend.seed("team/nemotron/data", references={"weights": uri})
        with pytest.raises(LaunchError) as caught:
            resolve("data")
    finally:
        server.shutdown()
        server.server_close()
    assert f"http://***@127.0.0.1:{server.server_port}/weights?***" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "f00ba4" not in str(caught.value)


@pytest.mark.wandb_matrix
def test_references_are_fetched_side_by_side_each_to_its_own_place(
    wandb_backend: Backend,
    bucket: Bucket,
    credentials: dict[str, str],
    wandb_environ: dict[str, str],
    tmp_path: Path,
) -> None:
    # Two artifacts at once, whose objects are all different: wandb has one place for the target of a download.
    for artifact in ("data", "base"):
        objects = {f"part/{number}": bucket.put(f"{artifact}/{number}", f"{artifact} {number}".encode())
                   for number in range(24)}  # fmt: skip
        wandb_backend.seed(f"team/nemotron/{artifact}", references=objects)
    context = StoreContext(
        root="", environ={**wandb_environ, **credentials}, project="nemotron", cache_dir=str(tmp_path / "cache")
    )
    wanted = [parse_reference(name, name, Origin("cfg.yaml", 3)) for name in ("data", "base")]
    with slow(0.02) as requests:
        found = open_store("wandb", context).resolve(wanted, progress=lambda *_: None, timeout=60)
    for artifact in found:
        for number in range(24):
            with open(os.path.join(artifact.path, f"part/{number}"), encoding="utf-8") as file:
                assert file.read() == f"{artifact.name} {number}"
    assert requests.most >= 4
    assert os.listdir(tmp_path / "cache" / "wandb" / ".partial") == []
