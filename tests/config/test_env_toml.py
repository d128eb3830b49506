"""env.toml: where it is looked for, and what a profile of it says."""

from __future__ import annotations

import re

import pytest

from nemotron_exec.config.env_toml import EnvToml, find_env_toml, read_env_toml
from nemotron_exec.errors import LaunchError

TEXT = """\
[wandb]
project = "p"
entity = "team"

[artifacts.manifest]
root = "/store"

[cli]
x = 1

[base]
partition = "batch"
extra = "x"
mounts = ["a"]
[base.nested]
one = 1
two = 2
[base.wandb]
project = "base"

[child]
extends = "base"
partition = "big"
[child.nested]
two = 3
[child.artifacts.manifest]
root = "/child"

[round]
extends = "about"
[about]
extends = "round"

[orphan]
extends = "gone"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "env.toml"
    path.write_text(TEXT)
    return str(path)


def test_the_nearest_one_upward_counts_and_none_beyond_a_project(tmp_path, file, monkeypatch):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_env_toml(str(below), {}) == file
    assert find_env_toml(str(tmp_path), {}) == file
    monkeypatch.chdir(below)
    assert find_env_toml("", {}) == find_env_toml(".", {}) == file
    (tmp_path / "a" / "pyproject.toml").write_text("")
    assert find_env_toml(str(below), {}) is None
    (tmp_path / "a" / "env.toml").write_text("")
    assert find_env_toml(str(below), {}) == str(tmp_path / "a" / "env.toml")
    (tmp_path / "pyproject.toml").write_text("")
    assert find_env_toml(str(tmp_path), {}) == file
    assert find_env_toml("/", {}) is None


def test_the_variable_names_it(tmp_path, file):
    named = {"NEMOTRON_ENV_FILE": "/elsewhere/env.toml"}
    assert find_env_toml(str(tmp_path), named) == "/elsewhere/env.toml"
    assert find_env_toml(str(tmp_path), {"NEMOTRON_ENV_FILE": ""}) == file
    assert find_env_toml("/", {"NEMOTRON_ENV_FILE": "~/env.toml", "HOME": "/h"}) == "/h/env.toml"


def test_without_a_file_it_says_nothing():
    assert read_env_toml(None) == EnvToml() == EnvToml(None, {}, {}, {})
    assert read_env_toml(None).artifacts_root is None


def test_without_a_profile_only_the_tables_of_all_count(file):
    found = read_env_toml(file)
    assert (found.path, found.profile) == (file, {})
    assert found.wandb == {"project": "p", "entity": "team"}
    assert found.artifacts_root == "/store"


def test_a_profile_is_what_it_extends_with_its_own_over_it(file):
    found = read_env_toml(file, "child")
    assert found.profile == {
        "partition": "big",
        "extra": "x",
        "mounts": ["a"],
        "nested": {"one": 1, "two": 3},
    }
    assert found.wandb == {"project": "base", "entity": "team"}
    assert found.artifacts_root == "/child"
    assert read_env_toml(file, "base").artifacts_root == "/store"
    assert read_env_toml(file, "base").profile["nested"] == {"one": 1, "two": 2}


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("[artifacts.manifest]\nroot = '/a'", "/a"),
        ("[artifacts.manifest]\nroot = ''", None),
        ("[artifacts.manifest]\nroot = 7", None),
        ("[artifacts]\nmanifest = 'x'", None),
        ("", None),
    ],
)
def test_a_root_is_a_text(tmp_path, text, root):
    (tmp_path / "env.toml").write_text(text)
    assert read_env_toml(str(tmp_path / "env.toml")).artifacts_root == root


#  profile: what was found, what to do
WRONG = {
    "gone": ("there is no [gone] in it", "Profiles: about, base, child, orphan, round"),
    "cli2": ("there is no [cli2] in it", "Profiles: about, base, child, orphan, round"),
    "orphan": ("there is no [gone], which 'orphan' extends, in it", "Profiles: about, base, child, orphan, round"),
    "round": ("profiles extend in a circle: round -> about -> round", "Break it"),
}


@pytest.mark.parametrize("profile", WRONG)
def test_a_profile_that_is_none_is_one_clear_error(file, profile):
    with pytest.raises(LaunchError) as caught:
        read_env_toml(file, profile)
    assert caught.value.wanted == f"to use the profile {profile!r} of {file}"
    assert (caught.value.found, caught.value.remedy) == WRONG[profile]


def test_a_profile_without_a_file_is_one(tmp_path):
    with pytest.raises(LaunchError, match=re.escape("to use the profile 'x': there is no env.toml. Name it with")):
        read_env_toml(None, "x")


@pytest.mark.parametrize(
    ("content", "found", "remedy"),
    [
        (None, "No such file or directory", "Check --env-file and NEMOTRON_ENV_FILE, or start without the file"),
        (b"x = 1\ny 2\n", "line 2", "Correct the TOML, or start without the file"),
        (b"x = '\xff'", "utf-8", "Correct the TOML, or start without the file"),
        (b"wandb = 3\n[p]", "it is 3", "Write a table [wandb]"),
        (b"artifacts = 'a'\n[p]", "it is 'a'", "Write a table [artifacts]"),
        (b"x = 1", "there is no [p] in it", "Profiles: none"),
        (b"p = 1", "there is no [p] in it", "Profiles: none"),
        (b"[p]\nwandb = 1", "it is 1", "Write a table [wandb]"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path, content, found, remedy):
    path = tmp_path / "env.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LaunchError) as caught:
        read_env_toml(str(path), "p")
    assert str(path) in caught.value.wanted
    assert found in caught.value.found
    assert caught.value.remedy.startswith(remedy)
