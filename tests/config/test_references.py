"""Which keys of `run` name artifacts, what is wrong with those that do not, and what a config says elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config import files, foreign, inherit
from nemotron_exec.config.config import read
from nemotron_exec.config.evaluate import Evaluator
from nemotron_exec.config.files import Header
from nemotron_exec.config.hub_ids import _kind_of
from nemotron_exec.config.inherit import load_layers, merge_layers
from nemotron_exec.config.references import may_be_reference, reference_in
from nemotron_exec.config.root import plain_value
from nemotron_exec.config.run_section import Injected
from nemotron_exec.document.parse import parse_text
from nemotron_exec.errors import LaunchError


@pytest.fixture
def config(tmp_path):
    def make(*texts, words=(), **more):
        arguments = []
        for number, text in enumerate(texts):
            path = tmp_path / f"c{number}.yaml"
            path.write_text(text)
            arguments.append(ConfigArgument(number + 1, "", str(path), explicit=True))
        overrides = parse_overrides(words, len(texts) + 1)
        given = {"environ": {}, "run_wandb": Injected(), "resolve": "artifacts", **more}
        return read(arguments, overrides, **given)

    return make


#  value of run.KEY, the key: whether it is a reference where nothing uses it, and then an optional one
VALUES = {
    ("b:v1", "data"): (True, False),
    ("b", "data"): (False, False),
    ("${oc.env:NAME}:v1", "data"): (True, False),
    ("${oc.env:OTHER}", "data"): (False, False),
    ("${oc.env:GONE}", "data"): (False, False),
    ("head:6379", "addr"): (False, False),
    ("head:6379", "data"): (True, True),
    ("head:6379", "my_endpoint"): (False, False),
    ("b:latest", "host"): (True, True),
    ("1", "data"): (False, False),
    ("org/name", "data"): (False, False),
    ("hf://org/name", "data"): (True, False),
}


@pytest.mark.parametrize(("value", "key"), VALUES)
def test_what_names_an_artifact_where_nothing_uses_it(value, key):
    node = parse_text(f"x: '{value}'", "c.yaml").tree()["x"]
    known = Evaluator({}, None, environ={"NAME": "n", "OTHER": "text"})
    found = reference_in(key, node, {}, known)
    is_reference, optional = VALUES[value, key]
    assert (found is not None) is is_reference
    if found is not None:
        if optional:
            assert found.optional in (True, False)
        else:
            assert not found.optional
        # What is used is an artifact, whatever it looks like, and never an optional one.
        assert not reference_in(key, node, {key: node}, known).optional


@pytest.mark.parametrize(
    ("text", "expected"),
    [("x", True), ("{hf: a/b}", True), ("{a: b}", False), ("[hf]", False), ("5", True)],
)
def test_what_may_be_a_reference(text, expected):
    assert may_be_reference(parse_text(f"x: {text}", "c.yaml").tree()["x"]) is expected


ADD = "Add `run: {data: NAME:latest}` to the config, or give --artifact data=NAME:latest"
#  config: what is wrong with ${art:data}, and what to do
WRONG = {
    "x: ${art:data}\n": ("the config has no section `run`", ADD),
    "run: {}\nx: ${art:data}\n": ("there is no artifact 'data' under run", "Keys under run: none"),
    "run: {dat: 'b:v1', env: {}, wandb: {}}\nx: ${art:data}\n": (
        "there is no artifact 'data' under run", "Did you mean dat? Keys under run: dat"),
    "run: {data: {name: b}}\nx: ${art:data}\n": (
        "run.data (c0.yaml:1) is a mapping, and an artifact is one text", "Write `data: b:latest`"),
    "run: {data: {name: 'b:v1'}}\nx: ${art:data}\n": (
        "run.data (c0.yaml:1) is a mapping, and an artifact is one text", "Write `data: b:v1`"),
    "run: {data: {x: b}}\nx: ${art:data}\n": (
        "run.data (c0.yaml:1) is a mapping, and an artifact is one text", "Write `data: NAME:latest`"),
    "run: {data: {name: [b]}}\nx: ${art:data}\n": (
        "run.data (c0.yaml:1) is a mapping, and an artifact is one text", "Write `data: NAME:latest`"),
    "run: {data: {name: ''}}\nx: ${art:data}\n": (
        "run.data (c0.yaml:1) is a mapping, and an artifact is one text", "Write `data: NAME:latest`"),
    "run: {data: [b]}\nx: ${art:data}\n": (
        "run.data (c0.yaml:1) is a list, and an artifact is one text", "Write `data: b:latest`"),
    "run: {data: []}\nx: ${art:data}\n": (
        "run.data is a list, and an artifact is one text", "Write `data: NAME:latest`"),
    "run: {data: ' '}\nx: ${art:data}\n": ("it is ' '", "Write name:version"),
    "run: {data: 5}\nx: ${art:data}\n": ("it is 5", "Write name:version"),
    "run: {d: 'b:v1'}\nx: ${art:d} ${art:data}\n": (
        "there is no artifact 'data' under run", "Keys under run: d"),
    "run: {env: {}}\nx: ${art:env}\n": ("there is no artifact 'env' under run", "Keys under run: none"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_an_artifact_that_is_none_is_told(config, text, tmp_path):
    with pytest.raises(LaunchError) as caught:
        config(text)
    found, remedy = WRONG[text]
    assert caught.value.found.replace(f"{tmp_path}/", "") == found
    assert caught.value.remedy == remedy


def test_of_two_configs_all_keys_count_and_two_versions_of_one_do_not(config):
    found = config("run: {a: 'x:v1', n: 1}\n", "run: {b: 'y:v1', a: 'x:v1', n: 2}\nx: ${art:a}\n")
    assert [one.key for one in found.references] == ["a", "b"]
    assert found.run == {"a": "x:v1", "n": 2, "b": "y:v1"}
    for first, other in (("v1", "v2"), ("v2", "v1")):
        with pytest.raises(LaunchError, match="to be one artifact"):
            config(f"run: {{a: 'x:{first}'}}\n", f"run: {{a: 'x:{other}'}}\n")


def test_what_an_expression_may_mean_in_the_job_counts_as_used(config):
    text = "run: {a: x, b: y, c: {k: 1}}\nname: a\nx: ${art:${name}}\n"
    assert config(text).references[0].key == "a"
    assert [one.key for one in config(text, words=["name=b"]).references] == ["b"]
    assert config(text, words=["name=c"]).references == ()
    text = "run: {a: x, b: y}\nx: ${art:${oc.env:WHICH}}\n"
    assert [one.key for one in config(text, environ={"WHICH": "b"}).references] == ["b"]
    with pytest.raises(LaunchError, match="to name an artifact"):
        config("run: {a: '', b: y}\nx: ${art:${name}}\n", words=["name=a"])


def test_an_expression_of_the_command_uses_a_key_as_one_of_the_config_does(config):
    assert [one.key for one in config("run: {a: x, b: y}\n", words=["z=${art:b}/c"]).references] == ["b"]
    assert config("run: {a: x, b: y}\n", words=["z=${art:b"]).references == ()
    with pytest.raises(LaunchError, match="there is no artifact 'c' under run"):
        config("run: {a: x}\n", words=["y=${art:a}", "z=${art:c}"])


def test_the_keys_of_wandb_that_nothing_names(config):
    text = "run: {}\nx: ${run.wandb.project} ${run.wandb.entity}\n"
    assert config(text, run_wandb=Injected(null=True)).empty_wandb == ["run.wandb.project", "run.wandb.entity"]
    assert config(text, run_wandb=Injected("p", null=True)).empty_wandb == ["run.wandb.entity"]
    assert config(text, run_wandb=Injected("p", "e", null=True)).empty_wandb == []
    assert config(text).empty_wandb == []
    assert config("run: {}\n", run_wandb=Injected(null=True)).empty_wandb == []


SAVED = "checkpoint: {save: /a}\nartifacts: {manifest: {root: /r}}\n"


def test_where_a_config_saves_and_keeps_its_artifacts(config):
    found = config(SAVED)
    assert (found.save_directory, found.artifacts_root) == ("/a", "/r")
    assert config(SAVED, "checkpoint: {save: /b}\n").save_directory == "/b"
    assert config(SAVED, words=["checkpoint.save=/c"]).save_directory == "/c"
    assert config(SAVED, words=["checkpoint.save=/c", "checkpoint.save=/d"]).save_directory == "/d"
    for other in ("checkpoint.save=", "checkpoint.save=5", "checkpoint.save=${x}", "checkpoint.save=[a]"):
        assert config(SAVED, words=[other]).save_directory is None
    assert config(SAVED, words=["~checkpoint.save"]).save_directory in ("/a", None)
    assert config("checkpoint: {save: 5}\n").save_directory is None


#  path: what a key says about its value
KINDS = {
    ("model_name",): "model",
    ("policy", "model_name"): "model",
    ("tokenizer", "name"): "model",
    ("model", "path"): "model",
    ("hf_model_path",): "model",
    ("dataset_name",): "dataset",
    ("data", "name"): "dataset",
    ("dataset", "path"): "dataset",
    ("path_or_dataset_id",): "dataset",
    ("name",): None,
    ("x", "name"): None,
    ("model", "x", "name"): None,
    ("model", "output_dir"): None,
    ("repo_id", "model_dir"): None,
    ("model_dir", "repo_id"): "model",
    ("model", "type"): None,
    ("model", "size"): None,
    ("model_size",): "model",
    ("data", "model_name"): "model",
    ("pretrained_model_name_or_path",): "model",
    ("repo_id",): "model",
    ("models", 0): "model",
    ("data", 0, "name"): "dataset",
    ("HFModel",): "model",
    ("modelName",): "model",
    (0,): None,
    (): None,
    ("save_path",): None,
    ("path",): None,
}


@pytest.mark.parametrize("path", KINDS)
def test_what_a_key_says_about_its_value(path):
    assert _kind_of(path) == KINDS[path]


def test_a_repository_whose_name_only_the_job_knows_is_of_the_kind_that_its_key_says(config):
    found = config("run: {}\nx: 'hf://${oc.env:N}'\ndataset_name: '${oc.env:D}'\n").hub_ids({})
    assert [(one.key, one.kind, one.known) for one in found] == [
        ("x", "model", False),
        ("dataset_name", "dataset", False),
    ]


#  content: a template, a config that was meant for the launcher
CONTENTS = {
    "{{ x }}": (True, False),
    "{% if x %}": (True, False),
    "[[ .x ]]": (True, False),
    "%(x)s": (True, False),
    "<% x %>": (True, False),
    "@x@": (True, False),
    "x: 1": (False, False),
    "run:\n  a: b": (False, True),
    "run: # c\n": (False, True),
    "{run: {a: b}": (False, True),
    "'run' : {a: [": (False, True),
    "run: x": (False, False),
    "run: {{ x }}": (True, False),
    "x: ${art:a": (False, True),
    "x: ${run.a}": (False, True),
    "x: ${run['a']}": (False, True),
    "x: ${running}": (False, False),
    "\r\nrun:\r\n": (False, True),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_a_file_that_is_no_yaml_was_meant_for(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content.encode())
    assert (foreign.is_template(str(path)), foreign.would_be_a_config(str(path))) == CONTENTS[content]
    gone = str(tmp_path / "gone.yaml")
    assert (foreign.is_template(gone), foreign.would_be_a_config(gone)) == (False, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run: {a: 1}", True),
        ("run: {}", True),
        ("run: x", False),
        ("x: ${art:a}", True),
        ("x: ${run.a}", True),
        ("x: /nemo_run/a", True),
        ("x: 1", False),
        ("[run]", False),
        ("defaults: parent.yaml", True),
    ],
)
def test_which_files_count(tmp_path, text, expected):
    (tmp_path / "parent.yaml").write_text("run: {a: 1}\n")
    (tmp_path / "c.yaml").write_text(text)
    assert foreign.counts(load_layers(str(tmp_path / "c.yaml"), {})) is expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [("run: {a: '{{ x }}:v1'}", True), ("run: {a: 'b'}", False), ("run: {a: [1]}", False), ("run: x", False),
     ("[x]", False), ("run: {a: '{% x %}'}", True), ("run: {a: 'run {{ x }} now'}", False)],
)  # fmt: skip
def test_a_template_in_the_run_section(tree, expected):
    assert foreign.has_template_in_run(parse_text(tree, "c.yaml").tree()) is expected


def test_a_chain_of_files_is_merged_as_its_children_say(tmp_path):
    for name, text in {
        "a.yaml": "defaults: [b.yaml, sub/c.yaml]\nx: {own: 1}\nm: '???'\nl: [1]\n",
        "b.yaml": "x: {b: 1, own: 0}\nm: b\ny: {k: 1}\n",
        "sub/c.yaml": "defaults: ../d.yaml\nx: {c: 1, b: 2}\nl: [2, 3]\n",
        "d.yaml": "x: {d: 1}\ny: {_override_: true, z: 1}\nw: {_override_: false, v: 1}\nu: {_override_: !!int x}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    layer = load_layers(str(tmp_path / "a.yaml"), {})
    tree = merge_layers(layer).tree
    plain = Evaluator(tree, None)
    assert plain_value(tree, (), plain) == {
        "x": {"b": 2, "own": 1, "d": 1, "c": 1},
        "m": "b",
        "y": {"k": 1, "z": 1},
        "w": {"_override_": False, "v": 1},
        "u": {"_override_": "x"},  # no bool, and no error of the launcher
        "l": [1],
    }
    names = [os.path.relpath(document.path, tmp_path) for document in inherit.documents_of(layer)]
    assert names == ["a.yaml", "b.yaml", "sub/c.yaml", "d.yaml"]


@pytest.mark.parametrize(
    ("base", "merged", "uncertain"),
    [
        ("{y: 1}", {"y": 1, "x": 1}, set()),
        ("${b}", {"z": 1, "x": 1}, set()),
        ("${f:1}", {"x": 1}, {("a",)}),
        ("${gone}", {"x": 1}, {("a",)}),
        ("${c}", {"x": 1}, set()),
        ("text", {"x": 1}, set()),
    ],
)
def test_a_mapping_over_an_interpolation_is_merged_into_what_that_leads_to(tmp_path, base, merged, uncertain):
    (tmp_path / "p.yaml").write_text(f"a: {base}\nb: {{z: 1}}\nc: 5\n")
    (tmp_path / "c.yaml").write_text("defaults: p.yaml\na: {x: 1}\n")
    found = merge_layers(load_layers(str(tmp_path / "c.yaml"), {}))
    assert plain_value(found.tree["a"], ("a",), Evaluator(found.tree, None)) == merged
    assert found.uncertain == uncertain


def test_a_value_that_cannot_be_resolved_stays_text_in_plain_data():
    tree = parse_text("a: ['${art:x,y,z}', '${n}', {b: 1}]\nn: 2\n", "c.yaml").tree()
    assert plain_value(tree, (), Evaluator(tree, {})) == {"a": ["${art:x,y,z}", 2, {"b": 1}], "n": 2}


def test_links_to_what_stands_beside_a_config(tmp_path, monkeypatch):
    for name in ("conf/a.yaml", "conf/b.yaml", "conf/data/x", "deep/c.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x: 1\n")
    new = str(tmp_path / "new")
    a = files.RenderedFile(str(tmp_path / "conf/a.yaml"), f"{new}/a.yaml", b"")
    c = files.RenderedFile(str(tmp_path / "gone/c.yaml"), f"{new}/parents/c.yaml", b"")
    resolved = {a.original: a.path, str(tmp_path / "conf/b.yaml"): f"{new}/other/b.yaml"}
    expected = [(f"{new}/b.yaml", f"{new}/other/b.yaml"), (f"{new}/data", str(tmp_path / "conf/data"))]
    assert files.sibling_links([a, c], resolved, {new}) == expected
    assert files.sibling_links([c, a], resolved, {new}) == expected
    monkeypatch.setattr(files, "_MAX_SIBLINGS", 3)
    assert files.sibling_links([a], resolved, {new}) == expected
    monkeypatch.setattr(files, "_MAX_SIBLINGS", 2)
    assert files.sibling_links([a], resolved, {new}) == []


def test_paths_of_the_job_are_translated_where_the_user_wrote_them(config):
    text = "run: {a: b}\nx: /old/x\ny: '/old'\nn: 5\nz: [/old/z, other]\nb: |\n  /old/a\n"
    found = config(text).render(
        {}, directory="/nowhere", header=Header("now"), translate=lambda text: text.replace("/old", "/new")
    )
    assert found.files[0].text.decode().endswith(text.replace("/old", "/new"))
    assert config(text).render({}, directory="/n", header=Header("now"), translate=str).files == ()
    # A file that it inherits from is translated as well.
    Path(found.files[0].original).with_name("p.yaml").write_text("x: /old/x\n")
    inherits = config("defaults: p.yaml\nrun: {a: b}\n").render(
        {}, directory="/nowhere", header=Header("now"), translate=lambda text: text.replace("/old", "/new")
    )
    assert [file.text.decode().splitlines()[-1] for file in inherits.files] == ["run: {a: b}", "x: /new/x"]
    # What is translated needs no artifact, and what needs none is not translated.
    assert config("x: 1\n").render({}, directory="/n", header=Header("now"), translate=str.upper).files == ()
