"""Artifact references: how `name:alias` in a config's `run` section is written and recognised."""

from __future__ import annotations

import re

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.reference import looks_like_reference

__all__ = ["Origin", "Reference", "looks_like_reference", "parse_reference"]

# W&B's own rule for artifact names (wandb/sdk/artifacts/_validators.py), and what a file system takes.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*\Z")
_ALIAS = re.compile(r"[^/:\s][^/:]*\Z")


@dataclass(frozen=True)
class Origin:
    """Where in the user's input something was said. Lines count from 1; 0 where there is none (overrides)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """`file:line`, as editors read it."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Reference:
    """One artifact as the user named it.

    Attributes:
        key: The name under `run:` by which `${art:KEY,…}` refers to it.
        text: What the config says, unchanged.
        parts: The slash-separated name: `("entity", "project", "name")`, `("project", "name")` or `("name",)` for
            W&B; for the manifest store all of them together are the name.
        alias: What follows the colon, normalised: `latest` where there is none, `v3` for `3`.
        origin: File and line, for messages.
    """

    key: str
    text: str
    parts: tuple[str, ...]
    alias: str
    origin: Origin

    @property
    def name(self) -> str:
        """The parts joined again: the name in the manifest store."""
        return "/".join(self.parts)


def parse_reference(key: str, text: str, origin: Origin) -> Reference:
    """Read `[art://][entity/][project/]name[:alias]`.

    Raises:
        LaunchError: A part is empty, absolute, `..`, or holds characters that no store takes.
    """
    wanted = f"run.{key} ({origin}) to name an artifact as [entity/][project/]name[:version or alias]"
    body = text.strip().removeprefix("art://")
    name, colon, alias = body.rpartition(":")
    if not colon:
        name, alias = body, "latest"
    if alias.isdigit():
        alias = f"v{int(alias)}"
    parts = tuple(name.split("/"))
    for part in parts:
        if not _PART.match(part):
            raise LaunchError(
                wanted,
                f"{text!r}, whose part {part!r} is {'empty' if not part else 'not a name'}",
                "Write a name of letters, digits, '.', '_' and '-', without '..' or a leading '/'",
            )
    if not _ALIAS.match(alias):
        raise LaunchError(wanted, f"{text!r}, whose version {alias!r} is not one", "Write v3, 3, latest or an alias")
    return Reference(key, text, parts, alias, origin)
