"""What a check says."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nemotron_exec.command import Command
    from nemotron_exec.options import Options
    from nemotron_exec.rank import Place

__all__ = ["Finding", "Level", "Patient"]


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # the job would work; something in it would not be as one expects
    FAULT = "fault"  # the job would not start, or would lose artifacts


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: How bad it is.
        subject: What was looked at, in a word.
        found: What is the case.
        remedy: What to do about it; empty where all is well.
    """

    level: Level
    subject: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        """The line for people, the remedy below it."""
        text = f"{self.level.value:<8} {self.subject:<10} {self.found}"
        return text + (f"\n{'':<19} {self.remedy}." if self.remedy else "")


@dataclass(frozen=True)
class Patient:
    """What is examined.

    Attributes:
        chosen: Options of nemotron-exec.
        words: The command; may be empty.
        environ: The environment.
    """

    chosen: Options
    words: tuple[str, ...]
    environ: Mapping[str, str]

    @cached_property
    def command(self) -> Command:
        """The command, read."""
        from nemotron_exec.command import read

        return read(self.words, self.chosen.config, self.environ)

    @cached_property
    def place(self) -> Place:
        """Where this launcher stands."""
        from nemotron_exec.rank import place

        return place(self.environ, self.command)
