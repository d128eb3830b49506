"""The finding of a check."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nemotron_exec.message import Messages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from nemotron_exec.command.words import Command
    from nemotron_exec.options import Options
    from nemotron_exec.place.rank import Place

__all__ = ["GROUPS", "Finding", "Kept", "Level", "Patient"]

GROUPS = ("Environment", "Injection", "Store", "W&B", "Cluster")
"""Parts of the report, in their order if none has a fault."""

_GROUP_OF = {
    **dict.fromkeys(("command", "config"), "Environment"),
    **dict.fromkeys(("python", "patch", "patches"), "Injection"),
    **dict.fromkeys(("store", "cache"), "Store"),
    **dict.fromkeys(("run", "wandb"), "W&B"),
    **dict.fromkeys(("place", "job", "state", "clock", "/nemo_run", "mount"), "Cluster"),
}


class Level(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    ABSENT = "absent"  # not installed, so there is nothing to check
    WARNING = "warning"  # the job would work, but something in it would surprise the user
    FAULT = "fault"  # the job would not start, or would lose artifacts


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: How bad it is.
        subject: The thing that was checked, in a word.
        found: The state that was found.
        remedy: How to mend it; empty where all is well.
        detail: Whether only `-v` shows it.
    """

    level: Level
    subject: str
    found: str
    remedy: str = ""
    detail: bool = False

    @property
    def group(self) -> str:
        """The part of the report where the finding stands."""
        return _GROUP_OF.get(self.subject, GROUPS[0])

    def to_json(self) -> dict[str, Any]:
        """The finding as one line of `--doctor --log-format json`."""
        return {
            "level": self.level.value,
            "group": self.group,
            "subject": self.subject,
            "found": self.found,
            "remedy": self.remedy,
            "detail": self.detail,
        }


class Kept(Messages):
    """Keeps warnings for the report, and prints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def warning(self, text: str, **_fields: object) -> None:
        """Keep the warning."""
        self.kept.append(text)

    def info(self, text: str, **_fields: object) -> None:
        """Print nothing."""
        del text


@dataclass(frozen=True)
class Patient:
    """The start of a command that the checks examine.

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
        """The wrapped command, read."""
        from nemotron_exec.command.read import read
        from nemotron_exec.config.hydra import without_silent

        return without_silent(read(self.words, self.chosen.config, self.environ))

    @cached_property
    def place(self) -> Place:
        """Rank and node of this launcher."""
        from nemotron_exec.place.rank import place

        return place(self.environ, self.command)
