"""Parses OmegaConf's interpolation grammar into a small tree with the position of every part.

`parse` reads the common forms itself: importing OmegaConf costs 56 ms, more than the rest of the launcher's work. Any
other form goes through OmegaConf's own parser. Both give the same tree (tests/interpolation/test_interpolation.py
states that as a property).
"""

from __future__ import annotations

from nemotron_exec.interpolation.simple import parse_simple
from nemotron_exec.interpolation.tree import MAX_DEPTH, GrammarError, Text

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    pass

__all__ = ["parse"]

_MAX_LENGTH = 65_536  # ANTLR's time grows faster than the text, and nobody writes a longer expression


def parse(text: str) -> Text:
    """The tree of a scalar that holds `${`.

    Raises:
        GrammarError: OmegaConf refuses the text, too, or the text is unreasonably large.
    """
    tree = parse_simple(text)
    if tree is None:
        if len(text) > _MAX_LENGTH or _depth(text) > MAX_DEPTH:
            raise GrammarError(f"an expression of {len(text)} characters, nested {_depth(text)} deep, is too large")
        from nemotron_exec.interpolation.omegaconf import parse_with_omegaconf

        tree = parse_with_omegaconf(text)
    return tree


def _depth(text: str) -> int:
    """The deepest nesting of brackets. It is an upper bound, because text in quotes counts, too."""
    depth = deepest = 0
    for character in text:
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest
