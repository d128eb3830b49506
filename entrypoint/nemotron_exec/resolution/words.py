"""The changes of an answer to the words of a command, in a form that each launcher applies to its own command.

Launchers of one question may have different words (`--id node$i`, here an absolute path and there a relative one). They
share the order of their configs, and the overrides that decide the answer.
"""

from __future__ import annotations

from nemotron_exec.command.words import replace_paths

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from nemotron_exec.command.words import Command, ConfigArgument
    from nemotron_exec.config.files import Rendered

__all__ = ["apply_changes", "portable_changes"]


def portable_changes(command: Command, rendered: Rendered) -> dict[str, Any]:
    """The changes for `command`, as a JSON object that any launcher of the question can apply.

    Args:
        command: The leader's command.
        rendered: The rendered configs of the leader's command.
    """
    paths = dict(rendered.moved)
    return {
        "configs": [paths.get(config) for config in command.configs],
        "overrides": {
            override.word: rendered.arguments[override.index]
            for override in command.overrides
            if override.index in rendered.arguments
        },
        "dropped": [override.word for override in command.overrides if override.index in rendered.dropped],
    }


def apply_changes(command: Command, changes: Mapping[str, Any]) -> tuple[dict[int, str], frozenset[int]]:
    """The changes for a launcher's own command: new words, and removed words, by their distance from the program."""
    arguments: dict[int, str] = {}
    plain: dict[int, list[tuple[ConfigArgument, str]]] = {}
    for config, path in zip(command.configs, changes["configs"], strict=True):
        if path is None or config.index < 0:
            continue
        if config.hydra is not None:
            from nemotron_exec.config import hydra

            arguments[config.index] = hydra.words(config, path)
        else:
            plain.setdefault(config.index, []).append((config, path))
    arguments |= {index: replace_paths(pairs) for index, pairs in plain.items()}
    for override in command.overrides:
        if override.word in changes["overrides"]:
            arguments[override.index] = changes["overrides"][override.word]
    gone = set(changes["dropped"])
    dropped = frozenset(override.index - command.program for override in command.overrides if override.word in gone)
    return {index - command.program: word for index, word in arguments.items()}, dropped
