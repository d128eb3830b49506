"""The effect of the command's overrides on the config: values of `run.*`, and the paths that the others may change.

`run.*` overrides are applied before anything is resolved. The script applies all others, so a value that they could
change must stay an interpolation.
"""

from __future__ import annotations

from nemotron_exec.document.document import Scalar
from nemotron_exec.document.parse import parse_text
from nemotron_exec.errors import LaunchError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from nemotron_exec.command.override import Override
    from nemotron_exec.config.evaluate import Path
    from nemotron_exec.document.document import Node

__all__ = ["Reach", "value_of"]


def value_of(override: Override) -> Node:
    """The value of an override, read as YAML. Hydra's quotes, lists and dictionaries are YAML, too.

    Raises:
        LaunchError: The value is no YAML.
    """
    try:
        root = parse_text(override.text or "", override.word).root
    except LaunchError as error:
        raise LaunchError(f"to apply the override {override.word}", error.found, "Quote its value") from None
    return root if root is not None else _empty(override.word)


def _empty(word: str) -> Scalar:
    node = parse_text("''", word).root
    assert isinstance(node, Scalar)
    return node


class Reach:
    """The paths of the config that the script's overrides could change."""

    def __init__(self, paths: Iterable[tuple[Any, ...]]) -> None:
        self._exact = {tuple(map(str, path)) for path in paths}
        self._above = {path[:length] for path in self._exact for length in range(len(path) + 1)}

    def replaces(self, path: Path) -> bool:
        """Whether an override replaces the value at `path`, or a container of it."""
        if not self._exact:
            return False
        keys = tuple(map(str, path))
        return any(keys[:length] in self._exact for length in range(1, len(keys) + 1))

    def touches(self, path: Path) -> bool:
        """Whether an override changes a value at, above or under `path`."""
        return bool(self._exact) and (tuple(map(str, path)) in self._above or self.replaces(path))
