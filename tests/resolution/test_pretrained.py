"""`${art:model,pretrained_path}`, and the warning if the save directory would load another iteration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_exec.sitecustomize.payload.manifest import register


@pytest.fixture
def model(tmp_path):
    """A save directory with two iterations, of which the newest is 6; both are versions of `pretrain`."""
    save = tmp_path / "out" / "pretrain"
    for number in (4, 6):
        (save / f"iter_{number:07d}").mkdir(parents=True)
        (save / f"iter_{number:07d}" / "train_state.pt").write_text(f"state {number}")
        fields = {"absolute_path": str(save), "iteration": number}
        register.register(
            str(tmp_path / "store"),
            "pretrain",
            type="model",
            path=str(save),
            metadata={"iteration": number},
            fields=fields,
        )
    (save / "latest_checkpointed_iteration.txt").write_text("6")
    (save / "latest_train_state.pt").write_text("state 6")
    return save


def _resolve(nemotron_exec, tmp_path, text, *options):
    (tmp_path / "cfg.yaml").write_text(text)
    environ = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
    return nemotron_exec("--backend", "manifest", *options, "cat", "cfg.yaml", env=environ)


def test_pretrained_path_holds_the_pinned_iteration_alone_and_trackers_that_name_it(nemotron_exec, tmp_path, model):
    done = _resolve(nemotron_exec, tmp_path, "run: {model: 'pretrain:v1'}\np: ${art:model,pretrained_path}\n")
    path = next(line[3:] for line in done.stdout.splitlines() if line.startswith("p: "))
    assert sorted(os.listdir(path)) == [
        "iter_0000004",
        "latest_checkpointed_iteration.txt",
        "latest_train_state.pt",
    ]
    assert os.path.basename(path) == "pretrain"
    assert os.path.realpath(f"{path}/iter_0000004") == str(model / "iter_0000004")
    assert Path(path, "latest_checkpointed_iteration.txt").read_text() == "4"
    assert Path(path, "latest_train_state.pt").read_text() == "state 4"
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("version", "text", "warned"),
    [
        ("v1", "p: ${art:model,path}", True),
        ("v1", "p: ${art:model}", True),
        ("v2", "p: ${art:model,path}", False),
        ("v1", "p: ${art:model,path}\nn: ${art:model,iteration}", False),
    ],
)
def test_a_save_directory_whose_newest_iteration_is_another_is_a_warning(
    nemotron_exec, tmp_path, model, version, text, warned
):
    done = _resolve(nemotron_exec, tmp_path, f"run: {{model: 'pretrain:{version}'}}\n{text}\n")
    assert ("loads iteration 6. Write ${art:model,pretrained_path}" in done.stderr) == warned


def test_a_slashed_name_that_is_unknown_is_the_one_with_dashes(nemotron_exec, tmp_path):
    (tmp_path / "data").mkdir()
    register.register(
        str(tmp_path / "store"), "super3-rl-rlvr1-data", type="dataset", path=str(tmp_path / "data"), metadata={}
    )
    done = _resolve(nemotron_exec, tmp_path, "run: {data: 'super3/rl/rlvr1/data:latest'}\np: ${art:data,path}\n")
    assert f"p: {tmp_path}/data" in done.stdout
    assert "the store has no super3/rl/rlvr1/data; using super3-rl-rlvr1-data" in done.stderr
