"""A written value reads back as the same value in PyYAML and in OmegaConf, for any metadata."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from omegaconf import OmegaConf

from expressions import AWKWARD, QUICK, THOROUGH, strings, values
from nemotron_exec.document.literal import Expression, UnwritableError, escape, grammar_literal, yaml_literal
from nemotron_exec.interpolation.omegaconf import parse_with_omegaconf
from nemotron_exec.interpolation.tree import Literal, Primitive, Quoted


def escaped(value: Any) -> Any:
    r"""The value for a reader without OmegaConf, which does not remove the backslash of `\${`."""
    if isinstance(value, str):
        return value if "${" not in value else None
    if isinstance(value, list):
        return [escaped(item) for item in value]
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    return value


def without_escaped(value: Any, like: Any) -> Any:
    if isinstance(like, list):
        return [without_escaped(item, inner) for item, inner in zip(value, like, strict=True)]
    if isinstance(like, dict):
        return {key: without_escaped(value[key], inner) for key, inner in like.items()}
    return None if isinstance(like, str) and "${" in like else value


def reads_back(value: Any) -> None:
    alone, in_a_list = f"x: {yaml_literal(value)}\n", f"x: [{yaml_literal(value, flow=True)}, 1]\n"
    for text, unwrap in ((alone, lambda read: read), (in_a_list, lambda read: read[0])):
        for loader in (yaml.SafeLoader, yaml.CSafeLoader):
            read = unwrap(yaml.load(text, Loader=loader)["x"])
            assert repr(without_escaped(read, value)) == repr(escaped(value))
        found = OmegaConf.to_container(OmegaConf.create(text), resolve=True)["x"]
        assert repr(unwrap(found)) == repr(value)


def is_missing_somewhere(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(is_missing_somewhere, value.values() if isinstance(value, dict) else value))
    return value == "???"


@QUICK
@given(values)
def test_a_value_reads_back_as_itself(value: Any) -> None:
    reads_back(value)


@pytest.mark.ci
@THOROUGH
@given(values)
def test_a_value_reads_back_as_itself_thoroughly(value: Any) -> None:
    reads_back(value)


@pytest.mark.parametrize(
    "value", [*AWKWARD, 1e-5, 10**40, float("-inf"), [1, "a", None], [2, 1], {"a": {"b": "${c}"}}, [], {}]
)
def test_the_awkward_values_read_back_as_themselves(value: Any) -> None:
    reads_back(value)


def reads_back_from_grammar(text: str) -> None:
    (call,) = parse_with_omegaconf("${f:" + grammar_literal(text) + "}").parts
    (argument,) = call.args  # type: ignore[union-attr]
    assert isinstance(argument, Quoted)
    assert "".join(part.value for part in argument.parts if isinstance(part, Literal)) == text


@QUICK
@given(strings)
def test_a_string_inside_an_expression_reads_back_as_itself(text: str) -> None:
    reads_back_from_grammar(text)


@pytest.mark.ci
@THOROUGH
@given(strings)
def test_a_string_inside_an_expression_reads_back_as_itself_thoroughly(text: str) -> None:
    reads_back_from_grammar(text)


@pytest.mark.parametrize("value", [None, True, False, 0, -5, 1.5, 1e-5, 1e300, float("inf")])
def test_other_values_inside_an_expression_keep_their_type(value: Any) -> None:
    (call,) = parse_with_omegaconf("${f:" + grammar_literal(value) + "}").parts
    (argument,) = call.args  # type: ignore[union-attr]
    assert isinstance(argument, Primitive)
    (literal,) = argument.parts
    assert repr(literal.value) == repr(value)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["\ud800", "???", object(), {"a": "\udfff"}])
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(UnwritableError):
        yaml_literal(value)


#  value: in a block, and in a list or mapping
FORMS = [
    ("abc", "abc", "abc"),
    ("/a/b.c-d+e@f", "/a/b.c-d+e@f", "/a/b.c-d+e@f"),
    ("a:b", "a:b", '"a:b"'),
    ("1a", '"1a"', '"1a"'),
    ("", '""', '""'),
    ("Yes", '"Yes"', '"Yes"'),
    ("none", '"none"', '"none"'),
    ("a b", '"a b"', '"a b"'),
    ("${a}", '"\\\\${a}"', '"\\\\${a}"'),
    ("$a", '"$a"', '"$a"'),
    (Expression("${a}"), '"${a}"', '"${a}"'),
    (Expression("a"), '"a"', '"a"'),
    (None, "null", "null"),
    (True, "true", "true"),
    (-3, "-3", "-3"),
    (1.0, "1.0", "1.0"),
    (1e-05, "1.0e-05", "1.0e-05"),
    (1.5e-07, "1.5e-07", "1.5e-07"),
    (1e22, "1.0e+22", "1.0e+22"),
    (float("nan"), ".nan", ".nan"),
    (float("-inf"), "-.inf", "-.inf"),
    (["a:b", ("c",), {"d": ["e"]}], '["a:b", [c], {d: [e]}]', '["a:b", [c], {d: [e]}]'),
    (
        {"a:b": 1, "on": 2, "${x}": 3, 4: 5, None: 6, "": 7},
        *['{"a:b": 1, "on": 2, "${x}": 3, 4: 5, null: 6, "": 7}'] * 2,
    ),
    ('"\\\n\t\r', r'"\"\\\n\t\r"', r'"\"\\\n\t\r"'),
    ("\x00\x1f\x20\x7e\x7f\x85\xa0\xa1", '"\\x00\\x1F ~\\x7F\\x85\\xA0\xa1"', '"\\x00\\x1F ~\\x7F\\x85\\xA0\xa1"'),
    (
        "\u2027\u2028\u2029\u202a\ud7ff\ue000\ufefe\ufeff\ufffd\ufffe\uffff\U00010000",
        *['"\u2027\\u2028\\u2029\u202a\ud7ff\ue000\ufefe\\uFEFF\ufffd\\uFFFE\\uFFFF\U00010000"'] * 2,
    ),
]


@pytest.mark.parametrize(("value", "block", "flow"), FORMS, ids=repr)
def test_the_form_of_a_value(value, block, flow):
    assert yaml_literal(value) == block
    assert yaml_literal(value, flow=True) == flow


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}], ids=["lists", "mappings"])
def test_how_deep_a_value_may_be(wrap):
    value = "x"
    for _ in range(100):
        value = wrap(value)
    assert "x" in yaml_literal(value)
    with pytest.raises(UnwritableError, match="nested more than 100 levels deep"):
        yaml_literal(wrap(value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *((f"x{chr(code)}", "half a surrogate pair") for code in (0xD800, 0xDBFF, 0xDC00, 0xDFFF)),
        ("???", "means a missing value"),
        ({1, 2}, "a set has no YAML form"),
        ({(1, 2): 3}, None),
    ],
)
def test_why_a_value_has_no_form(value, why):
    if why is None:
        assert yaml_literal(value) == "{[1, 2]: 3}"
        return
    with pytest.raises(UnwritableError, match=why):
        yaml_literal(value)


#  value: inside an interpolation
GRAMMAR = [
    (None, "null"),
    (True, "true"),
    (1e-5, "1e-05"),
    ("a", '"a"'),
    ('a"b', "'a\"b'"),
    ("a'b", '"a\'b"'),
    ("a'b\"c", '"a\'b\\"c"'),
    ("a\\", '"a\\\\"'),
    ("a\\b", '"a\\b"'),
    ("${x}", '"\\${x}"'),
    ([1, ("a", None)], '[1, ["a", null]]'),
    ({"a": 1, "b-c_1": [2]}, "{a: 1, b-c_1: [2]}"),
    ({"on": 1, "y": 2, "none": 3}, "{on: 1, y: 2, none: 3}"),
    ({}, "{}"),
]


@pytest.mark.parametrize(("value", "text"), GRAMMAR, ids=repr)
def test_the_form_of_a_value_inside_an_interpolation(value, text):
    assert grammar_literal(value) == text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a b": 1}, "no quoted keys"),
        ({"a": 1, "1": 2}, "no quoted keys"),
        ({1: 2}, "no quoted keys"),
        ({"True": 1}, "no quoted keys"),
        ({"null": 1}, "no quoted keys"),
        ({1, 2}, "a set has no form in an interpolation"),
    ],
)
def test_why_a_value_has_no_form_inside_an_interpolation(value, why):
    with pytest.raises(UnwritableError, match=why):
        grammar_literal(value)


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ("a\\b", {}, "a\\b"),
        ("a\\${b}", {}, "a\\\\\\${b}"),
        ("a${b}\\", {}, "a\\${b}\\"),
        ("a\\", {"before_interpolation": True}, "a\\\\"),
        ("a\\\\", {"before_interpolation": True}, "a\\\\\\\\"),
        ("a\\b", {"before_interpolation": True}, "a\\b"),
        ("a'\"", {"quote": "'"}, "a\\'\""),
        ("a\\'", {"quote": "'"}, "a\\\\\\'"),
        ("a\\", {"quote": '"'}, "a\\\\"),
    ],
)
def test_backslashes_count_only_before_what_they_could_escape(text, more, expected):
    assert escape(text, **more) == expected


@pytest.mark.parametrize("write", [yaml_literal, grammar_literal])
def test_a_number_that_is_too_long_to_be_written_has_no_form(write):
    with pytest.raises(UnwritableError, match="limit"):
        write([10**5000])
