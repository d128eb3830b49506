"""The grammar: nemotron-exec's reader of common forms gives OmegaConf's tree, or leaves the text to OmegaConf."""

from __future__ import annotations

import pytest
from hypothesis import example, given

from expressions import QUICK, THOROUGH, expressions
from nemotron_exec.interpolation import parse as module
from nemotron_exec.interpolation.omegaconf import parse_with_omegaconf
from nemotron_exec.interpolation.parse import parse
from nemotron_exec.interpolation.simple import parse_simple
from nemotron_exec.interpolation.tree import (
    MAX_DEPTH,
    Call,
    Dict,
    GrammarError,
    List,
    Literal,
    Primitive,
    Quoted,
    Ref,
    Text,
)


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
    "${a}",
    "${ a }x",
    "${[0]}",
    "${[a].b}",
    "${a[b][0]}",
    "${a.[0]}",
    "${a[${b}]}",
    "${a[0}",
    "${.a[${b}].c}",
    "${...a}",
    "${${a}}",
    "${${a}.b}",
    "${a}${b}",
    "${f:}",
    "${f: }",
    "${f:,}",
    "${f:a,}",
    "${f:,a}",
    "${f:a b}",
    "${f: a , b }",
    "${f:''}",
    '${f:""}',
    "${f:'a'}",
    "${f:'a b', \"c'd\"}",
    "${f:'a' }",
    "${f:'a'b}",
    "${f:'${a}'}",
    "${f:'a\\'b'}",
    "${f:'a",
    "${f:'a,'b'}",
    "${f:1}",
    "${f:-1}",
    "${f:1.5}",
    "${f:1_000}",
    "${f:0x1}",
    "${f:true}",
    "${f:Null}",
    "${f:nan}",
    "${f:inf}",
    "${f:1e3}",
    "${f:1${a}}",
    "${f:${a}1}",
    "${f:${a}}",
    "${f:${a}${b}}",
    "${f:${g:${h:1}}}",
    "${f:[a]}",
    "${f:[a,b],[]}",
    "${f:[,a]}",
    "${f:{}}",
    "${f:{a: 1}}",
    "${f:{a: 1, b: {c: [2]}, 3: d}}",
    "${f:a=b}",
    "${f:a:b}",
    "${f:a/b@c+d-e.f%g|h?i*j}",
    "${f:$a}",
    "${f.g.h:1}",
    "${f-1:1}",
    "${1f:1}",
    "${f..g:1}",
    "${.f:1}",
    "${f[0]:1}",
    "${f${a}:1}",
    "x${a}y${b}z",
    "x$y${a}",
    "${a b}",
    "${a,b}",
    "${a/b}",
    "${a-b.c_d}",
    "${a}\\",
    "a\\${b}",
    "a\\\\${b}",
    "\\${a}${b}",
    "${f:\\,}",
    "${f:a\\ }",
    "${f:\\${a}}",
    "${f:'\\\\'}",
    "${f:'\\\\${a}'}",
    "${f:'\\\\a'}",
    "${f:'\\${a}'}",
    "${f:a\\\\b}",
]


def tree_or_error(read, text):
    try:
        return repr(read(text))
    except GrammarError:
        return "error"


@pytest.mark.parametrize("text", COMMON)
def test_every_form_gives_omegaconfs_tree_or_its_error(text: str) -> None:
    expected = tree_or_error(parse_with_omegaconf, text)
    assert tree_or_error(parse, text) == expected
    assert repr(parse_simple(text)) in (expected, "None")


@pytest.mark.parametrize("text", COMMON[:14])
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


#  text: the tree, written by hand from OmegaConf's grammar
TREES = {
    "${f:a,}": (Call(("f",), (Primitive((Literal("a", 4, 5),), 4, 5), Quoted((), 6, 6)), 0, 7)),
    "${f:,a}": (Call(("f",), (Quoted((), 4, 4), Primitive((Literal("a", 5, 6),), 5, 6)), 0, 7)),
    "${f:[]}": (Call(("f",), (List((), 4, 6),), 0, 7)),
    "${f:[a,1]}": (
        Call(
            ("f",), (List((Primitive((Literal("a", 5, 6),), 5, 6), Primitive((Literal(1, 7, 8),), 7, 8)), 4, 9),), 0, 10
        )
    ),
    "${f:{}}": (Call(("f",), (Dict((), 4, 6),), 0, 7)),
    "${f:{a: 1,b: x, 3: y}}": (
        Call(
            ("f",),
            (
                Dict(
                    (
                        ("a", Primitive((Literal(1, 8, 9),), 8, 9)),
                        ("b", Primitive((Literal("x", 13, 14),), 13, 14)),
                        (3, Primitive((Literal("y", 19, 20),), 19, 20)),
                    ),
                    4,
                    21,
                ),
            ),
            0,
            22,
        )
    ),
    "${f:'a'}": (Call(("f",), (Quoted((Literal("a", 5, 6),), 4, 7),), 0, 8)),
    "${f:'\\\\${a}'}": (Call(("f",), (Quoted((Literal("\\", 5, 7), Ref(("a",), 7, 11)), 4, 12),), 0, 13)),
    "${f:'\\\\'}": (Call(("f",), (Quoted((Literal("\\", 5, 7),), 4, 8),), 0, 9)),
    "${f:'\\\\a'}": (Call(("f",), (Quoted((Literal("\\\\a", 5, 8),), 4, 9),), 0, 10)),
}


@pytest.mark.parametrize("text", TREES)
def test_both_readers_give_the_tree_of_the_grammar(text: str) -> None:
    assert parse(text) == parse_with_omegaconf(text) == Text((TREES[text],))


def test_how_long_and_how_deep_an_expression_may_be() -> None:
    assert (MAX_DEPTH, module._MAX_LENGTH) == (50, 65_536)
    for depth in (50, 51):
        for text in (
            "${f:" * depth + "}" * depth,
            "${a." * depth + "b" + "}" * depth,
            f"${{f:{'[' * (depth - 1)}{']' * (depth - 1)}}}",
        ):
            assert (tree_or_error(parse, text) == "error") is (depth > 50)
    long = "${a}" + "x" * (65_536 - 4)
    assert parse(long).parts[1].value == "x" * (65_536 - 4)


@pytest.mark.parametrize(
    ("text", "quick"),
    [
        ("${f:''}", True),
        ("${f:'',\"\"}", True),
        ("${f:'a'}", True),
        ("${" * MAX_DEPTH + "a" + "}" * MAX_DEPTH, True),
        ("${" * (MAX_DEPTH + 1) + "a" + "}" * (MAX_DEPTH + 1), False),
        ("${f:" * MAX_DEPTH + "a" + "}" * MAX_DEPTH, True),
        ("${f:" * (MAX_DEPTH + 1) + "a" + "}" * (MAX_DEPTH + 1), False),
    ],
)
def test_common_forms_need_no_antlr_and_the_depth_has_a_bound(text, quick):
    assert (parse_simple(text) is not None) is quick
    if not quick:
        with pytest.raises(GrammarError, match="is too large"):
            parse(text)
