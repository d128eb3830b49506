"""OmegaConf's interpolation grammar, parsed once into a small tree that keeps every position.

`parse` reads the forms that configs mostly use by itself: importing OmegaConf costs 56 ms, more than everything else
the launcher does. All other forms go through OmegaConf's own parser, and both give the same tree
(tests/interpolation/test_interpolation.py states that as a property).
"""

from __future__ import annotations

from nemotron_exec.interpolation.simple import parse_simple
from nemotron_exec.interpolation.tree import MAX_DEPTH, GrammarError, Text

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    pass

__all__ = ["parse"]

_MAX_LENGTH = 65_536  # ANTLR's time grows faster than the text; no expression of a person is longer


def parse(text: str) -> Text:
    """The tree of a scalar that holds `${`.

    Raises:
        GrammarError: OmegaConf does not take the text either, or it is beyond any reasonable size.
    """
    tree = parse_simple(text)
    if tree is None:
        if len(text) > _MAX_LENGTH or _depth(text) > MAX_DEPTH:
            raise GrammarError(f"an expression of {len(text)} characters, nested {_depth(text)} deep, is too large")
        from nemotron_exec.interpolation.omegaconf import parse_with_omegaconf

        tree = parse_with_omegaconf(text)
    return tree


def _depth(text: str) -> int:
    """How deep the brackets nest at most (an upper bound: text in quotes counts)."""
    depth = deepest = 0
    for character in text:
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest
