"""What becomes of one scalar of a text."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any


__all__ = ["Retext", "Whole"]


@dataclass(frozen=True)
class Whole:
    """The scalar gives way to `value`, with its quotes, tag and block header."""

    value: Any


@dataclass(frozen=True)
class Retext:
    """The scalar stays a string, in its style where that can hold the text."""

    text: str


Edit = Whole | Retext
