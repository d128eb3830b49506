"""Where a value stands in the user's files, for messages."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

__all__ = ["Origin"]


@dataclass(frozen=True)
class Origin:
    """Where in the user's input something was said. Lines count from 1; 0 where there is none (overrides)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """`file:line`, as editors read it."""
        return f"{self.file}:{self.line}" if self.line else self.file
