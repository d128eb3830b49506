"""Flushes entries of several dead processes."""

from __future__ import annotations

import pytest

from nemotron_exec.outbox import flush
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read


@pytest.fixture
def left(tmp_path):
    """`left(step, minute)`: write an entry of a NeMo-RL process that died right after it."""

    def write(step, minute):
        checkpoint = tmp_path / "out" / f"step_{step}"
        return outbox.write(
            outbox.directory_of(str(tmp_path / "out")),
            {
                "event": f"{step:04d}{minute:04d}",
                "created_at": f"2026-01-01T00:{minute:02d}:00+00:00",
                "since": f"2026-01-01T00:{minute:02d}:00+00:00",
                "store": str(tmp_path / "store"),
                "name": "grpo",
                "type": "model",
                "path": str(checkpoint),
                "checkpoint_path": str(checkpoint),
                "local_path": str(checkpoint),
                "save_dir": str(tmp_path / "out"),
                "iteration": step,
                "aliases": [f"step_{step}"],
                "latest": True,
                "gone": False,
                "metadata": {"iteration": step, "written": minute},
                "used_artifacts": [],
                "producer": "local",
                "process": None,
                "wandb": None,
                "renamed_from": f"tmp_step_{step}",
            },
        )

    return write


def flushed(tmp_path):
    flush.flush(flush.pending([str(tmp_path / "out")]))
    store = str(tmp_path / "store")
    numbers = listing.versions(store, "grpo")
    return [read.read_version(store, "grpo", number).manifest["metadata"]["written"] for number in numbers]


def test_a_step_that_a_second_life_saved_again_is_one_version(tmp_path, left):
    # The first life died between the entry and the rename, the second between the rename and the manifest.
    left(4, 1)
    left(4, 2)
    (tmp_path / "out/step_4").mkdir()
    assert flushed(tmp_path) == [2]
    assert outbox.entries(outbox.directory_of(str(tmp_path / "out"))) == []


def test_two_steps_of_two_lives_are_two_versions(tmp_path, left):
    for step in (4, 8):
        left(step, step)
        (tmp_path / f"out/step_{step}").mkdir()
    assert flushed(tmp_path) == [4, 8]


def test_a_step_that_no_life_completed_is_none(tmp_path, left):
    left(4, 1)
    (tmp_path / "out/tmp_step_4").mkdir()
    flush.flush(flush.pending([str(tmp_path / "out")]))
    assert listing.names(str(tmp_path / "store")) == []
