"""`defaults:` as NeMo-RL reads it. `load` does the same as NeMo-RL's loader, in a few lines.
tests/frameworks/compare_configs.py compares with the real loader, on NeMo-RL's several hundred example configs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.files import Header, Rendered
from nemotron_exec.config.run_section import Injected
from nemotron_exec.errors import LaunchError


def load(path: Path) -> DictConfig:
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    if "defaults" not in config:
        return config
    names = config.pop("defaults")
    merged = OmegaConf.create({})
    for name in [names] if isinstance(names, str) else list(names):
        merged = over(merged, load(path.parent / name))
    return over(merged, config)


def over(base: DictConfig, child: DictConfig) -> DictConfig:
    for key in list(child):
        if OmegaConf.is_missing(child, key) or not isinstance(child[key], DictConfig):
            continue
        if child[key].get("_override_", False):
            child[key].pop("_override_")
            base.pop(key, None)
    result = OmegaConf.merge(base, child)
    assert isinstance(result, DictConfig)
    return result


def files(tmp_path: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = tmp_path / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "child.yaml"


def render(path: Path, *words: str, **environ: str) -> Rendered:
    config = read(
        [ConfigArgument(0, "", str(path), explicit=True)],
        parse_overrides(words, 1),
        environ=environ,
        run_wandb=Injected(),
        resolve="artifacts",
    )
    artifacts = {
        item.key: Artifact(
            item.key, item.text, "manifest", item.key, item.alias, "", f"/a/{item.key}-{item.alias}", "q:v1"
        )
        for item in config.references
    }
    rendered = config.render(artifacts, directory=str(path.parent / "resolved"), header=Header("now"))
    for file in rendered.files:
        Path(file.path).parent.mkdir(parents=True, exist_ok=True)
        Path(file.path).write_bytes(file.text)
    return rendered


def resolved(path: Path, *words: str, **environ: str) -> Any:
    rendered = render(path, *words, **environ)
    return OmegaConf.to_container(load(Path(rendered.arguments.get(0, str(path)))), resolve=False)


def test_a_parent_with_something_of_ours_is_rewritten_and_others_stay(tmp_path: Path) -> None:
    child = files(
        tmp_path,
        child="defaults: [plain.yaml, ours.yaml]\nrun: {data: D:v2}\nx: ${art:data,path}\n",
        plain="a: 1  # nothing of ours\n",
        ours="y: ${art:data,path}/y\nrun: {data: D:v1}\n",
    )
    rendered = render(child)
    assert [Path(file.original).name for file in rendered.files] == ["child.yaml", "ours.yaml"]
    text = rendered.files[0].text.decode()
    assert f"{tmp_path}/plain.yaml" in text
    assert f"{tmp_path}/resolved/ours.yaml" in text
    assert resolved(child) == {"a": 1, "run": {"data": "D:v2"}, "y": "/a/data-v2/y", "x": "/a/data-v2"}


def test_relative_paths_count_from_the_file_that_says_them(tmp_path: Path) -> None:
    child = files(
        tmp_path,
        child="defaults: base/middle.yaml\nrun: {data: D:v1}\n",
        base__middle="defaults: ../top.yaml\nm: 1\n",
        top="t: ${art:data,path}\n",
    )
    assert resolved(child) == {"t": "/a/data-v1", "m": 1, "run": {"data": "D:v1"}}
    rendered = render(child)
    assert len({file.path for file in rendered.files}) == 3
    places = [re.sub(r"/parents-[0-9a-f]{8}/", "/parents-*/", file.path) for file in rendered.files]
    assert places == [f"{tmp_path}/resolved/{name}" for name in ("child.yaml", "parents-*/middle.yaml", "top.yaml")]


def test_a_grandparent_with_something_of_ours_moves_the_parent_as_well(tmp_path: Path) -> None:
    child = files(
        tmp_path,
        child="defaults: parent.yaml\nx: 1\n",
        parent="defaults: top.yaml\ny: 2\n",
        top="run: {data: D:v1}\nz: ${art:data,path}\n",
    )
    assert resolved(child) == {"run": {"data": "D:v1"}, "z": "/a/data-v1", "y": 2, "x": 1}


def test_an_overridden_section_replaces_the_inherited_one(tmp_path: Path) -> None:
    child = files(
        tmp_path,
        child="defaults: parent.yaml\nrun: {data: D:v1}\ns: {_override_: true, a: '${art:data,path}'}\nq: ${s.a}\n",
        parent="s: {a: 1, b: 2}\n",
    )
    assert resolved(child) == {"s": {"a": "/a/data-v1"}, "run": {"data": "D:v1"}, "q": "/a/data-v1"}


def test_a_missing_value_keeps_the_inherited_one(tmp_path: Path) -> None:
    child = files(
        tmp_path,
        child="defaults: parent.yaml\nrun: {data: D:v1}\na: ???\nb: ${a}\nc: ???\n",
        parent="a: ${art:data,path}\n",
    )
    assert resolved(child) == {"a": "/a/data-v1", "run": {"data": "D:v1"}, "b": "/a/data-v1", "c": "???"}


def test_lists_are_replaced_and_mappings_merged(tmp_path: Path) -> None:
    child = files(
        tmp_path,
        child="defaults: parent.yaml\nrun: {data: D:v1}\nl: ['${art:data,path}']\nm: {b: '${.a}'}\n",
        parent="l: [1, 2]\nm: {a: '${art:data,path}', c: 3}\n",
    )
    found = resolved(child)
    assert found["l"] == ["/a/data-v1"]
    assert found["m"] == {"a": "/a/data-v1", "c": 3, "b": "/a/data-v1"}


def test_run_overrides_win_over_what_is_inherited(tmp_path: Path) -> None:
    child = files(tmp_path, child="defaults: parent.yaml\nx: 1\n", parent="run: {data: D:v1}\ny: ${art:data,path}\n")
    found = resolved(child, "run.data=E:v7")
    assert found["run"]["data"] == "E:v7"
    assert found["y"] == "/a/data-v7"


def test_the_environment_may_name_a_parent(tmp_path: Path) -> None:
    child = files(
        tmp_path, child="defaults: ${oc.env:BASE}.yaml\nrun: {data: D:v1}\nx: ${art:data,path}\n", parent="y: 1\n"
    )
    assert resolved(child, BASE="parent") == {"y": 1, "run": {"data": "D:v1"}, "x": "/a/data-v1"}


def test_hydras_defaults_lists_are_left_alone(tmp_path: Path) -> None:
    child = files(tmp_path, child="defaults: [{db: mysql}, _self_]\nrun: {data: D:v1}\nx: ${art:data,path}\n")
    (file,) = render(child).files
    assert "defaults: [{db: mysql}, _self_]\n" in file.text.decode()


@pytest.mark.parametrize(
    ("texts", "found", "line"),
    [
        ({"child": "x: 1\ndefaults: gone.yaml\n"}, "gone.yaml", "child.yaml:2"),
        ({"child": "defaults: a.yaml\n", "a": "x: 1\ndefaults: child.yaml\n"}, "child.yaml -> ", "a.yaml:2"),
        ({"child": "defaults: child.yaml\n"}, "circle", "child.yaml:1"),
        ({"child": "defaults: a.yaml\n", "a": "- 1\n"}, "no mapping", "child.yaml:1"),
        ({"child": "defaults: a.yaml\n", "a": "x: [\n"}, "a.yaml", "a.yaml:2"),
        ({"child": "defaults: ../../../../../../../../../etc/gone.yaml\n"}, "names no file", "child.yaml:1"),
        ({"child": "defaults: '${oc.env:NOWHERE}.yaml'\n"}, "NOWHERE", "child.yaml:1"),
    ],
)
def test_a_bad_chain_is_one_error_with_file_and_line(
    tmp_path: Path, texts: dict[str, str], found: str, line: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        render(files(tmp_path, **texts))
    assert found in str(caught.value)
    assert line in str(caught.value)


@pytest.mark.parametrize(("more", "found"), [(0, None), (1, "more than 1000 files")])
def test_a_thousand_files_are_a_config_and_more_are_one_error(tmp_path: Path, more: int, found: str | None) -> None:
    count = 999 + more
    for number in range(count):
        (tmp_path / f"{number}.yaml").write_text("a: 1\n")
    names = ", ".join(f"{number}.yaml" for number in range(count))
    child = files(tmp_path, child=f"defaults: [{names}]\nrun: {{data: D:v1}}\nx: ${{art:data,path}}\n")
    if found is None:
        assert len(render(child).files) == 1
        return
    with pytest.raises(LaunchError, match=found) as caught:
        render(child)
    assert str(child) in str(caught.value)


@pytest.mark.parametrize(("depth", "found"), [(100, None), (101, "more than 100 files one below another")])
def test_a_chain_of_a_hundred_files_is_followed_and_a_longer_one_is_one_error(
    tmp_path: Path, depth: int, found: str | None
) -> None:
    for number in range(1, depth):
        text = f"defaults: {number + 1}.yaml\n" if number < depth - 1 else "y: ${art:data,path}\n"
        (tmp_path / f"{number}.yaml").write_text(text)
    child = files(tmp_path, child="defaults: 1.yaml\nrun: {data: D:v1}\n")
    if found is None:
        assert len(render(child).files) == depth
        return
    with pytest.raises(LaunchError, match=found) as caught:
        render(child)
    assert str(child) in str(caught.value)
