"""The command's configs, read and rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from nemotron_exec.artifact import Artifact
from nemotron_exec.command import ConfigArgument
from nemotron_exec.config import Config, Header, Injected, Rendered, read

HEADER = Header("2026-03-11T10:00:00+00:00")


def artifact(key: str, **metadata: object) -> Artifact:
    return Artifact(
        key,
        f"{key}:latest",
        "manifest",
        f"{key}-name",
        "v3",
        "dataset",
        f"/artifacts/{key}",
        f"{key}-name:v3",
        iteration=10000,
        metadata={"pack_size": 4096, **metadata},
    )


def open_config(path: Path, *words: str, injected: Injected | None = None, resolve: str = "artifacts") -> Config:
    return read(
        [ConfigArgument(1, "", str(path))],
        dict(enumerate(words, 2)),
        environ={},
        run_wandb=injected or Injected("nemotron", "my-team"),
        resolve=resolve,  # type: ignore[arg-type]
    )


def render(path: Path, *words: str, **options: object) -> Rendered:
    config = open_config(path, *words, **options)  # type: ignore[arg-type]
    artifacts = {reference.key: artifact(reference.key) for reference in config.references}
    return config.render(artifacts, directory=str(path.parent / "resolved"), header=HEADER)


def body(rendered: Rendered) -> str:
    """The named file's text without the header."""
    lines = rendered.files[0].text.decode().splitlines(keepends=True)
    while lines and lines[0].startswith("# ") and "nemotron-exec" not in lines[0][:0]:
        if not lines[0].startswith(("# Resolved", "# at ", "# run.")):
            break
        lines.pop(0)
    return "".join(lines)


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


def test_references_of_the_run_section_are_found_with_their_lines(write):
    config = open_config(
        write(
            """\
run:
  data: PretrainBlendsArtifact-default:latest
  model: nvidia/NVIDIA-Nemotron-BF16
  teacher: super3/rl/swe1/data:7
  env: {container: "nvcr.io/nvidia/nemo:25.11"}
"""
        )
    )
    assert [(reference.key, reference.alias, reference.origin.line) for reference in config.references] == [
        ("data", "latest", 2),
        ("teacher", "v7", 4),
    ]


def test_only_what_is_ours_changes_and_everything_else_stays_byte_for_byte(write):
    rendered = render(
        write(
            """\
# a comment
run:
  data: D:latest   # the data
  wandb: {project: p, entity: e}
recipe:
    _target_:   megatron.bridge.recipes.x
    blend:  ${art:data,path}/blend.json  # from the artifact
    pack: "${art:data,pack_size}"
    twice: ${mul:${art:data,pack_size},2}
    home: ${oc.env:HOME}/x
    on: off
"""
        )
    )
    assert body(rendered) == (
        """\
# a comment
run:
  data: D:latest   # the data
  wandb: {project: p, entity: e}
recipe:
    _target_:   megatron.bridge.recipes.x
    blend:  /artifacts/data/blend.json  # from the artifact
    pack: 4096
    twice: 8192
    home: ${oc.env:HOME}/x
    on: off
"""
    )


def test_run_wandb_is_filled_from_the_environment_and_the_configs_own_values_win(write):
    path = write("run:\n  data: D:v1\n  wandb:\n    project: mine\n    entity: null\nx: ${run.wandb.entity}\n")
    text = body(render(path))
    assert yaml.safe_load(text)["run"]["wandb"] == {"project": "mine", "entity": "my-team"}
    assert OmegaConf.create(text).x == "my-team"


def test_run_overrides_are_applied_and_taken_out_of_the_command(write):
    path = write("run:\n  data: D:v1\nx: ${art:data,path}\n")
    rendered = render(path, "run.data=E:v2", "trainer.lr=1e-4", "y=${art:data,path}/z")
    assert yaml.safe_load(body(rendered))["run"]["data"] == "E:v2"
    assert rendered.dropped == {2}
    assert rendered.arguments[4] == "y=/artifacts/data/z"
    assert set(rendered.arguments) == {1, 4}
