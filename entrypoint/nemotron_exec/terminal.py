"""Formats text for a terminal: colours the level, and indents wrapped lines.

Files and pipes get plain text: their reader may be grep.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

__all__ = ["coloured", "has_colour", "is_terminal", "width_of", "wrapped"]

_NARROWEST = 40  # columns; on a narrower terminal wrapping would make the text longer
_CODES = {"error": "1;31", "warning": "33", "gone": "31", "ok": "32", "dim": "2", "title": "1"}


def is_terminal(stream: IO[str]) -> bool:
    """Whether this stream is a terminal."""
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False


def has_colour(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal with colours, which the user has not switched off (no-color.org)."""
    return is_terminal(stream) and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"


def coloured(text: str, style: str) -> str:
    """The text in one of the colours "error", "warning", "gone", "ok", "dim" and "title"."""
    return f"\033[{_CODES[style]}m{text}\033[0m"


def width_of(stream: IO[str]) -> int:
    """The columns of a terminal; 0 where they are unknown, so that nothing is wrapped."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def wrapped(text: str, width: int, indent: str) -> str:
    """Break each line of the text between words, and indent its further lines by `indent`.

    Paths and other long words stay whole, so that they can be copied.
    """
    if width < _NARROWEST:
        return text
    import textwrap

    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        ) or [""]
    return "\n".join(lines)
