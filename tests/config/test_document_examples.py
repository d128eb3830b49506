"""Runs the document's configs through the real launcher, with `cat` as the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from nemotron_exec.sitecustomize.payload.manifest import register

CONFIGS = Path(__file__).resolve().parents[1] / "data/configs"


@pytest.fixture
def resolved(nemotron_exec, tmp_path, monkeypatch):
    root = tmp_path / "store"
    for name in ("blends", "sft-data", "rl-data", "pretrain", "sft"):
        (tmp_path / name).mkdir()
    add = {
        "PretrainBlendsArtifact-default": ("dataset", "blends", {}),
        "ModelArtifact-pretrain": ("model", "pretrain", {}),
        "SFTDataArtifact-default": (
            "dataset",
            "sft-data",
            {"pack_size": 4096, "training_path": "/d/training_4096.npy"},
        ),
        "DataBlendsArtifact-rl": ("dataset", "rl-data", {"train_path": "/d/train.jsonl", "val_path": "/d/val.jsonl"}),
        "pretrain": ("model", "pretrain", {"iteration": 10000}),
        "sft": ("model", "sft", {"iteration": 500}),
    }
    for name, (kind, folder, metadata) in add.items():
        register.register(str(root), name, type=kind, path=str(tmp_path / folder), metadata=metadata)
    (tmp_path / "env.toml").write_text('[wandb]\nproject = "nemotron"\nentity = "my-team"\n')
    monkeypatch.delenv("NEMO_RUN_DIR", raising=False)

    def run(name: str) -> dict:
        shutil.copy(CONFIGS / name, tmp_path)
        done = nemotron_exec("--backend", "manifest", "--store", root, "cat", name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).read_bytes() == (CONFIGS / name).read_bytes()
        return yaml.safe_load(done.stdout)

    return run


def test_the_pretrain_config(resolved, tmp_path):
    found = resolved("pretrain.yaml")
    assert found["recipe"]["per_split_data_args_path"] == f"{tmp_path}/blends/blend.json"
    assert found["logger"] == {"wandb_project": "nemotron", "wandb_entity": "my-team"}
    assert found["run"]["wandb"] == {"project": "nemotron", "entity": "my-team"}
    assert found["checkpoint"]["save_interval"] == 20


def test_the_sft_config_with_a_model_checkpoint(resolved, tmp_path):
    recipe = resolved("sft.yaml")["recipe"]
    assert recipe["pretrained_checkpoint"] == f"{tmp_path}/pretrain"
    assert recipe["ckpt_step"] == 10000


def test_the_rl_config(resolved, tmp_path):
    found = resolved("rl.yaml")
    assert found["policy"]["model_name"] == f"{tmp_path}/sft"
    assert found["policy"]["train_mb_tokens"] == 8192
    assert found["data"] == {"train_jsonl_fpath": "/d/train.jsonl", "validation_jsonl_fpath": "/d/val.jsonl"}


def test_every_field_of_the_table_with_its_type(resolved, tmp_path):
    found = resolved("fields.yaml")
    del found["run"]
    assert found == {
        "data_path": f"{tmp_path}/sft-data",
        "default": f"{tmp_path}/sft-data",
        "model_version": "v1",
        "model_name": "pretrain",
        "model_type": "model",
        "checkpoint_step": 10000,
        "pack_size": 4096,
        "training_path": "/d/training_4096.npy",
        "forced": 4096,
    }
