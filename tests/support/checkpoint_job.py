"""One job for the tests of checkpoints: its directories and hand-off, with this process as the trainer."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import threading
import types
from pathlib import Path

import pytest

from nemotron_exec.sitecustomize.payload import handoff
from nemotron_exec.sitecustomize.payload import job as process_job
from nemotron_exec.sitecustomize.payload.checkpoints import commit, outbox, pruning, settings
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from nemotron_exec.sitecustomize.payload.patches import saved_callback

TESTS = Path(__file__).resolve().parents[1]


def load(path):
    """A module from a file, under a name of its own."""
    path = Path(path)
    spec = importlib.util.spec_from_file_location("nemotron_exec_tests_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Job:
    """The directories of a job and its hand-off."""

    def __init__(self, tmp_path, monkeypatch):
        self.store = tmp_path / "store"
        self.save_dir = tmp_path / "out" / "pretrain"
        self.handoff = {"job": {"id": "slurm-4242.0"}}
        monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(self.store))
        monkeypatch.setenv("NEMOTRON_EXEC_BACKEND", "manifest")
        monkeypatch.setattr(handoff, "read", lambda: self.handoff)

    def save(self, number, save_dir=None):
        """Write the files that Megatron-Bridge has written when it calls its callback."""
        path = Path(save_dir or self.save_dir) / f"iter_{number:07d}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "common.pt").write_text("weights")
        (path / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
        return str(path)

    def manifest(self, version="latest", name="pretrain"):
        return read.read_version(str(self.store), name, version, skip_gone=False).manifest

    def numbers(self, name="pretrain"):
        """The iteration or step of each version, oldest version first."""
        found = listing.versions(str(self.store), name) if self.store.is_dir() else []
        return [self.manifest(version, name)["metadata"]["iteration"] for version in found]

    def pruned(self, name="pretrain"):
        """The iteration or step of each version whose data is marked as deleted."""
        found = listing.versions(str(self.store), name)
        return [
            self.manifest(version, name)["metadata"]["iteration"]
            for version in found
            if (self.store / name / f"v{version}" / "pruned").exists()
        ]

    def outbox(self, save_dir=None):
        return outbox.entries(outbox.directory_of(str(save_dir or self.save_dir)))

    def settle(self):
        assert commit.committer().settle(60)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job in this process, with a commit thread of its own."""
    monkeypatch.delitem(process_job._parts, settings._Said, raising=False)
    monkeypatch.setitem(process_job._parts, commit.Committer, commit.Committer())
    monkeypatch.setitem(process_job._parts, pruning._Alive, pruning._Alive())
    monkeypatch.delitem(process_job._parts, saved_callback._Last, raising=False)
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "NEMO_EXPERIMENT_ID", "NEMOTRON_EXEC_CHECKPOINT_WAIT"):
        monkeypatch.delenv(name, raising=False)
    one = Job(tmp_path, monkeypatch)
    yield one
    one.settle()


class Artifact:
    """The part of wandb.Artifact that the framework's function and the patch use."""

    def __init__(self, name, type, metadata=None):  # noqa: A002
        self.name, self.type, self.metadata = name, type, metadata or {}
        self.manifest = types.SimpleNamespace(entries={})
        self.waited = threading.Event()
        self.files = {}

    def add_reference(self, uri, checksum=True):
        for file in sorted(Path(uri.removeprefix("file://")).iterdir()):
            self.manifest.entries[file.name] = types.SimpleNamespace(ref=f"{uri}/{file.name}", digest="")

    @contextlib.contextmanager
    def new_file(self, name, mode="w"):
        stream = io.StringIO()
        yield stream
        self.files[name] = json.loads(stream.getvalue())

    def wait(self, timeout=None):
        self.waited.set()


class Writer:
    """Stands in for the `wandb` module, with a run."""

    Artifact = Artifact

    def __init__(self):
        self.logged = []
        self.run = types.SimpleNamespace(entity="team", project="nemotron", id="run1", log_artifact=self._log)

    def _log(self, artifact, aliases=None):
        self.logged.append((artifact, aliases))
        return artifact


@pytest.fixture
def writer(monkeypatch):
    """A `wandb` module that this process has imported."""
    one = Writer()
    monkeypatch.setitem(sys.modules, "wandb", one)
    return one
