"""The nodes of OmegaConf's interpolation language."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MAX_DEPTH",
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
]


class GrammarError(ValueError):
    """The text does not follow OmegaConf's grammar; OmegaConf refuses it as well."""


@dataclass(frozen=True)
class Literal:
    """Characters without an interpolation. `value` is unescaped, and typed if it is a whole argument."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True)
class Ref:
    """`${a.b[0]}`, `${..x}`, `${a.${b}}`. The joined `parts` give the path."""

    parts: tuple[str | Ref | Call, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """`${name:args}`. The joined parts of `name` give the resolver's name."""

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

MAX_DEPTH = 50
