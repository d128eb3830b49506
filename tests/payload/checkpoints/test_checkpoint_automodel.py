"""patches/automodel.py: a recipe of NeMo Automodel from PyPI, and the part of it that publishes a checkpoint.

It runs in CI only, because the framework's environment has more than a gigabyte (framework_environments.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from framework_environments import alone, python_of
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from places import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1200)]

RECIPE = ROOT / "tests" / "frameworks" / "train_automodel.py"
CONFIG = ROOT / "tests" / "data" / "configs" / "automodel.yaml"


@pytest.fixture
def train(tmp_path, wandb_environ):
    """Run the recipe under nemotron-exec: `train(*OVERRIDES) -> CompletedProcess`."""
    store = tmp_path / "store"
    (tmp_path / "blend").mkdir()
    shutil.copy(CONFIG, tmp_path / "cfg.yaml")
    environ = {
        **wandb_environ,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "NEMOTRON_EXEC_STORE": str(store),
        "NEMOTRON_EXEC_BACKEND": "manifest",
    }

    def launch(*words):
        command = [sys.executable, "-m", *words]
        return subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
        )

    add = ["add", "tiny-blend", "blend", "--type", "dataset", "--meta", "samples=8"]
    added = launch("nemotron_exec.artifact_cli", *add)
    assert added.returncode == 0, added.stderr

    def run(*overrides, **variables):
        environ.update(variables)
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
        done = launch(
            "nemotron_exec", "--", python_of("automodel"), *torchrun, str(RECIPE), "--config", "cfg.yaml", *overrides
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert [line for line in done.stderr.splitlines() if "nemotron-exec: warning" in line] == []
        return done

    return run


def versions(tmp_path):
    store = str(tmp_path / "store")
    numbers = listing.versions(store, "out")
    return [read.read_version(store, "out", number, skip_gone=False).manifest for number in numbers]


def test_a_recipe_records_each_checkpoint_with_its_losses_and_the_best_one(train, tmp_path):
    train()
    first, last = versions(tmp_path)
    assert [one["metadata"]["iteration"] for one in (first, last)] == [1, 3]
    assert first["path"] == first["metadata"]["checkpoint_path"] == str(tmp_path / "out" / "epoch_0_step_1")
    assert first["aliases"] == ["epoch_0_step_1", "best"]
    assert first["metadata"]["framework"] == "automodel"
    assert first["metadata"]["framework_version"].partition("+")[0] == "0.7.0"
    assert first["metadata"]["epoch"] == 0
    losses = json.loads((tmp_path / "out/epoch_0_step_1/losses.json").read_text())
    assert first["metadata"]["metrics.val_loss"] == losses["val_loss"]
    assert ("best" in last["aliases"]) == ((tmp_path / "out/LOWEST_VAL").resolve().name == "epoch_0_step_3")
    assert first["used_artifacts"] == ["tiny-blend:v1"]
    assert outbox.entries(outbox.directory_of(str(tmp_path / "out"))) == []


@pytest.mark.parametrize("deferred", [False, True], ids=["synchronous", "deferred"])
def test_what_a_recipe_prunes_is_marked_and_deferred_saves_are_recorded_when_they_are_complete(
    train, tmp_path, deferred
):
    words = ["--step_scheduler.max_steps", "6", "--checkpoint.max_recent_checkpoints", "1"]
    train(*words, *(["--checkpoint.is_async", "true"] if deferred else []))
    found = versions(tmp_path)
    assert [one["metadata"]["iteration"] for one in found] == [1, 3, 5]
    assert all(isinstance(one["metadata"]["metrics.val_loss"], float) for one in found)
    # Automodel exports the last checkpoint for Hugging Face, on a thread if saves are deferred.
    assert [one["metadata"]["format"] for one in found] == ["automodel", "automodel", "automodel+hf"]
    # Automodel keeps the newest and the best one.
    kept = {path.name for path in (tmp_path / "out").glob("epoch_*")}
    best = (tmp_path / "out/LOWEST_VAL").resolve().name
    assert kept == {"epoch_0_step_5", best}
    store = tmp_path / "store" / "out"
    marked = {one["aliases"][0]: (store / f"v{number}" / "pruned").exists() for number, one in enumerate(found, 1)}
    assert marked == {name: name not in kept for name in marked}
    assert [one["aliases"][0] for one in found if "best" in one["aliases"]][-1] == best
    assert outbox.entries(outbox.directory_of(str(tmp_path / "out"))) == []


@pytest.mark.parametrize(
    "override",
    [["--dataset.num_samples", "${art:data,samples}"], ["--dataset.num_samples=${art:data,samples}"]],
    ids=["two words", "one word"],
)
def test_an_artifact_in_an_override_reaches_the_recipe(train, tmp_path, override):
    # The override's 8 samples in batches of 4 give two steps. The config's own 32 samples would give four.
    train(*override)
    (only,) = versions(tmp_path)
    assert only["metadata"]["iteration"] == 1
    assert only["used_artifacts"] == ["tiny-blend:v1"]


def test_a_version_without_a_lifecycle_is_recorded_as_well(train, tmp_path):
    version = "0.5.0"
    train(PYTHONPATH=alone("automodel", f"nemo-automodel=={version}"))
    found = versions(tmp_path)
    assert [one["metadata"]["iteration"] for one in found] == [1, 3]
    assert {one["metadata"]["framework_version"].partition("+")[0] for one in found} == {version}
    best = (tmp_path / "out/LOWEST_VAL").resolve().name
    assert "best" in {one["aliases"][0]: one["aliases"] for one in found}[best]
    assert (tmp_path / "out/LATEST").resolve().name == "epoch_0_step_3"


PUBLISH = """
import os, sys, types
from nemo_automodel.components.checkpoint.lifecycle import CheckpointLifecycle

root = sys.argv[1]
lifecycle = CheckpointLifecycle(types.SimpleNamespace(checkpoint_dir=root, max_recent_checkpoints=None))
for step, value in enumerate((0.5, 0.7, float("nan"), 0.4)):
    path = os.path.join(root, "epoch_0_step_%d" % step)
    lifecycle.reserve(path)
    if step == 1:
        os.makedirs(os.path.join(path, "model", "consolidated"))
        open(os.path.join(path, "model", "consolidated", "config.json"), "w").close()
    lifecycle.publish(path, best_val_metric=value, metric_key="default")
broken = os.path.join(root, "epoch_0_step_9")
lifecycle.reserve(broken)
lifecycle._update_checkpoint_pointer = None
try:
    lifecycle.publish(broken, best_val_metric=None, metric_key=None)
except RuntimeError:
    print("not published")
"""


def test_what_is_published_is_recorded_whoever_publishes_it(nemotron_exec, tmp_path):
    store = tmp_path / "store"
    done = nemotron_exec(
        python_of("automodel"),
        "-c",
        PUBLISH,
        tmp_path / "out",
        env={"NEMOTRON_EXEC_STORE": str(store)},
        timeout=600,
    )
    assert done.stdout.split("\n")[-2] == "not published", done.stderr
    found = versions(tmp_path)
    assert [one["metadata"]["iteration"] for one in found] == [0, 1, 2, 3]
    assert ["best" in one["aliases"] for one in found] == [True, False, False, True]
    assert [one["metadata"]["format"] for one in found] == ["automodel", "automodel+hf", "automodel", "automodel"]
    assert found[1]["metadata"]["hf_path"] == str(tmp_path / "out/epoch_0_step_1/model/consolidated")
