"""The backend of the W&B tests, driven by the real client."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from wandb_backend import Backend

pytestmark = pytest.mark.wandb_matrix

READ = """
import json, os, wandb
api = wandb.Api()
artifact = api.artifact("team/nemotron/data:latest")
root = artifact.download(root=os.environ["HOME"] + "/data")
linked = api.artifact("wandb-registry-model/base:prod")
print(json.dumps({"version": artifact.version, "metadata": artifact.metadata, "files": sorted(os.listdir(root)),
                  "source": linked.source_qualified_name}))
"""

WRITE = """
import os, wandb
run = wandb.init(project="nemotron", entity="team", id="run1")
run.use_artifact("team/nemotron/data:v0")
run.log({"loss": 1.0})
artifact = wandb.Artifact("pretrain", type="model", metadata={"iteration": 7})
with artifact.new_file("metadata.json") as file:
    file.write('{"iteration": 7}')
run.log_artifact(artifact, aliases=["prod"]).wait()
run.finish()
"""


def run(code: str, environ: dict[str, str], tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_reads_and_downloads_what_was_seeded(
    wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"})
    second = wandb_backend.seed("team/nemotron/data", files={"a": b"1", "b": b"2"}, metadata={"pack_size": 4096})
    wandb_backend.model.link(second, "model", "base", "prod")
    seen = json.loads(run(READ, wandb_environ, tmp_path))
    assert seen == {
        "version": "v1",
        "metadata": {"pack_size": 4096},
        "files": ["a", "b"],
        "source": "team/nemotron/data:v1",
    }
    assert wandb_backend.unknown == []


def test_a_run_uses_logs_and_finishes(wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path) -> None:
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"})
    run(WRITE, wandb_environ, tmp_path)
    recorded = wandb_backend.model.run("run1")
    assert recorded.used == ["team/nemotron/data:v0"]
    assert recorded.logged == ["team/nemotron/pretrain:v0"]
    assert [row["loss"] for row in recorded.history] == [1.0]
    assert recorded.exit_code == 0
    collection = wandb_backend.model.find_collection("team", "nemotron", "pretrain")
    assert collection is not None
    assert collection.aliases == {"prod": 0, "latest": 0}
    assert wandb_backend.unknown == []
