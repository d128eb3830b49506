"""A checkpoint has a number in each store. Both are recorded and shown, and a reference by number is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory

SAVE = """
import sys, wandb
sys.path.insert(0, {frameworks!r})
import megatron_module, os
utils = megatron_module.light()
run = wandb.init(project="nemotron", entity="team")
for iteration in (2, 4):
    path = "out/pretrain/iter_%07d" % iteration
    os.makedirs(path)
    open(path + "/weights", "w").write(str(iteration))
    utils.on_save_checkpoint_success(path, "out/pretrain", iteration, None)
run.finish()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two checkpoints of a job with a W&B run: the directory, the environment of the next job, W&B."""
    work = tmp_path_factory.mktemp("trained")
    yield from train(work, {"NEMOTRON_EXEC_STORE": str(work / "store")})


@pytest.fixture(scope="module")
def trained_for_a_bucket(tmp_path_factory):
    """The same with a manifest store in a bucket, to which the job itself has no access."""
    from buckets import s3

    with s3() as environ:
        more = {"NEMOTRON_EXEC_STORE": "s3://artifacts/store", "NEMOTRON_EXEC_PYTHON": sys.executable}
        yield from train(tmp_path_factory.mktemp("trained-for-a-bucket"), {**environ, **more})


def train(work, more):
    from places import ROOT
    from wandb_backend import Backend

    with Backend() as backend:
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **backend.environ(work / "home"), **more}
        job = {"PYTHONPATH": injector_directory(), "NEMOTRON_EXEC_ACTIVE": __version__}
        code = SAVE.format(frameworks=str(ROOT / "tests" / "frameworks"))
        done = subprocess.run(
            [sys.executable, "-c", code], env={**environ, **job}, cwd=work, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        yield work, environ, backend


def start(trained, config, *options, program="nemotron_exec"):
    work, environ, _ = trained
    (work / "cfg.yaml").write_text(config)
    words = [sys.executable, "-m", program, *options]
    return subprocess.run(words, env=environ, cwd=work, capture_output=True, text=True, check=False)


pytestmark = pytest.mark.torch

CONFIG = "run: {model: 'pretrain:%s', wandb: {project: nemotron, entity: team}}\nn: ${art:model,iteration}\n"


@pytest.mark.parametrize("backend", ["manifest", "wandb"])
@pytest.mark.parametrize("iteration", [2, 4])
def test_an_alias_of_the_iteration_means_the_same_checkpoint_in_both_stores(trained, backend, iteration):
    done = start(trained, CONFIG % f"iter_{iteration:07d}", "--backend", backend, "cat", "cfg.yaml")
    assert f"n: {iteration}" in done.stdout, done.stderr
    assert "warning" not in done.stderr


def test_a_number_of_the_manifest_store_that_is_another_one_in_wandb_is_said(trained):
    done = start(trained, CONFIG % "v1", "--backend", "manifest", "cat", "cfg.yaml")
    assert "n: 2" in done.stdout
    assert "pretrain:v1 of the manifest store is team/nemotron/pretrain:v0 in W&B" in done.stderr
    assert "pretrain:iter_0000002 means this one in both" in done.stderr


@pytest.mark.parametrize("where", ["trained", "trained_for_a_bucket"])
def test_show_prints_both_numbers(request, where):
    trained = request.getfixturevalue(where)
    words = ("show", "pretrain:iter_0000004")
    done = start(trained, "", *words, program="nemotron_exec.artifact_cli")
    assert "pretrain:v2" in done.stdout
    assert "team/nemotron/pretrain:v1" in done.stdout
    done = start(trained, "", *words, "--json", program="nemotron_exec.artifact_cli")
    assert json.loads(done.stdout)["wandb"] == "team/nemotron/pretrain:v1"


@pytest.mark.parametrize("where", ["trained", "trained_for_a_bucket"])
def test_what_a_flush_sends_has_both_numbers_too(request, where, tmp_path):
    trained = request.getfixturevalue(where)
    _, environ, _ = trained
    directory = tmp_path / "late" / "iter_0000008"
    directory.mkdir(parents=True)
    code = f"""
from nemotron_exec.sitecustomize.payload.checkpoints import describe, record
record.record(describe.Completed("megatron-bridge", {{}}, {str(directory.parent)!r}, {str(directory)!r}, 8,
    "iter_0000008", False, False, None, {{}}))
"""
    job = {"NEMOTRON_EXEC_BACKEND": "wandb", "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "team"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environ, **job}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    done = start(trained, "", "flush", str(directory.parent), program="nemotron_exec.artifact_cli")
    assert done.returncode == 0, done.stderr
    done = start(trained, "", "show", "late:v1", "--json", program="nemotron_exec.artifact_cli")
    assert json.loads(done.stdout)["wandb"] == "team/nemotron/late:v0"


def test_a_number_of_a_bucket_that_is_another_one_in_wandb_is_said(trained_for_a_bucket):
    done = start(trained_for_a_bucket, CONFIG % "v1", "--backend", "manifest", "cat", "cfg.yaml")
    assert "n: 2" in done.stdout
    assert "pretrain:v1 of the manifest store is team/nemotron/pretrain:v0 in W&B" in done.stderr


def test_a_name_in_wandb_is_noted_in_whatever_store_fsspec_has_a_driver_for(tmp_path):
    from nemotron_exec.outbox import number_in_wandb
    from nemotron_exec.sitecustomize.payload.checkpoints import describe, outbox, record
    from nemotron_exec.sitecustomize.payload.manifest import read
    from nemotron_exec.stores.manifest import open_files

    (tmp_path / "out/iter_0000002").mkdir(parents=True)
    save, path = str(tmp_path / "out"), str(tmp_path / "out/iter_0000002")
    done = describe.Completed("megatron-bridge", {}, save, path, 2, "iter_0000002", False, False, None, {})
    recorded = record.record(done)
    entry = {**recorded.entry, "store": f"memory://{tmp_path}/store"}
    files = open_files(entry["store"])
    record.register(dict(entry), files)
    number_in_wandb.note_name(entry, "team/nemotron/out:v7")
    assert read.wandb_name(files, read.read_version(files, "out", "latest")) == "team/nemotron/out:v7"
    outbox.remove(recorded.path)
