"""The grammar: nemotron-exec's reader of common forms gives OmegaConf's tree, or leaves the text to OmegaConf."""

from __future__ import annotations

import pytest
from hypothesis import example, given

from expressions import QUICK, THOROUGH, expressions
from nemotron_exec.interpolation.omegaconf import parse_with_omegaconf
from nemotron_exec.interpolation.parse import parse
from nemotron_exec.interpolation.simple import parse_simple
from nemotron_exec.interpolation.tree import Call, GrammarError, Literal, Primitive, Quoted, Ref, Text


def both_readers_agree(text: str) -> None:
    simple = parse_simple(text)
    if simple is None or "${" not in text:
        return
    assert repr(simple) == repr(parse_with_omegaconf(text))  # compare by repr, because nan is not equal to itself


@QUICK
@given(expressions())
@example("${a.b}/x ${mul:${a}, 2}")
@example("${f:1 2, a:b , 0123, -5, 1., nan}")
def test_the_quick_reader_gives_omegaconfs_tree_or_none(text: str) -> None:
    both_readers_agree(text)


@pytest.mark.ci
@THOROUGH
@given(expressions())
def test_the_quick_reader_gives_omegaconfs_tree_or_none_thoroughly(text: str) -> None:
    both_readers_agree(text)


COMMON = [
    "${a.b}",
    "${.x}",
    "${..x.y}",
    "${a[0].b}",
    "${a.${b}}",
    "${art:data,path}",
    "${art:data,path}/blend.json",
    "${ art : data , path }",
    "${mul:${art:data,pack_size},2}",
    "${art:${run.which},path}",
    "${oc.select:a.${run.key},${art:data,path}}",
    "${oc.env:HOME,'/root'}",
    "${oc.dict.values:a}",
    "$ {x} 5$ ${a}",
]


@pytest.mark.parametrize("text", COMMON)
def test_the_common_forms_need_no_antlr(text: str) -> None:
    assert parse_simple(text) == parse_with_omegaconf(text)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("\\${a}", Text((Literal("${a}", 0, 5),))),
        ("\\\\${a}", Text((Literal("\\", 0, 2), Ref(("a",), 2, 6)))),
        ("${f:}", Text((Call(("f",), (), 0, 5),))),
        (
            "${f:'it\\'s',\"\"}",
            Text((Call(("f",), (Quoted((Literal("it's", 5, 10),), 4, 11), Quoted((), 12, 14)), 0, 15),)),
        ),
        ("${f:a\\,b}", Text((Call(("f",), (Primitive((Literal("a,b", 4, 8),), 4, 8),), 0, 9),))),
    ],
)
def test_escapes_read_as_what_they_stand_for(text: str, tree: Text) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    "text", ["${", "${a", "${}", "${f:[}", "${f:'x}", "${a..b", "${f:" + "[" * 60 + "]" * 60 + "}"]
)
def test_what_omegaconf_cannot_read_is_an_error(text: str) -> None:
    with pytest.raises(GrammarError):
        parse(text)
