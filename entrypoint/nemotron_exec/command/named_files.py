"""Which YAML files a word of the command names, and where in the word each name begins.

The forms are `cfg.yaml`, `--config=cfg.yaml`, `config=cfg.yaml`, `-ccfg.yaml`, `@cfg.yaml` and `a.yaml,b.yaml`. A file
that exists wins over every other reading of its name: `runs/lr=1e-4/cfg.yaml` is a path.
"""

from __future__ import annotations

import os

from nemotron_exec.command_scan import is_yaml_name

__all__ = ["mentioned_files", "named_files"]

_BEFORE = "=,:;@"
_AFTER = ",:;"
_SEPARATORS = " \t\n\r'\"();|&<>`={}[],:@#+!"


def named_files(word: str, directory: str = "") -> list[tuple[int, str]]:
    """The existing YAML files that a word names: where each begins in the word, and its name as written.

    Args:
        word: The word.
        directory: The working directory of the command.
    """
    if is_yaml_name(word) and _is_file(directory, word):
        return [(0, word)]
    starts = [0, *(index + 1 for index, char in enumerate(word) if char in _BEFORE)]
    if word.startswith("-") and not word.startswith("--"):
        starts.append(2)
    for marker in ("file://", "file:"):
        at = word.find(marker)
        if at >= 0:
            starts.append(at + len(marker))
    ends = [index for index, char in enumerate(word) if char in _AFTER] + [len(word)]
    found: list[tuple[int, str]] = []
    reached = 0
    for start in sorted(set(starts)):
        if start < reached:
            continue
        for end in reversed(ends):
            name = word[start:end]
            if end > start and is_yaml_name(name) and _is_file(directory, name):
                found.append((start, name))
                reached = end
                break
    return found


def mentioned_files(word: str, directory: str = "") -> list[str]:
    """The existing YAML files that stand anywhere in a word: `bash -c 'python train.py cfg.yaml'`, JSON, lists.

    A pattern of a shell (`conf/*.yaml`) names the files to which it expands.
    """
    if ".yaml" not in word and ".yml" not in word:
        return []
    text = word
    for char in _SEPARATORS:
        text = text.replace(char, " ")
    pieces = [word]
    # First try the pieces between blanks as they are: `runs/lr=1e-4/cfg.yaml` is a path.
    for piece in [*(piece.strip("'\"()[];,&|") for piece in word.split()), *text.split()]:
        before, mark, _ = piece.partition("?")
        pieces += [piece, before] if mark and is_yaml_name(before) else [piece]
        folder, name = os.path.split(piece)
        if ("*" in name or "?" in name) and is_yaml_name(name):
            pieces += _matching(directory, folder, name)
    return [name for name in dict.fromkeys(pieces) if is_yaml_name(name) and _is_file(directory, name)]


def _matching(directory: str, folder: str, pattern: str) -> list[str]:
    import fnmatch

    try:
        names = os.listdir(os.path.join(directory, folder) or ".")
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(fnmatch.filter(names, pattern))]


def _is_file(directory: str, name: str) -> bool:
    return os.path.isfile(os.path.join(directory, name))
