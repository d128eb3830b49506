"""The arguments of a resolver: scalars, lists, mappings, and invalid ones."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.errors import LaunchError

DATA = Artifact(
    "data", "d:latest", "manifest", "d", "v3", "dataset", "/a", "d:v3", iteration=10, metadata={"pack_size": 4096}
)
HEAD = "run: {data: 'd:latest'}\nmapping: {a: 1}\nlist: [1, 2]\nnumber: 1\nsizes: {/a: 7, data: 8}\n"


def resolved(path, expression):
    """The value of `x` in the job's config."""
    path.write_text(f"{HEAD}x: {expression}\n")
    config = read(
        [ConfigArgument(1, "", str(path), explicit=True)],
        [],
        environ={},
        run_wandb=Injected(None, None),
        resolve="artifacts",
    )
    artifacts = {reference.key: DATA for reference in config.references}
    rendered = config.render(artifacts, directory=str(path.parent / "out"), header=Header("2026-03-11T10:00:00+00:00"))
    if not rendered.files:
        return expression
    return OmegaConf.to_container(OmegaConf.create(rendered.files[0].text.decode()), resolve=False)["x"]


@pytest.mark.parametrize(
    "expression",
    [
        "${mul:${mapping},2}",
        "${mul:${list},${art:data,pack_size}}",
        "${art:${list},path}",
        "${art:${mapping}}",
        "${manifest:${mapping},x}",
        "${manifest:${list},x}",
        "${sizes.${mapping}}",
        "${sizes.${number}}",
        "${own_${list}:1}",
    ],
)
def test_a_collection_of_the_config_is_left_to_the_job(tmp_path, expression):
    kept = expression.replace("${art:data,pack_size}", "4096")
    assert resolved(tmp_path / "cfg.yaml", expression) in (expression, kept)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("${mul:[1],2}", [1, 1]),
        ("${mul:2,[1]}", [1, 1]),
        ("${add:[1],[2]}", [1, 2]),
        ("${mul:${art:data,pack_size},2}", 8192),
        ("${mul:ab,2}", "abab"),
    ],
)
def test_a_list_that_is_written_out_is_a_list(tmp_path, expression, value):
    assert resolved(tmp_path / "cfg.yaml", expression) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("${own:[${art:data,path},1],x}", '${own:["/a",1],x}'),
        ("${own:{k: [${art:data,pack_size}]}}", "${own:{k: [4096]}}"),
        ("${own:[[${art:data,path}/x]]}", '${own:[["/a/x"]]}'),
    ],
)
def test_an_artifact_inside_a_list_or_a_mapping_of_another_resolver_is_filled_in(tmp_path, expression, value):
    assert resolved(tmp_path / "cfg.yaml", f"'{expression}'") == value


@pytest.mark.parametrize(
    ("expression", "value"), [("${sizes.${art:data,path}}", 7), ("${sizes.${art:data,path}}0", "70")]
)
def test_a_key_that_an_artifact_names_is_looked_up(tmp_path, expression, value):
    assert resolved(tmp_path / "cfg.yaml", expression) == value


@pytest.mark.parametrize("expression", ["${mul:[1],1000000000}", "${mul:1000000000,ab}", "${mul:1,2,3}", "${add:1}"])
def test_what_would_fill_the_memory_or_is_no_call_is_left_to_the_job(tmp_path, expression):
    assert resolved(tmp_path / "cfg.yaml", expression) == expression


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("${art:[data],path}", r"there is no artifact"),
        ("${art:data,[path]}", r"has no field \"\['path'\]\""),
        ("${add:${art:data,pack_size},[1]}", "TypeError"),
        ("${add:[${art:data,pack_size}],1}", "TypeError"),
        ("${add:'size ${art:data,pack_size}',1}", "TypeError"),
        ("${art:${sizes.${number}},path}", "an interpolation inside a name gives no string"),
        ("${art:${mul:x,y},path}", "mul fails: "),
        ("${art:data,path,more}", "art takes NAME and FIELD, here are 3 arguments"),
        ("${manifest:/nowhere}", "manifest takes DIRECTORY and KEY, here are 1 arguments"),
    ],
)
def test_a_call_that_cannot_be_meant_is_one_error(tmp_path, expression, found):
    with pytest.raises(LaunchError, match=found) as caught:
        resolved(tmp_path / "cfg.yaml", expression)
    assert "cfg.yaml:6" in str(caught.value)
