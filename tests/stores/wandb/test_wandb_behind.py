"""A dead job's unsent checkpoint is sent before W&B is asked for the latest. If that fails, the job does not start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.outbox.behind import flush_first
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import register

if TYPE_CHECKING:
    from pathlib import Path

    from wandb_backend import Backend


@pytest.fixture
def unsent(tmp_path: Path) -> dict[str, Any]:
    """An older checkpoint that W&B has, and the outbox entry of a newer one that it lacks. Both are in the store."""
    root = str(tmp_path / "store")
    save = tmp_path / "save"
    for iteration in (10, 20):
        (save / f"iter_{iteration:07}").mkdir(parents=True)
    register.register(root, "pretrain", path=str(save), type="model", metadata={"iteration": 10})
    entry = {
        "event": outbox.new_event(),
        "created_at": "2026-03-11T10:00:00+00:00",
        "store": root,
        "name": "pretrain",
        "type": "model",
        "path": str(save),
        "checkpoint_path": str(save / "iter_0000020"),
        "local_path": str(save / "iter_0000020"),
        "save_dir": str(save),
        "iteration": 20,
        "aliases": ["iter_0000020"],
        "latest": True,
        "gone": False,
        "metadata": {
            "iteration": 20,
            "absolute_path": str(save),
            "checkpoint_path": str(save / "iter_0000020"),
        },
        "used_artifacts": [],
        "producer": "local",
        "process": None,
        "wandb": {
            "entity": "team",
            "project": "nemotron",
            "name": "pretrain",
            "run": "dead",
            "aliases": ["iter_0000020"],
        },
    }
    extra = {"event": entry["event"], "checkpoint_path": entry["checkpoint_path"]}
    register.register(root, "pretrain", path=str(save), type="model", metadata=entry["metadata"], extra=extra)
    outbox.write(outbox.directory_of(str(save)), entry)
    return {"root": root, "save": str(save)}


def reference(text: str) -> Any:
    return parse_reference("model", text, Origin("sft.yaml", 3))


def test_what_is_unsent_is_sent_first(
    wandb_backend: Backend, wandb_environ: dict[str, str], unsent: dict[str, Any]
) -> None:
    wandb_backend.seed("team/nemotron/pretrain", type="model", metadata={"iteration": 10})
    flush_first(unsent["root"], wandb_environ, Messages())([reference("pretrain:latest")])
    collection = wandb_backend.model.find_collection("team", "nemotron", "pretrain")
    assert collection is not None
    newest = collection.versions[collection.aliases["latest"]]
    assert (newest.index, newest.metadata["iteration"]) == (1, 20)
    assert outbox.entries(outbox.directory_of(unsent["save"])) == []


def test_what_cannot_be_sent_is_an_error_that_names_both_versions(
    wandb_backend: Backend, wandb_environ: dict[str, str], unsent: dict[str, Any]
) -> None:
    wandb_backend.fail("graphql", status=403, times=None)
    with pytest.raises(TemporaryError) as caught:
        flush_first(unsent["root"], wandb_environ, None, bound=4)([reference("pretrain:latest")])
    assert caught.value.exit_code == 75
    assert "sft.yaml:3" in caught.value.wanted
    assert "v2 (iteration 20), which has not reached W&B" in caught.value.found
    assert "v1 (iteration 10)" in caught.value.found
    assert f"nemotron-artifact flush {os.path.realpath(unsent['save'])}" in caught.value.remedy


@pytest.mark.parametrize("text", ["pretrain:v0", "sft:latest", "pretrain:iter_0000010"])
def test_other_references_wait_for_nothing(
    wandb_backend: Backend, wandb_environ: dict[str, str], unsent: dict[str, Any], text: str
) -> None:
    flush_first(unsent["root"], wandb_environ, None)([reference(text)])
    assert wandb_backend.log == []
