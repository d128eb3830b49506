"""A manifest store in a bucket: the job has no fsspec, so the launcher's own Python registers for it."""

from __future__ import annotations

import os
import sys

import pytest

from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import read
from nemotron_exec.stores.manifest import open_files
from trainers import Trainer


@pytest.fixture
def bucket(monkeypatch):
    """Variables of a process that uses a bucket on a loopback S3 server, and the store's URI in the bucket."""
    from buckets import s3

    with s3() as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield environ, "s3://artifacts/store"


def start(tmp_path, bucket, save_dir, **more):
    environ, store = bucket
    return Trainer.start(
        {
            **environ,
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "NEMOTRON_EXEC_STORE": store,
            "NEMOTRON_EXEC_PYTHON": sys.executable,
            "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "60",
            "SAVE_DIR": save_dir,
            **more,
        }
    )


def test_a_checkpoint_is_registered_in_the_bucket_before_the_process_ends(tmp_path, bucket):
    save_dir = tmp_path / "out" / "pretrain"
    trainer = start(tmp_path, bucket, str(save_dir))
    try:
        trainer.do("save 10")
        trainer.say("exit 0")
        assert trainer.end() == 0, trainer.errors()
    finally:
        trainer.close()
    files = open_files(bucket[1])
    found = read.read_version(files, "pretrain", "latest").manifest
    assert found["metadata"]["iteration"] == 10
    assert found["path"] == str(save_dir)
    assert outbox.entries(outbox.directory_of(str(save_dir))) == []


def test_without_the_launcher_the_entry_stays_and_is_named(tmp_path, bucket):
    save_dir = tmp_path / "out" / "pretrain"
    trainer = start(
        tmp_path, bucket, str(save_dir), NEMOTRON_EXEC_PYTHON=str(tmp_path / "gone"), NEMOTRON_EXEC_CHECKPOINT_DRAIN="1"
    )
    try:
        trainer.do("save 10")
        trainer.say("exit 0")
        assert trainer.end() == 0
        assert any("could not be written to the manifest store" in line for line in trainer.ours())
    finally:
        trainer.close()
    assert len(outbox.entries(outbox.directory_of(str(save_dir)))) == 1
