"""A Hydra program's config directory (`--config-path D --config-name N`).

Hydra composes the config from a defaults list, which the command line may change. Only values that do not depend on it
are resolved: `${art:…}`, `${run.…}` from the primary config's `run`, and arithmetic on these. Every file under the
directory that names an artifact is rewritten into a new directory. There it stands beside links to the rest of the
original.
"""

from __future__ import annotations

import contextlib
import os
import re

from nemotron_exec.command.override import Override, parse_overrides
from nemotron_exec.command_scan import is_yaml_name, may_hold_something_of_ours, read_regular
from nemotron_exec.config.override import Reach
from nemotron_exec.document.document import Document, Scalar
from nemotron_exec.document.parse import load
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from nemotron_exec.command.words import Command, ConfigArgument
    from nemotron_exec.config.evaluate import Path

__all__ = [
    "OnlyRun",
    "chosen_globally",
    "contested",
    "group_files",
    "mentions_artifacts",
    "near_files",
    "run_of",
    "without_silent",
    "words",
]

_MAX_FILES = 4096
_MAX_LOOKED_AT = 100_000
_GLOBAL = pattern(r"^#\s*@package\s+_global_", re.MULTILINE)
_NAMES = pattern(r"[\w.\-]+")
_REFERENCE = pattern(rb"\$\{\s*(?:art|manifest)\s*:")


class OnlyRun(Reach):
    """Everything outside of `run` counts as overridden: a group that the command selects may set it."""

    def __init__(self, contested: set[str]) -> None:
        super().__init__(("run", key) for key in contested)

    def replaces(self, path: Path) -> bool:
        """See `Reach`."""
        return path[:1] != ("run",) or super().replaces(path)

    def touches(self, path: Path) -> bool:
        """See `Reach`."""
        return path[:1] != ("run",) or super().touches(path)


def without_silent(command: Command) -> Command:
    """The command without a tentative config that names no artifact, because most Hydra programs use none.

    Raises:
        LaunchError: The primary config does not parse.
    """
    configs = tuple(one for one in command.configs if not one.tentative or mentions_artifacts(one, command.argv))
    silent = tuple(one for one in command.configs if one not in configs)
    return replace(command, configs=configs, silent=silent) if silent else command


def mentions_artifacts(argument: ConfigArgument, words: Sequence[str]) -> bool:
    """Whether artifacts may be used: by an override or section `run`, or by `${art:…}` in command, config or group.

    Raises:
        LaunchError: The primary config does not parse.
    """
    if any(override.is_about_run for override in parse_overrides(words)):
        return True
    if any(_REFERENCE.search(os.fsencode(word)) for word in words):
        return True
    with open(argument.path, "rb") as stream:
        content = stream.read()
    if _REFERENCE.search(content):
        return True
    if b"run" in content:
        tree = load(argument.path).tree()
        if isinstance(tree, dict) and "run" in tree:
            return True
    return any(_REFERENCE.search(content) for _, content in _yaml_files(argument.directory, argument.path))


def group_files(directory: str, primary: str) -> tuple[Document, ...]:
    """The other YAML files under the directory that may name an artifact.

    Raises:
        LaunchError: One of them does not parse, or the directory holds more files than any config has.
    """
    found = []
    for path, content in _yaml_files(directory, primary):
        if not path:
            raise LaunchError(
                f"to read the Hydra configs under {directory}",
                f"there are more than {_MAX_FILES} YAML files in it",
                "Name the directory that holds only the configs",
            )
        if (b"${" in content and may_hold_something_of_ours(content)) or b"run" in content:
            found.append(load(path))
    return tuple(found)


def _yaml_files(directory: str, primary: str) -> Iterator[tuple[str, bytes]]:
    """The YAML files under the directory except the primary one. An empty path comes last where there are too many."""
    seen = looked_at = 0
    for folder, folders, names in os.walk(directory):
        # A config directory may be the project itself. Skip .git, .venv and .hydra of earlier runs, which are no
        # groups.
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        looked_at += len(names)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if path == primary or not is_yaml_name(name) or not os.path.isfile(path):
                continue
            seen += 1
            if seen > _MAX_FILES:
                yield "", b""
                return
            with open(path, "rb") as stream:
                yield path, stream.read()
        if looked_at > _MAX_LOOKED_AT:
            return


def chosen_globally(
    argument: ConfigArgument, primary: Document, groups: tuple[Document, ...], overrides: Sequence[Override]
) -> tuple[Document, ...]:
    """The groups that Hydra may merge at the top of the config, as far as this is known without composing it.

    Such a group lies at the top of the directory or has `@package _global_`, and the command or a defaults list names
    it.
    """
    named: set[str] = set()
    replaced: dict[str, set[str]] = {}
    everywhere = False
    for override in overrides:
        text = override.text or ""
        everywhere = everywhere or "_global_" in override.word
        target = named if override.sign.startswith("+") else replaced.setdefault(override.group, set())
        target.update(_NAMES.findall(text))
    for document in (primary, *groups):
        tree: Any = document.tree()
        entries = tree.get("defaults") if isinstance(tree, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
                for scalar in value if isinstance(value, list) else [value]:
                    if isinstance(scalar, Scalar):
                        everywhere = everywhere or "_global_" in f"{key}{scalar.value}"
                        # An interpolation may give any name.
                        named.update(["*"] if "${" in scalar.value else _NAMES.findall(scalar.value.partition("@")[0]))
    chosen = []
    for document in groups:
        group, file = os.path.split(os.path.relpath(document.path, argument.directory))
        name = os.path.splitext(file)[0]
        at_the_top = not group or everywhere or _GLOBAL.search(document.text)
        if at_the_top and (name in replaced.get(group, ()) or (group not in replaced and named & {name, "*"})):
            chosen.append(document)
    return tuple(chosen)


def near_files(argument: ConfigArgument, overrides: Sequence[Override]) -> list[tuple[str, str]]:
    """The config and the files of the groups that the command and its defaults lists select, as paths and texts.

    The defaults lists are read without composing the config. Where a name is interpolated or a pattern, every file of
    the group counts.
    """
    root = argument.directory
    replaced = {override.group.strip("/") for override in overrides if override.sign in ("", "~")}
    pending = [argument.path]
    for override in overrides:
        if override.sign != "~":
            pending += _files_of(root, override.group.strip("/"), override.text or "")
    found: dict[str, str] = {}
    while pending and len(found) < _MAX_FILES:
        path = pending.pop(0)
        data = None if path in found else read_regular(path)
        if data is None:
            continue
        found[path] = data.decode("utf-8", "replace")
        if b"defaults" in data:
            for group, names in _defaults(path, os.path.dirname(os.path.relpath(path, root))):
                if group not in replaced:
                    pending += _files_of(root, group, names)
    return list(found.items())


def _defaults(path: str, folder: str) -> Iterator[tuple[str, str]]:
    """The entries of a defaults list: each group, and the option selected from it."""
    try:
        tree: Any = load(path).tree()
    except LaunchError:
        return  # Hydra will report it
    entries = tree.get("defaults") if isinstance(tree, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            group = str(key).removeprefix("optional ").removeprefix("override ").partition("@")[0].strip()
            for scalar in value if isinstance(value, list) else [value]:
                if not isinstance(scalar, Scalar):
                    continue
                name = scalar.value.partition("@")[0].strip()
                absolute = group.startswith("/") or (not group and name.startswith("/"))
                parts = ("" if absolute else folder, group, os.path.dirname(name) if "${" not in name else "")
                yield "/".join(part.strip("/") for part in parts if part.strip("/")), os.path.basename(name)


def _files_of(root: str, group: str, names: str) -> list[str]:
    """The files of a group that a text names: `a`, `a,b`, `choice(a,b)`, `glob(*)`."""
    folder = os.path.join(root, group)
    if "${" in names or "*" in names:
        with contextlib.suppress(OSError):
            return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if is_yaml_name(name)]
    named = [os.path.join(folder, name.removesuffix(".yaml") + ".yaml") for name in re.findall(r"[\w.\-/]+", names)]
    return [path for path in named if os.path.isfile(path)]


def run_of(document: Document) -> dict[Any, Any]:
    """The `run` section of a document; {} where it has none."""
    tree: Any = document.tree()
    run = tree.get("run") if isinstance(tree, dict) else None
    return run if isinstance(run, dict) else {}


def contested(documents: tuple[Document, ...]) -> set[str]:
    """Keys of `run` that a group sets. The command's defaults list decides which value wins."""
    return {str(key) for document in documents for key in run_of(document)}


def words(argument: ConfigArgument, directory: str) -> str:
    """The new word for the config. NUL stands between words where `--config-path` is added to the command."""
    if argument.hydra is not None and argument.hydra >= 0:
        return argument.prefix + directory
    return "\0".join([argument.prefix, "--config-path", directory])
