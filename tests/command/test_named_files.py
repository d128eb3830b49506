"""The forms in which a word names a config, and the word that replaces it."""

from __future__ import annotations

import pytest

from nemotron_exec.command.named_files import mentioned_files, named_files
from nemotron_exec.command.read import read
from nemotron_exec.command.words import replace_paths
from nemotron_exec.command_scan import may_need_resolving

FORMS = {
    "cfg.yaml": ["cfg.yaml"],
    "./cfg.yaml": ["./cfg.yaml"],
    "runs/lr=1e-4/cfg.yaml": ["runs/lr=1e-4/cfg.yaml"],
    "--config=cfg.yaml": ["cfg.yaml"],
    "--config=runs/lr=1e-4/cfg.yaml": ["runs/lr=1e-4/cfg.yaml"],
    "config=cfg.yaml": ["cfg.yaml"],
    "+config=cfg.yaml": ["cfg.yaml"],
    "--config=a.yml,cfg.yaml": ["a.yml", "cfg.yaml"],
    "a.yml,cfg.yaml": ["a.yml", "cfg.yaml"],
    "a.yml:cfg.yaml": ["a.yml", "cfg.yaml"],
    "@cfg.yaml": ["cfg.yaml"],
    "-ccfg.yaml": ["cfg.yaml"],
    "-c=cfg.yaml": ["cfg.yaml"],
    "file://cfg.yaml": ["cfg.yaml"],
    "a.yml,none.yaml": ["a.yml"],
    "none.yaml": [],
    "xxcfg.yaml": [],
    "xcfg.yaml": [],
    "--cfg.yaml": [],
    "-x": [],
    "x=a.yml,b.yaml": ["a.yml,b.yaml"],
    "cfg.yaml.bak": [],
    "dir.yaml": [],
    "--flag": [],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/lr=1e-4").mkdir(parents=True)
    (tmp_path / "dir.yaml").mkdir()
    for name in ("cfg.yaml", "a.yml", "cfg.yaml.bak", "a.yml,b.yaml", "runs/lr=1e-4/cfg.yaml"):
        (tmp_path / name).write_text("run: {data: 'blend:v1'}\n")
    return tmp_path


@pytest.mark.parametrize(("word", "names"), FORMS.items())
def test_the_files_of_a_word(here, word, names):
    assert [name for _, name in named_files(word)] == names
    assert all(word[start:].startswith(name) for start, name in named_files(word))


@pytest.mark.parametrize("word", [word for word, names in FORMS.items() if names])
def test_only_the_path_of_the_word_is_replaced(here, word):
    configs = read(["python", "t.py", "x", word]).configs
    new = replace_paths([(config, "/R/" + config.path) for config in configs])
    expected = word
    for name in FORMS[word]:
        expected = expected.replace(name, "/R/" + name)
    assert new == expected
    assert {config.index for config in configs} == {3}


def test_an_existing_file_is_no_override(here):
    assert read(["python", "t.py", "runs/lr=1e-4/cfg.yaml"]).overrides == ()
    (here / "runs/lr=1e-4/cfg.yaml").write_text("x: 1\n")
    assert read(["python", "t.py", "runs/lr=1e-4/cfg.yaml"]).overrides == ()


def test_an_override_of_run_names_no_config(here):
    assert read(["python", "t.py", "run.data=cfg.yaml"]).configs == ()


MENTIONED = {
    "python t.py cfg.yaml": ["cfg.yaml"],
    "cd x && exec python t.py --config=cfg.yaml; echo": ["cfg.yaml"],
    '{"config": "cfg.yaml"}': ["cfg.yaml"],
    "['a.yml','cfg.yaml']": ["a.yml", "cfg.yaml"],
    "echo none.yaml": [],
    "cfg.yaml#section": ["cfg.yaml"],
    "cfg.yaml?version=1": ["cfg.yaml"],
    "cfg.yaml|train": ["cfg.yaml"],
    "cfg.yaml@train": ["cfg.yaml"],
    "cfg.yaml+none.yaml": ["cfg.yaml"],
    "[cfg.yaml]": ["cfg.yaml"],
    "(a.yml cfg.yaml)": ["a.yml", "cfg.yaml"],
    "python t.py c*.yaml": ["cfg.yaml"],
    "python t.py runs/lr=1e-4/*.yaml": ["runs/lr=1e-4/cfg.yaml"],
    "python t.py 'runs/lr=1e-4/cfg.yaml'; echo": ["runs/lr=1e-4/cfg.yaml"],
    "python t.py ?.yml; echo": ["a.yml"],
    "python t.py none/*.yaml": [],
    "cfg.yaml.bak": [],
}


@pytest.mark.parametrize(("word", "names"), MENTIONED.items())
def test_a_script_in_a_word_mentions_files(here, word, names):
    assert mentioned_files(word) == names
    # The short way to exec must not take this command: only the parser can read the word.
    assert not names or may_need_resolving(["python", "t.py", word], {}, lambda: str(here))


@pytest.mark.parametrize("word", [word for word, names in FORMS.items() if names])
def test_every_form_brings_the_parser(here, word):
    assert may_need_resolving(["python", "t.py", word], {}, lambda: str(here))


@pytest.mark.parametrize("text", ["path: [${art:data,path}\n", "{% if x %}\npath: ${art:data,path}\n{% endif %}\n"])
@pytest.mark.parametrize(
    "words", [["cat", "notes.txt"], ["true"]], ids=["the command names it", "the command does not"]
)
def test_a_file_of_c_that_is_no_yaml_is_an_error_whatever_its_name(tmp_path, nemotron_exec, words, text):
    (tmp_path / "notes.txt").write_text(text)
    done = nemotron_exec("-c", "notes.txt", *words, cwd=tmp_path)
    assert done.returncode == 125
    assert "notes.txt" in done.stderr
    assert "YAML" in done.stderr
