"""The edits of one scalar of a text."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any


__all__ = ["Retext", "Whole"]


@dataclass(frozen=True)
class Whole:
    """Replace the scalar by `value`, together with its quotes, tag and block header."""

    value: Any


@dataclass(frozen=True)
class Retext:
    """Replace the text of the scalar. It stays a string, in its style if that style can hold the text."""

    text: str


Edit = Whole | Retext
