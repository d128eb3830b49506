"""The command's overrides: `a.b=1`, `+a.b=1`, `++a.b=1`, `~a.b`, as Hydra, OmegaConf and NeMo-RL read them.

`run.*` overrides are ours. All others stay the script's, and what they could change must stay an interpolation.
"""

from __future__ import annotations

import re

from nemotron_exec.document import Scalar, parse_text
from nemotron_exec.errors import LaunchError
from nemotron_exec.evaluate import Path, split_key
from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from nemotron_exec.document import Node

__all__ = ["Override", "Reach", "parse_override"]

_WORD = re.compile(r"(\+\+|\+|~)?([^=\s]+?)(?:=(.*))?\Z", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        index: Position of the word in argv.
        word: As written.
        sign: "", "+", "++" or "~".
        path: The key, split.
        text: What follows the `=`; None where there is none.
    """

    index: int
    word: str
    sign: str
    path: tuple[str, ...]
    text: str | None

    @property
    def is_ours(self) -> bool:
        """Whether it is about the `run` section."""
        return self.path[0] == "run"

    def node(self) -> Node:
        """The value, read as YAML reads it (Hydra's quotes, lists and dictionaries are YAML's as well).

        Raises:
            LaunchError: It is neither.
        """
        text = self.text or ""
        try:
            root = parse_text(text, self.word).root
        except LaunchError as error:
            raise LaunchError(f"to apply the override {self.word}", error.found, "Quote its value") from None
        return root if root is not None else _empty(self.word)


def _empty(word: str) -> Scalar:
    node = parse_text("''", word).root
    assert isinstance(node, Scalar)
    return node


def parse_override(index: int, word: str) -> Override | None:
    """Read a word of the command, or None if it is no override."""
    match = _WORD.match(word)
    if match is None:
        return None
    sign, key, text = match.groups()
    if text is None and sign != "~":
        return None
    # A Hydra key may name a package: group@package. What it says about `package` counts.
    name = key.rpartition("@")[2] if "@" in key else key
    path = tuple(part for part in split_key(name.replace("/", ".")) if part)
    return Override(index, word, sign or "", path, text) if path else None


class Reach:
    """Which paths of the config the script's overrides could change."""

    def __init__(self, paths: Iterable[tuple[Any, ...]]) -> None:
        self._exact = {tuple(map(str, path)) for path in paths}
        self._above = {path[:length] for path in self._exact for length in range(len(path) + 1)}

    def replaces(self, path: Path) -> bool:
        """Whether the value at `path`, or something that it lies in, is given anew."""
        if not self._exact:
            return False
        keys = tuple(map(str, path))
        return any(keys[:length] in self._exact for length in range(1, len(keys) + 1))

    def touches(self, path: Path) -> bool:
        """Whether something at, above or under `path` is."""
        return bool(self._exact) and (tuple(map(str, path)) in self._above or self.replaces(path))
