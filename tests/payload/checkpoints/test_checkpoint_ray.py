"""Checkpoints that Ray's workers save, with the real Ray: a local cluster under the real launcher."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from nemotron_exec.environment import injector_directory
from nemotron_exec.outbox import flush
from nemotron_exec.sitecustomize.payload.checkpoints import outbox, process
from nemotron_exec.sitecustomize.payload.manifest import listing, read

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).resolve().parents[2] / "frameworks" / "ray_job.py"
# The variables of a batch step of Slurm. NeMo-RL removes all of them before it starts Ray.
SLURM = {"SLURM_JOB_ID": "4242", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}


@pytest.fixture
def ray(nemotron_exec, tmp_path):
    """Run the program under the launcher; returns its output."""
    config = tmp_path / "cfg.yaml"
    config.write_text("run: {checkpoints: all}\n")

    def run(scenario, environ):
        done = nemotron_exec(
            *("--state-dir", tmp_path / "state", "--", sys.executable, PROGRAM, tmp_path / "out", scenario, config),
            env={
                **SLURM,
                "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
                # Switches of the cluster: no token in the home directory, and no usage reports.
                "RAY_AUTH_MODE": "disabled",
                "RAY_USAGE_STATS_ENABLED": "0",
                **environ,
            },
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


@pytest.fixture
def results(tmp_path):
    """Variables of a job that saves below `/nemo_run`, which has another path on the host; and that path."""
    if os.path.lexists("/nemo_run"):  # a machine that has /nemo_run: paths are not translated there
        return {"RESULTS": str(tmp_path / "job" / "results")}, tmp_path / "job" / "results"
    return {"NEMO_RUN_DIR": str(tmp_path / "job"), "RESULTS": "/nemo_run/results"}, tmp_path / "job" / "results"


def test_tasks_and_actors_have_the_injector_and_the_hand_off(ray, results):
    environ, directory = results
    told = ray("tells", environ)
    for one in told.values():
        assert one["sitecustomize"] == os.path.join(os.path.abspath(injector_directory()), "sitecustomize.py")
        assert one["handoff"] == "slurm-4242.batch"
        assert one["scheduler"] == []
        assert one["results"] == str(directory)
    assert told["worker group"]["first"].endswith("nemo_rl_main")


def test_each_checkpoint_of_an_actor_is_recorded_once_as_the_host_sees_it(ray, results, tmp_path):
    environ, directory = results
    assert ray("saves", environ) == str(directory / "grpo")
    store = str(tmp_path / "store")
    recorded = {
        name: [read.read_version(store, name, number).manifest for number in listing.versions(store, name)]
        for name in listing.names(store)
    }
    assert {name: [one["metadata"]["iteration"] for one in found] for name, found in recorded.items()} == {
        "grpo": [10, 20],
        "pretrain": [30],
    }
    paths = [one["metadata"]["checkpoint_path"] for found in recorded.values() for one in found]
    assert paths == [f"{directory}/grpo/step_10", f"{directory}/grpo/step_20", f"{directory}/pretrain/iter_0000030"]
    assert {one["producer"] for found in recorded.values() for one in found} == {"slurm-4242.batch"}
    for name in recorded:
        assert outbox.entries(outbox.directory_of(str(directory / name))) == []


def test_a_worker_may_die_in_any_way_and_its_checkpoint_is_known(ray, results, tmp_path, wandb_backend, wandb_environ):
    wandb_backend.commit_delay = 60
    environ = {**results[0], **wandb_environ, "WANDB_PROJECT": "nemotron", "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "1"}
    ways = sorted(ray("dies", environ))
    assert ways == ["forgotten", "killed", "left", "orphaned", "terminated"]
    deadline = time.monotonic() + 60
    while any(process.alive(entry["process"]) for _, entry in flush.pending([str(tmp_path / "out")])):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store = str(tmp_path / "store")
    for way in ways:
        version = read.read_version(store, way, "latest").manifest
        assert version["metadata"]["checkpoint_path"] == f"{tmp_path}/out/{way}/iter_0000010"
        (waiting,) = outbox.entries(outbox.directory_of(str(tmp_path / "out" / way)))
        assert waiting[1]["event"] == version["event"]
    wandb_backend.commit_delay = 0
    report = flush.replay([str(tmp_path / "out")], timeout=120, environ=wandb_environ)
    assert (report.sent, report.kept) == (5, [])
    collections = wandb_backend.model.entities["team"]["nemotron"].collections
    committed = {way: [one for one in collections[way].versions if one.state == "COMMITTED"] for way in ways}
    assert {way: len(versions) for way, versions in committed.items()} == dict.fromkeys(ways, 1)
