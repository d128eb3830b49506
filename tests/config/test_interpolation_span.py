"""Where an interpolation ends, whatever stands in it."""

from __future__ import annotations

import re

import pytest

from nemotron_exec.config.interpolation_span import end_of_interpolation

WHOLE = [
    "${a}",
    "${a.${b}}",
    "${f:{a: {b: 1}}}",
    "${f:'}'}",
    '${f:"}"}',
    "${f:'\"}'}",
    '${f:"\'}"}',
    "${f:'a\\'}'}",
    "${f:'\\\\'}",
    "${f:\\}}",
    "${f:\\{}",
    "${f:\\'}",
    "${f:'a', 'b'}",
    "${f:'{'}",
    "${}",
]


@pytest.mark.parametrize("before", ["", "ab", "}", "'"])
@pytest.mark.parametrize("text", WHOLE)
def test_the_brace_that_closes_it(text, before):
    for after in ("", "}", "'x", "${b}"):
        assert end_of_interpolation(before + text + after, len(before)) == len(before) + len(text)


@pytest.mark.parametrize("text", ["${a", "${a${b}", "${f:'}", "${f:\\}", "${f:'\\", "${", "${f:'\\'}"])
def test_nothing_closes_it(text):
    with pytest.raises(ValueError, match=rf"\A{re.escape(text)}\Z"):
        end_of_interpolation(text, 0)
