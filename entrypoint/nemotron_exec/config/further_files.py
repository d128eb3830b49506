"""Further YAML, JSON and TOML files of a command: `train.py cfg.yaml overrides.yaml`.

A program may merge them into its config. An interpolation that depends on a key of such a file is therefore kept. A
program whose text shows neither OmegaConf nor a merge cannot read interpolations, so there the rule does not hold.

The `run` section of such a file is not applied. If it names another version of an artifact, the start fails.
"""

from __future__ import annotations

import json
import os
import re
import sys

from nemotron_exec.command.named_files import named_files
from nemotron_exec.command.override import split_key
from nemotron_exec.command_scan import is_yaml_name, read_regular
from nemotron_exec.config.named import SETTINGS
from nemotron_exec.config.touched import stands
from nemotron_exec.document.document import Scalar
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    from nemotron_exec.config.evaluate import Path
    from nemotron_exec.config.run_words import RunWords

__all__ = ["Further", "find", "look_for_run", "paths_of"]

_MAX_BYTES = 1 << 20
_MAX_KEYS = 1 << 17  # bytes of a file that a person writes; parsing a larger one would delay the start
# A program without any of these words merges no files and reads no interpolations.
_MERGES = pattern(rb"(?i)omegaconf|hydra|merge|update\(|load_config|_config\(|from nemo")


@dataclass(frozen=True)
class Further:
    """One further file.

    Attributes:
        path: The path from the launcher's working directory.
        tree: Content of the file, a mapping or a list.
        merged: Whether the program may merge the file into its config.
    """

    path: str
    tree: Any
    merged: bool


def find(words: Sequence[str], start: int, configs: Collection[str], directory: str) -> list[Further]:
    """The files that the words name besides the configs.

    Args:
        words: The command's words.
        start: Index of the first word after the program.
        configs: The paths of the configs.
        directory: The working directory of the command.
    """
    seen = {os.path.realpath(path) for path in configs}
    merges: bool | None = None
    found = []
    for index in range(start, len(words)):
        for name in _names(words[index], directory):
            path = os.path.join(directory, name)
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            merges = _may_merge(words, start, directory) if merges is None else merges
            tree = _tree(path, merges=merges)
            if isinstance(tree, (dict, list)):
                found.append(Further(path, tree, merges))
    return found


def _names(word: str, directory: str) -> Iterator[str]:
    yield from (name for _, name in named_files(word, directory))
    for part in (word, *re.split(r"[=,@]", word)):
        if part.endswith((".json", ".toml")) and os.path.isfile(os.path.join(directory, part)):
            yield part


def _tree(path: str, *, merges: bool) -> Any:
    """The content of a file; None where it can change nothing, or is larger than a person writes.

    Args:
        path: The file.
        merges: Whether the program may merge the file; if not, only a `run` section in it matters.
    """
    data = read_regular(path, _MAX_KEYS + 1)
    if data is None or len(data) > _MAX_KEYS or not (merges or b"run" in data):
        return None
    try:
        if is_yaml_name(path):
            from nemotron_exec.document.parse import load

            return load(path).tree()
        if path.endswith(".json"):
            return json.loads(data)
        if sys.version_info >= (3, 11):
            import tomllib as toml
        else:
            import tomli as toml
        return toml.loads(data.decode())
    except (LaunchError, ValueError, RecursionError):
        return None


def _may_merge(words: Sequence[str], start: int, directory: str) -> bool:
    if start < 1:
        return True
    program = words[start - 1]
    if start > 1 and words[start - 2].startswith("-") and words[start - 2].endswith("c"):
        return _MERGES.search(program.encode("utf-8", "replace")) is not None
    text = read_regular(os.path.join(directory, program), _MAX_BYTES) if program.endswith(".py") else None
    return text is None or _MERGES.search(text) is not None


def paths_of(file: Further, trees: Sequence[Any]) -> Iterator[Path]:
    """The keys of the configs that a file sets. In the file the config may lie under a further key."""
    tops = {str(key) for tree in trees for key in tree}
    for path in _leaves(file.tree, ()):
        parts = [part for key in path for part in (split_key(key) if isinstance(key, str) else [key]) if part != ""]
        for at, part in enumerate(parts):
            if str(part) not in tops or str(part) == "run":
                continue
            # At its top a file may also set keys that the mapping does not have yet.
            if at == 0 or stands([str(one) for one in parts[at:]], trees):
                yield tuple(parts[at:])
                break


def _leaves(tree: Any, path: Path) -> Iterator[Path]:
    """The path of every value, and the key in each text of the form `a.b=c`."""
    pending: list[tuple[Path, Any]] = [(path, tree)]
    while pending:
        here, node = pending.pop()
        if isinstance(node, dict) and node:
            pending.extend(((*here, key), value) for key, value in node.items())
            continue
        if isinstance(node, list):
            pending.extend(((*here, number), value) for number, value in enumerate(node))
        text = node.value if isinstance(node, Scalar) else node
        if isinstance(text, str) and "=" in text:
            yield (text.partition("=")[0].strip("+~- "),)
        yield here


def look_for_run(file: Further, run: RunWords, warn: Callable[[str], object] | None, *, explicit: bool = False) -> None:
    """Refuse a file that names another version of an artifact of `run`, and warn of other keys in its `run` section.

    Args:
        file: The file.
        run: The `run` sections of the configs.
        warn: Called for each key that is not applied.
        explicit: Whether `-c` names the configs. Then the user has chosen the file, and another version only gives a
            warning.

    Raises:
        LaunchError: The file names another version.
    """
    section = file.tree.get("run") if isinstance(file.tree, dict) else None
    if not isinstance(section, dict):
        return
    for key, node in section.items():
        value = node.value if isinstance(node, Scalar) else node
        other = (run.is_other_artifact if explicit else run.is_other_version)(str(key), value)
        if other and not explicit:
            raise LaunchError(
                f"to apply run.{key} of {file.path}",
                "the run section of this file is not read",
                f"Write run.{key}={value} on the command line",
            )
        if warn is not None and (other or key in SETTINGS or run.may_be_artifact(str(key), value)):
            warn(f"run.{key} of {file.path} is not applied: write it into the config, or on the command line")
