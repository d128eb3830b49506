"""What the script's overrides could change, and the value of one."""

from __future__ import annotations

import pytest

from nemotron_exec.command.override import parse_override
from nemotron_exec.config.override import Reach, value_of
from nemotron_exec.errors import LaunchError

#  path: whether the overrides a.b and c.0 replace it, and whether they touch it
ROWS = {
    (): (False, True),
    ("a",): (False, True),
    ("a", "b"): (True, True),
    ("a", "b", "c", "d"): (True, True),
    ("a", "c"): (False, False),
    ("b",): (False, False),
    ("c",): (False, True),
    ("c", 0): (True, True),
    ("c", "0", 1): (True, True),
    ("c", 1): (False, False),
}


@pytest.mark.parametrize("path", ROWS)
def test_what_is_replaced_and_what_is_touched(path):
    reach = Reach([("a", "b"), ("c", "0")])
    assert (reach.replaces(path), reach.touches(path)) == ROWS[path]
    nothing = Reach([])
    assert (nothing.replaces(path), nothing.touches(path)) == (False, False)
    assert (Reach([()]).replaces(()), Reach([()]).touches(())) == (False, True)


@pytest.mark.parametrize(("word", "value"), [("a=1", "1"), ("a='x y'", "x y"), ("a=", ""), ("a=''", ""), ("~a", "")])
def test_the_value_of_an_override(word, value):
    node = value_of(parse_override(1, word))
    assert node.value == value
    assert str(node.origin) == f"{word}:1"


@pytest.mark.parametrize("word", ["a=[1", "a={b: ", "a='x", "a=b: c: d"])
def test_a_value_that_is_none_is_one_error(word):
    with pytest.raises(LaunchError) as caught:
        value_of(parse_override(1, word))
    assert (caught.value.wanted, caught.value.remedy) == (f"to apply the override {word}", "Quote its value")
