"""Times what a store is asked: eight references of W&B and of a bucket, an artifact's references, long listings.

The servers are W&B's model and moto's S3 on the loopback, with a pause before each answer: a row shows round trips.
"""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks import environments
from benchmarks.resolving import write_versions
from benchmarks.row import Row, emit

sys.path.insert(0, os.path.join(environments.ROOT, "tests"))
sys.path.insert(0, os.path.join(environments.ROOT, "tests", "support"))

from buckets import s3, slow
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.manifest import register
from nemotron_exec.stores.fsspec_files import FsspecFiles
from nemotron_exec.stores.manifest import ManifestStore
from nemotron_exec.stores.wandb.store import WandbStore
from wandb_backend import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAMES = [f"n{i}" for i in range(8)]
PAUSE = 0.05  # seconds before each answer of the bucket
LATENCY = 0.25  # seconds before each answer of W&B: eight in a row are told from one
OBJECTS = 64  # of one artifact
RUNS = 5
VERSIONS, LISTED = 20_000, 5_000


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch, Backend() as backend, s3() as bucket, slow(PAUSE):
        os.environ.update(bucket)
        look_ups_of_wandb(backend, scratch)
        look_ups_of_a_bucket()
        references_of_an_artifact(backend, scratch, bucket)
        listings(scratch)


def median_of(work: Callable[[], object]) -> float:
    """Median wall seconds of RUNS calls."""
    taken = []
    for _ in range(RUNS):
        began = time.monotonic()
        work()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def references(names: Iterable[str]) -> list[Any]:
    return [parse_reference(name, f"{name}:latest", Origin("benchmark")) for name in names]


def look_ups_of_wandb(backend: Backend, scratch: str) -> None:
    """Measure eight references whose files are in the cache, beside one of them."""
    environ = {**os.environ, **backend.environ()}
    cache = os.path.join(scratch, "cache")

    def look_up(names: list[str]) -> None:
        store = WandbStore(project="bench", entity="team", cache_directory=cache, environ=environ)
        store.resolve(references(names), progress=lambda *_: None, timeout=120)

    for name in NAMES:
        backend.seed(f"team/bench/{name}", files={"x": name.encode()})
    look_up(NAMES)
    backend.latency = LATENCY
    one, eight = median_of(lambda: look_up(NAMES[:1])), median_of(lambda: look_up(NAMES))
    backend.latency = 0.0
    emit(
        Row(
            "W&B, 8 references in the cache: look-ups",
            "s",
            eight,
            one,
            against="one reference",
            bar=f"at most one round trip more ({LATENCY:g} s)",
            met=eight - one <= LATENCY,
            pairs=RUNS,
            note="start of the client included",
        )
    )


def look_ups_of_a_bucket() -> None:
    """Measure eight references of a manifest store in a bucket."""
    store = "s3://artifacts/store"
    files = FsspecFiles(store)
    for name in NAMES:
        register.register(files, name, type="model", path="/", metadata={"a": 1})
    taken = median_of(lambda: ManifestStore(store).resolve(references(NAMES), progress=lambda *_: None, timeout=60))
    emit(
        Row(
            f"manifest store on S3, 8 references, {1000 * PAUSE:.0f} ms a request",
            "s",
            taken,
            PAUSE,
            against="one request",
            bar="at most 12 round trips",
            met=taken <= 12 * PAUSE,
            pairs=RUNS,
            note="at most 4 requests a reference: a test counts them",
        )
    )


def references_of_an_artifact(backend: Backend, scratch: str, bucket: dict[str, str]) -> None:
    """Measure an artifact of W&B that refers to objects of a bucket, beside one that has as many files."""
    import boto3

    client = boto3.client("s3", endpoint_url=bucket["AWS_ENDPOINT_URL"], region_name="us-east-1")
    objects = {}
    for number in range(OBJECTS):
        data = str(number).encode()
        etag = client.put_object(Bucket="artifacts", Key=f"data/{number}", Body=data)["ETag"].strip('"')
        uri = f"s3://artifacts/data/{number}"
        objects[f"{number}"] = {"ref": uri, "digest": etag, "size": len(data), "extra": {"etag": etag}}
    backend.seed("team/bench/referring", references=objects)
    backend.seed("team/bench/holding", files={f"{number}": str(number).encode() for number in range(OBJECTS)})
    environ = {
        **os.environ,
        **backend.environ(),
        "AWS_S3_ENDPOINT_URL": bucket["AWS_ENDPOINT_URL"],
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def fetch(name: str) -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as cache:
            store = WandbStore(project="bench", entity="team", cache_directory=cache, environ=environ)
            store.resolve(references([name]), progress=lambda *_: None, timeout=120)

    backend.latency = PAUSE
    referring, holding = median_of(lambda: fetch("referring")), median_of(lambda: fetch("holding"))
    backend.latency = 0.0
    emit(
        Row(
            f"one artifact of {OBJECTS} references (s3://), {1000 * PAUSE:.0f} ms a request",
            "s",
            referring,
            holding,
            against="one artifact of as many files",
            bar="at most 2 times",
            met=referring <= 2 * holding,
            pairs=RUNS,
            note="boto3's import and its second request for each object included",
        )
    )


def listings(scratch: str) -> None:
    """Measure `nemotron-artifact ls` of one name with 20,000 versions, and of 5,000 names."""
    environ = {**os.environ, "COLUMNS": "120", "HOME": scratch}
    for what, names, versions in (("NAME, 20,000 versions", ["one"], VERSIONS), ("5,000 names", [], 1)):
        store = os.path.join(scratch, what)
        for name in names or [f"name-{number:04d}" for number in range(LISTED)]:
            write_versions(store, name, range(1, versions + 1), "model", store, {})
        command = [sys.executable, "-m", "nemotron_exec.artifact_cli", "ls", *names, "--store", store]

        def run(command: list[str] = command) -> None:
            subprocess.run(command, env=environ, check=True, capture_output=True)

        run()
        taken = median_of(run)
        emit(Row(f"nemotron-artifact ls, {what}", "s", taken, bar="at most 1 s", met=taken <= 1, pairs=RUNS))


if __name__ == "__main__":
    main()
