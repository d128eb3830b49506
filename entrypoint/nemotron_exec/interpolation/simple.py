"""A parser for the common form of an interpolation, without OmegaConf's grammar."""

from __future__ import annotations

from nemotron_exec.interpolation.tree import (
    MAX_DEPTH,
    Call,
    Element,
    Interpolation,
    Literal,
    Part,
    Primitive,
    Quoted,
    Ref,
    Text,
)
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = ["parse_simple", "typed_value"]


class _NotSimple(Exception):  # noqa: N818 - a signal between the two parsers, never an error
    pass


# The names follow omegaconf/grammar/OmegaConfGrammarLexer.g4.
_SPACE = pattern(r"[ \t]*")

_KEY = pattern(r"[A-Za-z0-9_\-]+")

_ID = pattern(r"[A-Za-z_][A-Za-z0-9_\-]*\Z")

_UNQUOTED = pattern(r"(?:[A-Za-z0-9_/\-+.%*@?|: \t]|\$(?!\{))+")

_INT_UNSIGNED = r"(?:0|[1-9](?:_?[0-9])*)"

_INT = pattern(rf"[+-]?{_INT_UNSIGNED}\Z")

_POINT = rf"(?:{_INT_UNSIGNED}\.|{_INT_UNSIGNED}?\.[0-9](?:_?[0-9])*)"

_FLOAT = pattern(
    rf"[+-]?(?:(?:{_INT_UNSIGNED}|{_POINT})[eE][+-]?[0-9](?:_?[0-9])*|{_POINT}|[Ii][Nn][Ff]|[Nn][Aa][Nn])\Z"
)


def parse_simple(text: str) -> Text | None:
    r"""The tree of a scalar in one of the common forms; None for any other form.

    Common forms are `${a.b}`, `${.x}`, `${a[0]}`, `${f:x,${y},"z"}` and text around them. Other forms are backslashes
    before an interpolation, lists, dictionaries and escapes in arguments, and invalid text.
    """
    parts: list[Part] = []
    position = 0
    try:
        while (start := text.find("${", position)) >= 0:
            if start and text[start - 1] == "\\":
                return None
            if start > position:
                parts.append(Literal(text[position:start], position, start))
            interpolation, position = _interpolation(text, start, 0)
            parts.append(interpolation)
    except (_NotSimple, IndexError):
        return None
    if position < len(text):
        parts.append(Literal(text[position:], position, len(text)))
    return Text(tuple(parts))


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _interpolation(text: str, start: int, depth: int) -> tuple[Interpolation, int]:
    if depth >= MAX_DEPTH:
        raise _NotSimple
    position = _skip_space(text, start + 2)
    parts: list[str | Ref | Call] = []
    words: list[str] = []
    while text[position] == ".":
        words.append(".")
        position += 1
    expect_key = True
    while True:
        character = text[position]
        if expect_key or character == "[":
            bracket = character == "["
            if bracket:
                words.append("[")
                position += 1
            if text.startswith("${", position):
                if words:
                    parts.append("".join(words))
                    words = []
                nested, position = _interpolation(text, position, depth + 1)
                parts.append(nested)
            else:
                match = _KEY.match(text, position)
                if match is None:
                    raise _NotSimple
                words.append(match.group())
                position = match.end()
            if bracket:
                if text[position] != "]":
                    raise _NotSimple
                words.append("]")
                position += 1
            expect_key = False
        elif character == ".":
            words.append(".")
            position += 1
            expect_key = True
            if text[position] == "[":
                raise _NotSimple
        else:
            break
    if words:
        parts.append("".join(words))
    position = _skip_space(text, position)
    if text[position] == "}":
        return Ref(tuple(parts), start, position + 1), position + 1
    if text[position] != ":" or len(parts) != 1 or not isinstance(parts[0], str):
        raise _NotSimple
    if not all(_ID.match(word) for word in parts[0].split(".")):
        raise _NotSimple
    args, position = _arguments(text, position + 1, depth)
    return Call((parts[0],), args, start, position), position


def _arguments(text: str, position: int, depth: int) -> tuple[tuple[Element, ...], int]:
    position = _skip_space(text, position)
    if text[position] == "}":
        return (), position + 1
    args: list[Element] = []
    while True:
        argument, position = _argument(text, position, depth)
        args.append(argument)
        position = _skip_space(text, position)
        if text[position] == "}":
            return tuple(args), position + 1
        if text[position] != ",":
            raise _NotSimple
        position = _skip_space(text, position + 1)


def _argument(text: str, start: int, depth: int) -> tuple[Element, int]:
    quote = text[start]
    if quote in "\"'":
        end = text.index(quote, start + 1) if quote in text[start + 1 :] else -1
        inner = text[start + 1 : end]
        if end < 0 or "\\" in inner or "$" in inner:
            raise _NotSimple
        parts = (Literal(inner, start + 1, end),) if inner else ()
        return Quoted(parts, start, end + 1), end + 1
    found: list[Part] = []
    position = start
    while True:
        if text.startswith("${", position):
            interpolation, position = _interpolation(text, position, depth + 1)
            found.append(interpolation)
        elif match := _UNQUOTED.match(text, position):
            position = match.end()
            found.append(Literal(match.group(), match.start(), position))
        else:
            break
    # White space before a comma or the closing brace is no part of the argument.
    if found and isinstance(last := found[-1], Literal):
        found.pop()
        kept = last.value.rstrip(" \t")
        position = last.start + len(kept)
        if kept:
            found.append(Literal(kept, last.start, position))
    if not found:
        raise _NotSimple
    if len(found) == 1 and isinstance(only := found[0], Literal):
        found[0] = Literal(typed_value(only.value), start, position)
    return Primitive(tuple(found), start, position), position


def typed_value(word: str) -> Any:
    """The value of an unquoted word in OmegaConf's grammar: int, float, bool, null or text."""
    if _INT.match(word):
        return int(word)
    if _FLOAT.match(word):
        return float(word)
    return {"true": True, "false": False, "null": None}.get(word.lower(), word)
