"""The place of a value in the user's files, for messages."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

__all__ = ["Origin"]


@dataclass(frozen=True)
class Origin:
    """A place in the user's input. Lines count from 1; 0 stands for no line (overrides)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """`file:line`, as editors read it."""
        return f"{self.file}:{self.line}" if self.line else self.file
