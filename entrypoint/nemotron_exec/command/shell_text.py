"""Reads the commands inside a literal `bash -c TEXT`: their words, and the directory that each of them runs in.

The text is read and never changed. A word that a shell would expand stays unknown.
"""

from __future__ import annotations

import os

from nemotron_exec.command_scan import read_regular
from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SHELLS", "Inner", "commands", "directory_of_arguments", "text_of"]

SHELLS = ("bash", "sh", "dash", "zsh", "ksh")
_KEYWORDS = ("if", "then", "else", "elif", "do", "while", "until", "!", "{", "time", "command", "builtin")
_MAX_BYTES = 1 << 16
_EXPANDED = ("$", "`", "*", "?", "~")


@dataclass(frozen=True)
class Inner:
    """One command of the text.

    Attributes:
        directory: The directory where it runs, after every `cd` in front of it.
        words: Its words, without quotes.
    """

    directory: str
    words: tuple[str, ...]


def text_of(argv: Sequence[str]) -> str | None:
    """The text after `-c` of a shell in the command; None if there is none."""
    for index, word in enumerate(argv):
        if os.path.basename(word) in SHELLS:
            for at in range(index + 1, len(argv) - 1):
                option = argv[at]
                if option.startswith("-") and not option.startswith("--") and option.endswith("c"):
                    return argv[at + 1]
                if not option.startswith(("-", "+")):
                    break
    return None


def directory_of_arguments(argv: Sequence[str]) -> str | None:
    """The directory where a shell's text starts the shell's own arguments: `sh -c 'cd sub && exec "$@"'`.

    The first word is the shell. None if the text starts no arguments or stays in its directory; "" if only the shell
    knows the directory.
    """
    if os.path.basename(argv[0]) not in SHELLS and not argv[0].endswith(".sh"):
        return None
    text = text_of(argv) or _text_of_file(argv)
    if text is None or not any(mark in text for mark in ("$@", "$*", "$1", "${@", "${1")):
        return None
    for one in _commands(text, ""):
        if any(
            word.startswith(("$", "${")) and word.strip("${}:") in ("@", "*", "0", "1", "@:1") for word in one.words
        ):
            return one.directory or None
    return "" if any(word in text.split() for word in ("cd", "pushd")) else None


def _text_of_file(argv: Sequence[str]) -> str | None:
    """The text of the script that a shell runs: `bash run.sh python train.py`."""
    names = argv if argv[0].endswith(".sh") else argv[1:]
    name = next((word for word in names if not word.startswith("-")), "")
    data = read_regular(name, _MAX_BYTES) if name.endswith(".sh") else None
    return None if data is None else data.decode("utf-8", "replace")


def commands(argv: Sequence[str], directory: str = "") -> list[Inner]:
    """The commands of the text, without those that start nemotron-exec.

    The list ends at a `cd` whose directory only a shell can expand.

    Args:
        argv: The command.
        directory: Where the shell is started.
    """
    text = text_of(argv)
    return [] if text is None else _commands(text, directory)


def _commands(text: str, directory: str) -> list[Inner]:
    import shlex

    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = [*lexer, ";"]
    except ValueError:
        return []  # a quote is not closed: the shell will report it
    found: list[Inner] = []
    words: list[str] = []
    for token in tokens:
        if token.strip("();<>|&"):
            words.append(token)
            continue
        while words and words[0] in _KEYWORDS:
            del words[0]
        if words[:1] in (["cd"], ["pushd"]):
            names = [word for word in words[1:] if not word.startswith("-") and not word.isdigit()]
            directory = os.path.join(directory, names[0] if names else "~")
            if any(mark in directory for mark in _EXPANDED):
                break
        elif words and "nemotron-exec" not in map(os.path.basename, words):
            found.append(Inner(directory, tuple(words)))
        words = []
    return found
