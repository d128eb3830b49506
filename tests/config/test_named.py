"""`--artifact KEY=REF` and `--artifacts FILE`: which artifacts they name."""

from __future__ import annotations

import pytest

from nemotron_exec.config.named import SETTINGS, named_artifacts, references_of, with_named
from nemotron_exec.errors import LaunchError, UsageError


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "a.yaml").write_text(text)
        return str(tmp_path / "a.yaml")

    return write


def texts(named):
    return {key: node.value for key, node in named.items()}


def test_pairs_are_keys_with_their_references():
    named = named_artifacts(["data=d:v1", " my-model_2 = org/m:latest ", "x=a=b:v1", "data=d:v1"], None)
    assert texts(named) == {"data": "d:v1", "my-model_2": "org/m:latest", "x": "a=b:v1"}
    assert str(named["data"].origin) == "--artifact data"
    assert named["data"].style == '"'  # a text, whatever it looks like


@pytest.mark.parametrize("text", ["data: d:v1\nm: n:v2\n", "run: {data: 'd:v1', m: 'n:v2'}\nother: 1\n"])
def test_a_file_has_them_at_the_top_or_under_run_and_pairs_win(file, text):
    assert texts(named_artifacts([], file(text))) == {"data": "d:v1", "m": "n:v2"}
    assert texts(named_artifacts(["m=o:v3"], file(text))) == {"data": "d:v1", "m": "o:v3"}


def test_a_mapping_of_the_hub_is_a_reference(file):
    named = named_artifacts([], file("m: {hf: org/name, revision: main}\n1: a:v1\n"))
    assert list(named) == ["m", "1"]
    assert references_of(named, {})["m"].store == "huggingface"


NOT_A_PAIR = "it is not KEY=REFERENCE"
WRONG = {
    "data": NOT_A_PAIR,
    "data=": NOT_A_PAIR,
    "data= ": NOT_A_PAIR,
    "=d:v1": NOT_A_PAIR,
    "1x=d:v1": NOT_A_PAIR,
    "a.b=d:v1": NOT_A_PAIR,
    **{f"{key}=d:v1": f"{key!r} is a setting of run, not an artifact" for key in SETTINGS},
}


@pytest.mark.parametrize("pair", WRONG)
def test_what_names_none_is_an_error_of_use(pair):
    with pytest.raises(UsageError) as caught:
        named_artifacts([pair], None)
    assert caught.value.wanted == f"name an artifact by --artifact {pair}"
    assert caught.value.found == WRONG[pair]


def test_two_references_for_one_key_are_one():
    with pytest.raises(UsageError) as caught:
        named_artifacts(["data=d:v1", "data=d:v2"], None)
    assert caught.value.wanted == "name an artifact by --artifact data=d:v2"
    assert caught.value.found == "another --artifact says data=d:v1"


def test_which_keys_are_settings():
    assert set(SETTINGS) == {"env", "wandb", "outputs", "on_checkpoint", "publish", "checkpoints"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- a\n", "it is no mapping"),
        ("run: [a]\n", "it is no mapping"),
        ("wandb: {project: p}\n", "wandb is a setting of run"),
        ("checkpoints: last\n", "checkpoints is a setting of run"),
        ("data: [a]\n", "data is no reference"),
        ("data: {name: a}\n", "data is no reference"),
    ],
)
def test_a_file_with_anything_else_is_an_error(file, text, found):
    path = file(text)
    with pytest.raises(LaunchError) as caught:
        named_artifacts([], path)
    assert f"to read the artifacts of --artifacts {path}" in caught.value.wanted
    assert caught.value.found == found


def test_a_reference_is_read_and_a_bad_one_refused():
    found = references_of(named_artifacts(["data=d:3", "x=${oc.env:NAME}:v1"], None), {"NAME": "n"})
    assert [(key, one.name, one.alias, one.optional) for key, one in found.items()] == [
        ("data", "d", "v3", False),
        ("x", "n", "v1", False),
    ]
    with pytest.raises(LaunchError, match="--artifact x"):
        references_of(named_artifacts(["x=a:b:c:d"], None), {})


def test_they_count_as_keys_of_run():
    assert with_named({"run": {"a": 1, "b": 2}, "c": 3}, {"a": 9}) == {"run": {"a": 9, "b": 2}, "c": 3}
    assert with_named({"c": 3}, {"a": 9}) == {"c": 3, "run": {"a": 9}}
    assert with_named({"run": [1]}, {"a": 9}) == {"run": {"a": 9}}
    assert with_named([1], {"a": 9}) == [1]
    for nothing in (None, {}):
        assert with_named({"c": 3}, nothing) == {"c": 3}
