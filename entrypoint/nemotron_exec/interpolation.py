"""OmegaConf's interpolation grammar, parsed once into a small tree that keeps every position.

`parse` reads the forms that configs mostly use by itself: importing OmegaConf costs 56 ms, more than everything else
the launcher does. All other forms go through OmegaConf's own parser, and both give the same tree
(tests/test_interpolation.py states that as a property).
"""

from __future__ import annotations

import re

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Call",
    "Dict",
    "Element",
    "GrammarError",
    "Interpolation",
    "List",
    "Literal",
    "Primitive",
    "Quoted",
    "Ref",
    "Text",
    "parse",
    "parse_simple",
    "parse_with_omegaconf",
]


class GrammarError(ValueError):
    """The text is not of OmegaConf's grammar; OmegaConf would refuse it as well."""


@dataclass(frozen=True)
class Literal:
    """Characters without an interpolation; `value` is unescaped, and typed where it is a whole argument."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True)
class Ref:
    """`${a.b[0]}`, `${..x}`, `${a.${b}}`: `parts` joined give the path."""

    parts: tuple[str | Ref | Call, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """`${name:args}`; the parts of `name` joined give the resolver's name."""

    name: tuple[str | Ref | Call, ...]
    args: tuple[Element, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Primitive:
    """An unquoted argument: one literal, one interpolation, or a concatenation of both."""

    parts: tuple[Literal | Ref | Call, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Quoted:
    """A quoted argument, always a string. `start` and `end` include the quotes."""

    parts: tuple[Literal | Ref | Call, ...]
    start: int
    end: int


@dataclass(frozen=True)
class List:
    """`[a, b]` as an argument."""

    items: tuple[Element, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Dict:
    """`{a: b}` as an argument."""

    pairs: tuple[tuple[Any, Element], ...]
    start: int
    end: int


@dataclass(frozen=True)
class Text:
    """A whole scalar."""

    parts: tuple[Literal | Ref | Call, ...]


Interpolation = Ref | Call
Element = Primitive | Quoted | List | Dict
Part = Literal | Ref | Call

_MAX_LENGTH = 65_536  # ANTLR's time grows faster than the text; no expression of a person is longer
_MAX_DEPTH = 50


def parse(text: str) -> Text:
    """The tree of a scalar that holds `${`.

    Raises:
        GrammarError: OmegaConf does not take the text either, or it is beyond any reasonable size.
    """
    tree = parse_simple(text)
    if tree is None:
        if len(text) > _MAX_LENGTH or _depth(text) > _MAX_DEPTH:
            raise GrammarError(f"an expression of {len(text)} characters, nested {_depth(text)} deep, is too large")
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


# --- The simple forms ---------------------------------------------------------------------------------------------


class _NotSimple(Exception):  # noqa: N818 - a signal between two parsers, never an error
    pass


# Names follow omegaconf/grammar/OmegaConfGrammarLexer.g4.
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"[A-Za-z0-9_\-]+")
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*\Z")
_UNQUOTED = re.compile(r"(?:[A-Za-z0-9_/\-+.%*@?|: \t]|\$(?!\{))+")
_INT_UNSIGNED = r"(?:0|[1-9](?:_?[0-9])*)"
_INT = re.compile(rf"[+-]?{_INT_UNSIGNED}\Z")
_POINT = rf"(?:{_INT_UNSIGNED}\.|{_INT_UNSIGNED}?\.[0-9](?:_?[0-9])*)"
_FLOAT = re.compile(
    rf"[+-]?(?:(?:{_INT_UNSIGNED}|{_POINT})[eE][+-]?[0-9](?:_?[0-9])*|{_POINT}|[Ii][Nn][Ff]|[Nn][Aa][Nn])\Z"
)


def parse_simple(text: str) -> Text | None:
    r"""The tree of a scalar in one of the common forms, or None.

    Common are `${a.b}`, `${.x}`, `${a[0]}`, `${f:x,${y},"z"}` and text around them; not: backslashes before an
    interpolation, lists, dictionaries and escapes in arguments, and whatever is not valid.
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
    if depth > _MAX_DEPTH:
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
    # White space before a comma or the closing brace belongs to that.
    if found and isinstance(last := found[-1], Literal):
        found.pop()
        kept = last.value.rstrip(" \t")
        position = last.start + len(kept)
        if kept:
            found.append(Literal(kept, last.start, position))
    if not found:
        raise _NotSimple
    if len(found) == 1 and isinstance(only := found[0], Literal):
        found[0] = Literal(_typed(only.value), start, position)
    return Primitive(tuple(found), start, position), position


def _typed(word: str) -> Any:
    if _INT.match(word):
        return int(word)
    if _FLOAT.match(word):
        return float(word)
    return {"true": True, "false": False, "null": None}.get(word.lower(), word)


# --- Everything else: OmegaConf's own parser ------------------------------------------------------------------------


def parse_with_omegaconf(text: str) -> Text:
    """The tree of any scalar, by OmegaConf's ANTLR grammar.

    Raises:
        GrammarError: It does not parse.
    """
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse as parse_grammar

    try:
        tree = parse_grammar(text)
    except GrammarParseError as error:
        raise GrammarError(str(error).splitlines()[0]) from None
    return Text(_parts(_children(tree.getChild(0))))


def _children(context: Any) -> list[Any]:
    return list(context.getChildren()) if context.getChildCount() else []


def _is_terminal(node: Any) -> bool:
    return hasattr(node, "symbol")


def _kind(node: Any) -> str:
    """`ID`, `ESC`, … for a token; `interpolation`, `primitive`, … for a rule of the grammar."""
    from omegaconf.grammar.gen.OmegaConfGrammarLexer import OmegaConfGrammarLexer

    if _is_terminal(node):
        return str(OmegaConfGrammarLexer.symbolicNames[node.symbol.type])
    return str(type(node).__name__.removesuffix("Context"))


def _span(node: Any) -> tuple[int, int]:
    if _is_terminal(node):
        return node.symbol.start, node.symbol.stop + 1
    return node.start.start, node.stop.stop + 1


def _parts(nodes: list[Any]) -> tuple[Part, ...]:
    """Tokens and interpolations of a text, unescaped as in omegaconf/grammar_visitor.py `_unescape`."""
    parts: list[Part] = []
    for index, node in enumerate(nodes):
        if not _is_terminal(node):
            parts.append(_convert_interpolation(node))
            continue
        following = nodes[index + 1] if index + 1 < len(nodes) else None
        before_interpolation = following is not None and not _is_terminal(following)
        kind, value = _kind(node), node.symbol.text
        if kind == "ESC_INTER":
            value = value[-(len(value) // 2 + 1) :]
        elif (
            kind == "ESC"
            or (kind == "TOP_ESC" and before_interpolation)
            or (kind == "QUOTED_ESC" and (following is None or before_interpolation))
        ):
            value = value[1::2]
        start, end = _span(node)
        if parts and isinstance(before := parts[-1], Literal):
            parts[-1] = Literal(before.value + value, before.start, end)
        else:
            parts.append(Literal(value, start, end))
    return tuple(parts)


def _convert_interpolation(node: Any) -> Interpolation:
    inner = node.getChild(0)
    start, end = _span(inner)
    children = _children(inner)
    if _kind(inner) == "InterpolationNode":
        return Ref(_join(child for child in children[1:-1]), start, end)
    name = _join(_children(children[1]))
    args = _sequence(children[3]) if _kind(children[3]) == "Sequence" else ()
    return Call(name, args, start, end)


def _join(nodes: Any) -> tuple[str | Ref | Call, ...]:
    parts: list[str | Ref | Call] = []
    for node in nodes:
        inner = node.getChild(0) if _kind(node) == "ConfigKey" else node
        part: str | Ref | Call = inner.symbol.text if _is_terminal(inner) else _convert_interpolation(inner)
        if parts and isinstance(parts[-1], str) and isinstance(part, str):
            parts[-1] = parts[-1] + part
        else:
            parts.append(part)
    return tuple(parts)


def _sequence(context: Any) -> tuple[Element, ...]:
    """Elements between commas; a missing one is an empty string (deprecated in OmegaConf, and still read)."""
    items: list[Element] = []
    after_comma = True
    position = _span(context)[0]
    for child in _children(context):
        if _is_terminal(child):
            if after_comma:
                items.append(Quoted((), position, position))
            after_comma = True
            position = _span(child)[1]
        else:
            items.append(_element(child.getChild(0)))
            after_comma = False
    if after_comma:
        items.append(Quoted((), position, position))
    return tuple(items)


def _element(node: Any) -> Element:
    kind = _kind(node)
    start, end = _span(node)
    children = _children(node)
    if kind == "Primitive":
        return Primitive(_primitive(children), start, end)
    if kind == "QuotedValue":
        inner = _parts(_children(children[1])) if len(children) == 3 else ()
        return Quoted(inner, start, end)
    if kind == "ListContainer":
        return List(_sequence(children[1]) if len(children) == 3 else (), start, end)
    pairs = []
    for pair in children[1:-1:2]:
        key, _, value = _children(pair)
        (literal,) = _primitive(_children(key))
        assert isinstance(literal, Literal)
        pairs.append((literal.value, _element(value.getChild(0))))
    return Dict(tuple(pairs), start, end)


def _primitive(children: list[Any]) -> tuple[Part, ...]:
    if len(children) == 1 and _is_terminal(children[0]):
        kind, text = _kind(children[0]), children[0].symbol.text
        start, end = _span(children[0])
        if kind in ("INT", "FLOAT", "BOOL", "NULL"):
            return (Literal(_typed(text), start, end),)
    return _parts(children)
