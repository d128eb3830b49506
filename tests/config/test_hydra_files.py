"""The files of a Hydra config: which may be merged, which are looked at, and the words that name the directory."""

from __future__ import annotations

import os

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.read import read
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config import config as config_module
from nemotron_exec.config import hydra
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.document.parse import load
from nemotron_exec.errors import LaunchError

FILES = {
    "config.yaml": "defaults: [{model: big}, {optional data@x: '${name}'}, /opt/sub/adam, _self_]\nx: ${art:a}\n",
    "top.yaml": "run: {a: 'b:v1'}\n",
    "other.yaml": "run: {a: 'c:v1'}\n",
    "model/big.yaml": "defaults: [../shared/base, part/one]\nrun: {c: 'd:v1'}\n",
    "model/small.yaml": "y: ${art:a}\n",
    "model/part/one.yaml": "z: ${art:a}\n",
    "data/one.yaml": "y: ${art:a}\n",
    "data/two.yml": "# @package _global_\nrun: {}\n",
    "opt/sub/adam.yaml": "lr: 1\n",
    "opt/plain.yaml": "lr: ${x}\n",
    ".hidden/run.yaml": "run: {}\n",
    "__pycache__/run.yaml": "run: {}\n",
    "notes.txt": "run: {}\n",
}


@pytest.fixture
def conf(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.yaml").mkdir()
    return tmp_path


def argument(conf, **more):
    return ConfigArgument(1, "", str(conf / "config.yaml"), hydra=1, directory=str(conf), **more)


def names(conf, paths):
    return [path[len(str(conf)) + 1 :] for path in paths]


def test_the_files_that_may_name_an_artifact(conf):
    found = hydra.group_files(str(conf), str(conf / "config.yaml"))
    assert names(conf, [document.path for document in found]) == [
        "other.yaml",
        "top.yaml",
        "data/one.yaml",
        "data/two.yml",
        "model/big.yaml",
        "model/small.yaml",
        "model/part/one.yaml",
    ]


def test_a_directory_with_more_files_than_any_config_is_one_error(conf, monkeypatch):
    files = sum(name.endswith((".yaml", ".yml")) for name in FILES) - 3  # without the primary one and two hidden
    monkeypatch.setattr(hydra, "_MAX_FILES", files)
    assert len(hydra.group_files(str(conf), str(conf / "config.yaml"))) == 7
    monkeypatch.setattr(hydra, "_MAX_FILES", files - 1)
    with pytest.raises(LaunchError) as caught:
        hydra.group_files(str(conf), str(conf / "config.yaml"))
    assert caught.value.found == f"there are more than {files - 1} YAML files in it"
    # A directory that holds a whole project is not walked to its end.
    monkeypatch.setattr(hydra, "_MAX_LOOKED_AT", 3)
    assert len(hydra.group_files(str(conf), str(conf / "config.yaml"))) == 2


#  words: the groups at the top that they select
CHOSEN = {
    "": [],
    "+x=top": ["top.yaml"],
    "+x=top,other": ["other.yaml", "top.yaml"],
    "+x=choice(top)": ["top.yaml"],
    "++x=top": ["top.yaml"],
    "x=top": [],
    "+x=big": [],
    "+x=two": ["data/two.yml"],
    "data=two": ["data/two.yml"],
    "data=one": [],
    "data@_global_=one": ["data/one.yaml", "model/big.yaml", "model/part/one.yaml"],
    "+x@_global_=small": ["data/one.yaml", "model/big.yaml", "model/small.yaml", "model/part/one.yaml"],
    "~x": [],
}


@pytest.mark.parametrize("words", CHOSEN)
def test_the_groups_at_the_top_that_the_command_selects(conf, words):
    (conf / "config.yaml").write_text("defaults: [{model: big}, {data: one}]\nx: 1\n")
    primary = load(str(conf / "config.yaml"))
    groups = hydra.group_files(str(conf), primary.path)
    found = hydra.chosen_globally(argument(conf), primary, groups, parse_overrides(words.split()))
    assert names(conf, [document.path for document in found]) == CHOSEN[words]


#  the defaults list of the primary config: the groups at the top that it selects
LISTS = {
    "[top]": ["top.yaml"],
    "[top, other]": ["other.yaml", "top.yaml"],
    "[{'': top}]": ["top.yaml"],
    "[{data: two}]": ["data/two.yml"],
    "[{data: [one, two]}]": ["data/two.yml"],
    "[{data: '${n}'}]": ["other.yaml", "top.yaml", "data/two.yml"],
    "[{data@_global_: one}]": ["data/one.yaml"],
    "[{data: one@_global_}]": ["data/one.yaml"],
    "[top@x]": ["top.yaml"],
    "[x@top]": [],
    "top": [],
    "[{data: {one: 1}}]": [],
}


@pytest.mark.parametrize("text", LISTS)
def test_the_groups_at_the_top_that_a_defaults_list_selects(conf, text):
    (conf / "config.yaml").write_text(f"defaults: {text}\nx: 1\n")
    for name in ("model/big.yaml", "model/part/one.yaml"):
        (conf / name).write_text("x: 1\n")
    primary = load(str(conf / "config.yaml"))
    groups = hydra.group_files(str(conf), primary.path)
    found = hydra.chosen_globally(argument(conf), primary, groups, ())
    assert names(conf, [document.path for document in found]) == LISTS[text]


#  words: the files that are looked at
NEAR = {
    "": ["config.yaml", "model/big.yaml", "data/one.yaml", "data/two.yml", "opt/sub/adam.yaml", "model/part/one.yaml"],
    "model=small": ["config.yaml", "model/small.yaml", "data/one.yaml", "data/two.yml", "opt/sub/adam.yaml"],
    "~model": ["config.yaml", "data/one.yaml", "data/two.yml", "opt/sub/adam.yaml"],
    "+model=small": ["config.yaml", "model/small.yaml", "model/big.yaml", "data/one.yaml", "data/two.yml",
                     "opt/sub/adam.yaml", "model/part/one.yaml"],
    "model=small,big.yaml": ["config.yaml", "model/small.yaml", "model/big.yaml", "data/one.yaml", "data/two.yml",
                             "opt/sub/adam.yaml", "model/part/one.yaml"],
    "data=glob(*)": ["config.yaml", "data/one.yaml", "data/two.yml", "model/big.yaml", "opt/sub/adam.yaml",
                     "model/part/one.yaml"],
    "data=": ["config.yaml", "model/big.yaml", "opt/sub/adam.yaml", "model/part/one.yaml"],
    "gone=*": ["config.yaml", "model/big.yaml", "data/one.yaml", "data/two.yml", "opt/sub/adam.yaml",
               "model/part/one.yaml"],
}  # fmt: skip


@pytest.mark.parametrize("words", NEAR)
def test_the_files_that_the_command_and_its_defaults_lists_select(conf, words):
    found = hydra.near_files(argument(conf), parse_overrides(words.split()))
    assert names(conf, [path for path, _ in found]) == NEAR[words]
    assert all(text == FILES[name] for name, (_, text) in zip(NEAR[words], found, strict=True))


def test_an_entry_of_a_list_that_names_nothing_hides_none_of_the_others(conf):
    (conf / "config.yaml").write_text("defaults: [{data: [[x], two]}, {model: small}]\n")
    (conf / "data" / "two.yaml").write_text("x: 1\n")
    found = hydra.near_files(argument(conf), parse_overrides(["+data=one", "+data=one"]))
    assert names(conf, [path for path, _ in found]) == [
        "config.yaml",
        "data/one.yaml",
        "data/two.yaml",
        "model/small.yaml",
    ]


def test_a_list_that_is_no_yaml_selects_nothing(conf):
    (conf / "config.yaml").write_text("defaults: [\n")
    assert names(conf, [path for path, _ in hydra.near_files(argument(conf), ())]) == ["config.yaml"]


@pytest.mark.parametrize(
    ("prefix", "number", "expected"),
    [("--config-path=", 3, "--config-path=/new"), ("", 0, "/new"), ("-x", -1, "-x\0--config-path\0/new")],
)
def test_the_word_that_names_the_directory(prefix, number, expected):
    assert hydra.words(ConfigArgument(1, prefix, "c.yaml", hydra=number), "/new") == expected


@pytest.mark.parametrize(
    ("config", "word", "expected"),
    [
        ("x: 1\n", "", True),  # a group of the directory has `${art:…}`
        ("x: 1\n", "run.a=b:v1", True),
        ("x: 1\n", "y=${art:a}", True),
    ],
)
def test_whether_a_program_that_hides_its_config_says_something(conf, config, word, expected):
    (conf / "config.yaml").write_text(config)
    assert hydra.mentions_artifacts(argument(conf), ["t.py", word]) is expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [("x: 1\n", False), ("run: {a: 1}\n", True), ("[run]\n", False), ("running: 1\n", False), ("x: ${ art :a}\n", True),
     ("x: ${manifest:a,b}\n", True)],
)  # fmt: skip
def test_alone_a_config_says_something_by_its_run_section_or_an_artifact(tmp_path, config, expected):
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "group.yaml").write_text("run: {a: 1}\n")  # of a group only `${art:…}` counts
    assert hydra.mentions_artifacts(argument(tmp_path), ["t.py"]) is expected
    command = read(["python", "t.py"])
    from nemotron_exec.frozen import replace

    one = argument(tmp_path, tentative=True)
    command = hydra.without_silent(replace(command, configs=(one,)))
    assert (command.configs, command.silent) == (((one,), ()) if expected else ((), (one,)))
    named = argument(tmp_path)
    assert hydra.without_silent(replace(command, configs=(named,))).configs == (named,)


def test_outside_of_run_everything_may_be_composed_anew():
    reach = hydra.OnlyRun({"a"})
    for path, expected in {("x",): True, ("run", "a"): True, ("run", "a", "b"): True, ("run", "c"): False}.items():
        assert reach.replaces(path) is reach.touches(path) is expected
    assert (reach.replaces(("run",)), reach.touches(("run",))) == (False, True)


PROGRAM = "import hydra\nhydra.initialize('conf')\nhydra.compose('config')\n"


def rendered(tmp_path, monkeypatch, files, *words):
    """The resolved texts by file name, without their headers, and the overrides that leave the command."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"t.py": PROGRAM, "train.py": "print(1)\n", **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = read(words)
    given = {"environ": {}, "run_wandb": Injected(), "resolve": "artifacts", "words": command.argv, "start": 2}
    config = config_module.read(command.configs, command.overrides, **given)
    found = {one.key: artifact(one.key) for one in config.references}
    done = config.render(found, directory="/new", header=Header("now"))
    texts = {os.path.basename(file.path): file.text.decode().partition("\nrun")[2] for file in done.files}
    return texts, {words[index] for index in done.dropped}


def artifact(key):
    return Artifact(key, "b:v1", "manifest", "b", "v1", "dataset", f"/{key}", "b:v1", metadata={"m": {"k": 1}})


def test_what_a_program_composes_itself_keeps_its_words_though_another_config_has_them(tmp_path, monkeypatch):
    files = {"conf/config.yaml": "run: {a: 'b:v1'}\nx: ${art:a}\n", "other.yaml": "run: {c: 'b:v1'}\nx: ${art:c}\n"}
    texts, dropped = rendered(tmp_path, monkeypatch, files, "python", "t.py", "other.yaml", "run.a=b:v2")
    assert texts["config.yaml"] == ": {a: b:v2}\nx: /a\n"
    assert dropped == set()
    texts, dropped = rendered(tmp_path, monkeypatch, files, "python", "train.py", "other.yaml", "run.c=b:v2")
    assert (texts["other.yaml"], dropped) == (": {c: b:v2}\nx: /c\n", {"run.c=b:v2"})


def test_a_mapping_of_an_artifact_stays_where_another_config_has_keys_for_it(tmp_path, monkeypatch):
    files = {"c.yaml": "run: {a: 'b:v1'}\nm: ${art:a,m}\nn: ${art:a,m}\n", "other.yaml": "run: {}\nm: {k: 2}\n"}
    texts, _ = rendered(tmp_path, monkeypatch, files, "python", "train.py", "c.yaml", "other.yaml")
    assert texts["c.yaml"] == ": {a: 'b:v1'}\nm: ${art:a,m}\nn: {k: 1}\n"
    files = {"conf/config.yaml": "run: {a: 'b:v1'}\nm: ${art:a,m}\n"}
    texts, _ = rendered(tmp_path, monkeypatch, files, "python", "t.py")
    assert texts["config.yaml"] == ": {a: 'b:v1'}\nm: {k: 1}\n"
