"""Converts the parse tree of OmegaConf's own grammar to the nodes of tree.py."""

from __future__ import annotations

from nemotron_exec.interpolation.simple import typed_value
from nemotron_exec.interpolation.tree import (
    Call,
    Dict,
    Element,
    GrammarError,
    Interpolation,
    List,
    Literal,
    Part,
    Primitive,
    Quoted,
    Ref,
    Text,
)

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = ["parse_with_omegaconf"]


def parse_with_omegaconf(text: str) -> Text:
    """The tree of any scalar, parsed by OmegaConf's ANTLR grammar.

    Raises:
        GrammarError: The text does not parse.
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
    """The name of a node: `ID`, `ESC`, … for a token; `interpolation`, `primitive`, … for a rule of the grammar."""
    from omegaconf.grammar.gen.OmegaConfGrammarLexer import OmegaConfGrammarLexer

    if _is_terminal(node):
        return str(OmegaConfGrammarLexer.symbolicNames[node.symbol.type])
    return str(type(node).__name__.removesuffix("Context"))


def _span(node: Any) -> tuple[int, int]:
    if _is_terminal(node):
        return node.symbol.start, node.symbol.stop + 1
    return node.start.start, node.stop.stop + 1


def _parts(nodes: list[Any]) -> tuple[Part, ...]:
    """The parts of a text, unescaped as in omegaconf/grammar_visitor.py `_unescape`."""
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
    """The elements between commas. A missing one is an empty string, which OmegaConf deprecates but still reads."""
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
            return (Literal(typed_value(text), start, end),)
    return _parts(children)
