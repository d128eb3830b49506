"""The section `run:` of the resolved text: overrides and `run.wandb` are written into whatever form it has."""

from __future__ import annotations

import copy

import pytest
import yaml

from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.errors import LaunchError

FORMS = {
    "block": "run:\n  data: a:v1\n  env: {x: 1}\nz: 1\n",
    "flow": "run: {data: a:v1, env: {x: 1}}\nz: 1\n",
    "a key alone": "run: {data}\nz: 1\n",
    "a question mark in braces": "run: {? data}\nz: 1\n",
    "a question mark in a block": "run:\n  ? data\nz: 1\n",
    "question marks": "? run\n: ? data\n  ? env\n  : {x: 1}\nz: 1\n",
    "one key": "run:\n  data: a:v1\nz: 1\n",
    "no value": "run:\n  data:\n  env:\n    x: 1\nz: 1\n",
    "a block scalar": "run:\n  data: |\n    a:v1\nz: 1\n",
    "block scalars": "run:\n  env: |+\n    a\n\n  data: >\n    a:v1\nz: 1\n",
    "a list beside its key": "run:\n  env: {x: 1}\n  data:\n  - command: a\n    when: all\nz: 1\n",
    "a list below its key": "run:\n  data:\n    - a\n  env: {x: 1}\nz: 1\n",
    "nothing": "run:\nz: 1\n",
    "null": "run: null\nz: 1\n",
    "none": "z: 1\n",
    "an alias": "base: &b {data: a:v1, env: {x: 1}}\nrun: *b\nz: 1\n",
    "an alias below": "base: &b {x: 1}\nrun: {data: a:v1, env: *b}\nz: 1\n",
    "an anchor that is used": "run: {shared: &e {x: 1}, data: a:v1}\nz: *e\n",
    "a merge": "base: &b {data: a:v1, env: {x: 1}}\nrun:\n  <<: *b\nz: 1\n",
    "a merge of the whole": "<<: {run: {data: a:v1, env: {x: 1}}}\nz: 1\n",
    "a merge below": "base: &b {x: 1}\nrun: {env: {<<: *b, y: 2}, data: a:v1}\nz: 1\n",
    "what an artifact fills in": "run: {data: a:v1, env: {x: '${mul:2,3}'}, note: '${mul:2,3}'}\nz: 1\n",
    "twice": "run: {data: a:v1, data: b:v1}\nz: 1\n",
    "CRLF": "run:\r\n  data: |\r\n    a:v1\r\nz: 1\r\n",
    "the end of the file": "z: 1\nrun:\n  data: a:v1",
}
WORDS = {
    "run.data=c:v2": lambda run: run.update(data="c:v2"),
    "++run.data=c:v2": lambda run: run.update(data="c:v2"),
    "run.data=": lambda run: run.update(data=""),
    "run.data=null": lambda run: run.update(data=None),
    "run.data={k: [1, b]}": lambda run: run.update(data={"k": [1, "b"]}),
    "run.env.x=2": lambda run: run.update(env={**(run.get("env") if isinstance(run.get("env"), dict) else {}), "x": 2}),
    "run.env={y: 2}": lambda run: run.update(env={"y": 2}),
    "run.env=": lambda run: run.update(env=""),
    "~run.env": lambda run: run.pop("env", None),
    "+run.more=1": lambda run: run.update(more=1),
    "run.new.key=1": lambda run: run.update(new={"key": 1}),
    "~run.data": lambda run: run.pop("data", None),
}


def known(value):
    """What arithmetic becomes."""
    if isinstance(value, dict):
        return {key: known(inner) for key, inner in value.items()}
    return 6 if value == "${mul:2,3}" else value


def resolved(path, word, wandb=Injected()):  # noqa: B008  # frozen
    config = read(
        [ConfigArgument(1, "", str(path), explicit=True)],
        parse_overrides([word] if word else [], 2),
        environ={},
        run_wandb=wandb,
        resolve="artifacts",
    )
    rendered = config.render({}, directory="/nowhere", header=Header("now"))
    assert rendered.dropped == ({2} if word else set())
    return rendered.files[0].text.decode() if rendered.files else path.read_text()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", FORMS)
def test_an_override_of_run_is_written_into_every_form_of_the_section(tmp_path, form, word):
    path = tmp_path / "cfg.yaml"
    path.write_bytes(FORMS[form].encode())
    before = yaml.safe_load(FORMS[form])
    before = {**before, "run": known(before.get("run"))} if "run" in before else before
    expected = copy.deepcopy(before)  # an alias has nothing to do with its anchor any more
    if not (word.startswith("~") and not before.get("run")):
        expected["run"] = copy.deepcopy(before.get("run")) or {}
        WORDS[word](expected["run"])
    found = yaml.load(resolved(path, word), Loader=yaml.CSafeLoader)
    assert found == expected


@pytest.mark.parametrize("form", FORMS)
def test_run_wandb_is_written_into_every_form_of_the_section(tmp_path, form):
    path = tmp_path / "cfg.yaml"
    path.write_bytes((FORMS[form] + "\nw: ${run.wandb.project}\n").encode())
    before = yaml.safe_load(path.read_text())
    before = {**before, "run": known(before.get("run"))} if "run" in before else before
    expected = {**before, "run": {"wandb": {"project": "p", "entity": "e"}, **(before.get("run") or {})}}
    assert yaml.safe_load(resolved(path, None, Injected("p", "e"))) == {**expected, "w": "p"}


@pytest.mark.parametrize("word", ["run.env.x=2", "run.env=", "~run.env", "run.env.new=1"])
def test_an_override_of_what_an_anchor_gives_to_others_too_is_one_clear_error(tmp_path, word):
    path = tmp_path / "cfg.yaml"
    path.write_text("run:\n  env: &e {x: 1}\nz: *e\n")
    with pytest.raises(LaunchError) as caught:
        resolved(path, word)
    assert f"to apply the override {word} ({path}:2)" in caught.value.wanted
    assert "run.env has an anchor" in caught.value.found


def test_the_error_about_an_anchor_names_the_line_of_the_key(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text("run:\n  env:\n    &e {x: 1}\nz: *e\n")
    with pytest.raises(LaunchError) as caught:
        resolved(path, "run.env.x=2")
    assert f"({path}:2)" in caught.value.wanted


@pytest.mark.parametrize("given", ["{project: own}", "{entity: own}", "{project: own, entity: own}", "{}"])
def test_run_wandb_that_an_alias_brings_in_keeps_its_keys(tmp_path, given):
    path = tmp_path / "cfg.yaml"
    path.write_text(f"base: &b {{wandb: {given}, data: a:v1}}\nrun: *b\nw: '${{run.wandb.project}}'\n")
    before = yaml.safe_load(path.read_text())
    found = yaml.safe_load(resolved(path, None, Injected("p", "e")))
    expected = {"project": "p", "entity": "e", **yaml.safe_load(given)}
    assert found == {"base": before["base"], "run": {"wandb": expected, "data": "a:v1"}, "w": expected["project"]}


def test_of_two_overrides_the_one_about_the_whole_has_what_the_other_says(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text("run: {env: {x: 1, y: 1}}\n")
    words = {("run.env={z: 3}", "run.env.x=2"): {"z": 3, "x": 2}, ("run.env.x=2", "run.env={z: 3}"): {"z": 3}}
    words["~run.env", "run.env.x=2"] = {"x": 2}
    for word, expected in words.items():
        config = read(
            [ConfigArgument(1, "", str(path), explicit=True)],
            parse_overrides(word, 2),
            environ={},
            run_wandb=Injected(),
            resolve="artifacts",
        )
        (file,) = config.render({}, directory="/nowhere", header=Header("now")).files
        assert yaml.safe_load(file.text)["run"] == {"env": expected}
