"""Names near a name that does not exist, for messages."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean X or Y?` with at most two of the known names; "" where no name is near."""
    import difflib

    found = difflib.get_close_matches(name, list(known), 2, 0.6)
    return f"Did you mean {' or '.join(found)}?" if found else ""
