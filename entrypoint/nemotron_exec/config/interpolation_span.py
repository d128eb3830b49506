"""Finds the end of an interpolation without parsing its grammar."""

from __future__ import annotations

__all__ = ["end_of_interpolation"]


def end_of_interpolation(text: str, start: int) -> int:
    """The index after the `}` that closes the `${` at `start`.

    Raises:
        ValueError: No `}` closes it.
    """
    depth = 0
    position = start
    quote = ""
    while position < len(text):
        char = text[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if not depth:
                return position + 1
        elif char == "\\":
            position += 1
        position += 1
    raise ValueError(text)
