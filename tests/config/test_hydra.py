"""Hydra programs: under nemotron-exec, real hydra-core composes the same config with the artifacts filled in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.read import read as read_command
from nemotron_exec.config.config import read
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.resolution.resolution import Resolution, resolved_command

DATA = Path(__file__).resolve().parents[1] / "data/hydra"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(DATA, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def launch(directory: Path, *words: str) -> dict[str, object]:
    """The program's output when it runs with the command that nemotron-exec would start."""
    command = read_command([sys.executable, "program.py", *words], [])
    config = read(command.configs, command.overrides, environ={}, run_wandb=Injected(), resolve="artifacts")
    found = {
        item.key: Artifact(
            item.key,
            item.text,
            "manifest",
            item.key,
            item.alias,
            "model",
            f"/a/{item.name}-{item.alias}",
            "q:v1",
            7,
            None,
            {"pack_size": 8},
        )
        for item in config.references
    }
    rendered = config.render(found, directory=str(directory), header=Header("now"))
    for file in rendered.files:
        os.makedirs(os.path.dirname(file.path), exist_ok=True)
        Path(file.path).write_bytes(file.text)
    for link, target in rendered.links:
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(target, link)
    offset = command.program
    argv = resolved_command(
        command,
        Resolution(
            arguments={index - offset: word for index, word in rendered.arguments.items()},
            dropped=frozenset(index - offset for index in rendered.dropped),
        ),
    )
    done = subprocess.run([*argv, f"hydra.run.dir={directory}/hydra"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


EXPECTED = {
    "run": {"data": "D:v1", "model": "M:v2", "which": "data"},
    "seed": 1,
    "out": "/a/D-v1/out",
    "name": "small",
    "model": {"name": "small", "checkpoint": "/a/M-v2", "step": 7},
    "corpus": {"path": "/a/D-v1/blend.json", "pack": 16, "same": "/a/D-v1/blend.json", "seed": 1},
}


@pytest.mark.parametrize(
    "words",
    [
        ("--config-path", "conf", "--config-name", "config"),
        ("--config-path=conf", "--config-name=config"),
        ("-cp", "conf", "-cn", "config"),
        ("--config-path", "conf"),
    ],
)
def test_groups_packages_and_self_compose_as_without_us(program: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert launch(tmp_path / "resolved", *words) == EXPECTED


def test_overrides_choose_groups_and_values_as_without_us(program: Path, tmp_path: Path) -> None:
    found = launch(tmp_path / "resolved", "-cp", "conf", "-cn", "config", "model=large", "seed=5", "run.data=E:v9")
    assert found["model"] == {"name": "large", "size": 7}
    assert found["name"] == "large"
    assert found["corpus"] == {"path": "/a/E-v9/blend.json", "pack": 16, "same": "/a/E-v9/blend.json", "seed": 5}


def test_a_config_beside_the_script_is_found_by_its_name_alone(program: Path, tmp_path: Path) -> None:
    for path in (program / "conf").iterdir():
        shutil.move(str(path), program)
    (program / "program.py").write_text((program / "program.py").read_text().replace('"conf"', '"."'))
    assert launch(tmp_path / "resolved", "--config-name", "config") == EXPECTED


def test_files_without_anything_of_ours_are_linked_not_copied(program: Path, tmp_path: Path) -> None:
    launch(tmp_path / "resolved", "-cp", "conf", "-cn", "config")
    large = tmp_path / "resolved/model/large.yaml"
    assert large.is_symlink()
    assert large.resolve() == (program / "conf/model/large.yaml").resolve()
    assert not (tmp_path / "resolved/model/small.yaml").is_symlink()
