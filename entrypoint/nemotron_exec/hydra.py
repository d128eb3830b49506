"""A Hydra program's config directory (`--config-path D --config-name N`).

Hydra composes the config from a defaults list that the command line may change, so only what does not depend on that is
resolved: `${art:…}`, `${run.…}` out of the primary config's `run`, and arithmetic on these. Every file under the
directory that holds something of ours is rewritten into a directory that has everything else of the original beside it.
"""

from __future__ import annotations

import os

from nemotron_exec.command_scan import is_yaml_name, may_hold_something_of_ours
from nemotron_exec.document import Document, load
from nemotron_exec.errors import LaunchError
from nemotron_exec.override import Reach

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

    from nemotron_exec.command import ConfigArgument
    from nemotron_exec.evaluate import Path

__all__ = ["OnlyRun", "config_directory", "contested", "group_files", "words"]

_MAX_FILES = 4096


class OnlyRun(Reach):
    """Everything but `run` may come from a group that the command selects."""

    def __init__(self, contested: set[str]) -> None:
        super().__init__(("run", key) for key in contested)

    def replaces(self, path: Path) -> bool:
        """See `Reach`."""
        return path[:1] != ("run",) or super().replaces(path)

    def touches(self, path: Path) -> bool:
        """See `Reach`."""
        return path[:1] != ("run",) or super().touches(path)


def config_directory(argument: ConfigArgument) -> str:
    """The directory that Hydra searches: the config's path without the (possibly nested) config name."""
    return os.path.dirname(os.path.abspath(argument.path))


def group_files(directory: str, primary: str) -> tuple[Document, ...]:
    """The other files under the directory that may hold something of ours.

    Raises:
        LaunchError: One of them does not parse, or the directory holds more files than any config has.
    """
    found = []
    seen = 0
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            seen += 1
            if seen > _MAX_FILES:
                raise LaunchError(
                    f"to read the Hydra configs under {directory}",
                    f"there are more than {_MAX_FILES} files in it",
                    "Name the directory that holds only the configs",
                )
            path = os.path.join(folder, name)
            if path == primary or not is_yaml_name(name) or not os.path.isfile(path):
                continue
            with open(path, "rb") as stream:
                content = stream.read()
            if (b"${" in content and may_hold_something_of_ours(content)) or b"run" in content:
                found.append(load(path))
    return tuple(found)


def contested(documents: tuple[Document, ...]) -> set[str]:
    """Keys of `run` that a group sets too: which of them counts is decided by the command's defaults list."""
    keys: set[str] = set()
    for document in documents:
        tree: Any = document.tree()
        run = tree.get("run") if isinstance(tree, dict) else None
        if isinstance(run, dict):
            keys |= {str(key) for key in run}
    return keys


def words(argument: ConfigArgument, directory: str) -> str:
    """The new word for the argument; a NUL separates words where the command did not name the directory itself."""
    if argument.hydra is not None and argument.hydra >= 0:
        return argument.prefix + directory
    name = os.path.splitext(os.path.basename(argument.path))[0]
    return "\0".join([argument.prefix + name, "--config-path", directory])
