"""A written value reads back as the same value in PyYAML and in OmegaConf, for any metadata."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from omegaconf import OmegaConf

from expressions import AWKWARD, QUICK, THOROUGH, strings, values
from nemotron_exec.document.literal import UnwritableError, grammar_literal, yaml_literal
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
