"""What nearly asks for an artifact is named with its right spelling, and what means something else is not."""

from __future__ import annotations

import pytest

from nemotron_exec.config.near_misses import near_misses


def said(text, *, sure=True, path="cfg.yaml", sections=""):
    return list(near_misses([(path, text)], sections, sure=sure))


#  text: what is found, what is right, and whether a file that says nothing to nemotron-exec is warned about as well
NEAR = {
    "$art:data": ("$art:data", "${art:data,path}", True),
    "$art:data,path": ("$art:data,path", "${art:data,path}", True),
    "{art:data}": ("{art:data}", "${art:data,path}", True),
    "{{art:data}}": ("{{art:data}}", "${art:data,path}", True),
    "${{art:data,size}}": ("${{art:data,size}}", "${art:data,size}", True),
    "${{ art:data }}": ("${{ art:data }}", "${art:data,path}", True),
    "$(art:data)": ("$(art:data)", "${art:data,path}", True),
    "$[art:data]": ("$[art:data]", "${art:data,path}", True),
    "%{art:data}": ("%{art:data}", "${art:data,path}", True),
    "<art:data>": ("<art:data>", "${art:data,path}", True),
    "${artifact:data}": ("${artifact:data}", "${art:data,path}", True),
    "${artifacts:data,path}": ("${artifacts:data,path}", "${art:data,path}", True),
    "${artefact:data}": ("${artefact:data}", "${art:data,path}", True),
    "${arts:data}": ("${arts:data}", "${art:data,path}", True),
    "${ART:data}": ("${ART:data}", "${art:data,path}", True),
    "$artifact:data": ("$artifact:data", "${art:data,path}", True),
    "{artifact:data}": ("{artifact:data}", "${art:data,path}", True),
    "${art.data}": ("${art.data}", "${art:data,path}", True),
    "${art.data.path}": ("${art.data.path}", "${art:data,path}", True),
    "${art,data}": ("${art,data}", "${art:data,path}", True),
    "${art;data}": ("${art;data}", "${art:data,path}", True),
    "${Art.data}": ("${Art.data}", "${art:data,path}", True),
    "${art=data}": ("${art=data}", "${art:data,path}", False),
    "${art/data}": ("${art/data}", "${art:data,path}", False),
    "${art|data}": ("${art|data}", "${art:data,path}", False),
    "${art data}": ("${art data}", "${art:data,path}", False),
    "${art-data}": ("${art-data}", "${art:data,path}", False),
    "$art(data)": ("$art(data)", "${art:data,path}", False),
    "$art{data}": ("$art{data}", "${art:data,path}", False),
    "$art[data]": ("$art[data]", "${art:data,path}", False),
    "$art.data": ("$art.data", "${art:data,path}", False),
    "{{ artifact.name }}": ("{{ artifact.name }}", "${art:name,path}", False),
    "${artifact.data}": ("${artifact.data}", "${art:data,path}", False),
    "<artifact:data>": ("<artifact:data>", "${art:data,path}", False),
    "$[artifact:data]": ("$[artifact:data]", "${art:data,path}", False),
    "${artifact:data.a.b}": ("${artifact:data.a.b}", "${art:data,a.b}", True),
    "${artifact:data, a; b}": ("${artifact:data, a; b}", "${art:data,a.b}", True),
    "art:data": ("art:data", "${art:data,path}", False),
    "x: art:data,path": ("art:data,path", "${art:data,path}", False),
    "x: 'art:data, a.b'": ("art:data, a.b", "${art:data,a.b}", False),
    '- "art:data"': ("art:data", "${art:data,path}", False),
    "x = art:my-data": ("art:my-data", "${art:my-data,path}", False),
}


@pytest.mark.parametrize("text", NEAR)
def test_a_near_miss_is_named_with_the_right_spelling(text):
    found, right, always = NEAR[text]
    line = text if ": " in text or text.startswith(("-", "x", "art")) else f"key: {text}"
    message = f"{found} of cfg.yaml:3 is no artifact: write {right}, on a command line in single quotes"
    assert said(f"a: 1\n\n{line}\n") == [message]
    assert said(f"a: 1\n\n{line}\n", sure=False) == ([message] if always else [])


@pytest.mark.parametrize(
    "text",
    [
        "x: ${art:data,path}",
        "x: ${ art : data }",
        "x: $${art:data}",
        "x: \\$art:data",
        "x: a$art:data",
        "# $art:data",
        "  # $art:data",
        "x: 1 # $art:data",
        "x: {art: data}",
        "x: $art",
        "x: <art data>",
        "x: $art data",
        "x: {art-data}",
        "x: {art(data)}",
        "x: ${artifact-data}",
        "x: ${artifact(data)}",
        "x: $artifact(data)",
        "x: $art-data",
        "x: ${art(data)}",
        "x: part:data",
        "x: art: data",
        "x: art:data more",
        "x: ${start:data}",
        "x: art:",
    ],
)
def test_what_is_right_or_means_something_else_is_not(text):
    assert said(text) == []


@pytest.mark.parametrize(
    "section", ["artifact: {data: 1}", "  artifact:", "{artifact: 1}", "'artifact' : 1", '"artifact":']
)
def test_a_section_of_that_name_is_what_a_dollar_means(section):
    assert said("x: ${artifact.data}") != []
    assert said(f"{section}\nx: ${{artifact.data}}\ny: $artifact.data") == []
    assert said("x: ${artifact.data}", sections=section) == []
    assert list(near_misses([("a.yaml", section), ("b.yaml", "x: ${artifact.data}")], sure=True)) == []
    # Braces alone are none of OmegaConf's.
    assert len(said(f"{section}\nx: {{{{artifact.data}}}}")) == 1
    assert len(said("my_artifact: 1\nx: ${artifact.data}")) == 1


@pytest.mark.parametrize("before", ["${art:data}", "$art-x", "{art: data}", "$art x", "${artifact-x}"])
def test_what_is_none_does_not_hide_the_next(before):
    assert [one.split(" of ")[0] for one in said(f"x: {before} $art:data")] == ["$art:data"]


def test_what_may_mean_something_else_does_not_hide_what_can_not():
    found = said("x: ${art=a} $art:data", sure=False)
    assert [one.split(" of ")[0] for one in found] == ["$art:data"]


def test_what_is_a_section_does_not_hide_the_next():
    found = said("artifact: 1\nx: ${artifact.a} $art:data")
    assert [one.split(" of ")[0] for one in found] == ["$art:data"]


def test_every_one_of_a_line_and_of_each_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(near_misses([("a.yaml", "x: $art:a $art:b"), (f"{tmp_path}/b.yaml", "\nx: $art:c")], sure=True))
    assert [one.split(" is ")[0] for one in found] == ["$art:a of a.yaml:1", "$art:b of a.yaml:1", "$art:c of b.yaml:2"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("x=$art:data", ["$art:data of the command"]),
        ("x=a # $art:data", ["$art:data of the command"]),
        ("x=${art:data,path}", []),
        ("x=${art:data", ["${art:data of the command"]),
        ("x=}${art:data", ["${art:data of the command"]),
        ("x=art:data", ["art:data of the command"]),
    ],
)
def test_a_word_of_the_command_has_no_comments_and_may_be_cut_by_the_shell(word, found):
    assert [one.split(" is ")[0] for one in said(word, path="")] == found
