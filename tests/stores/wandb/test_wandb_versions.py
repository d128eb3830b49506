"""The tests marked `wandb_matrix` under the oldest wandb that is supported, Megatron-Bridge's, and the newest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import other_versions

VERSIONS = {"oldest": "wandb==0.22.0", "megatron-bridge": "wandb==0.27.2", "newest": "wandb"}


@pytest.mark.ci
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", VERSIONS)
def test_lineage_checkpoints_and_resolution_work_with(name: str, tmp_path: Path) -> None:
    python = other_versions.environment(f"wandb-{name}", "--upgrade", VERSIONS[name])
    shown = other_versions.version_of(python, "wandb")
    if "==" in VERSIONS[name]:
        assert shown == VERSIONS[name].partition("==")[2]
    short = [] if os.environ.get("CI") else ["--tb=short"]
    passed = other_versions.passed_again(python, "wandb_matrix", *short, basetemp=tmp_path / "tests", timeout=1000)
    assert passed >= 5
