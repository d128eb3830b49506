"""Why the first word of a command is no program: the most frequent mistakes, each with the line that the user meant."""

from __future__ import annotations

import os
import re
import shlex
import shutil

from nemotron_exec.nearest import did_you_mean
from nemotron_exec.sitecustomize.payload.notice import redact_command

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ARTIFACT_COMMANDS", "OPTION_WORDS", "explain", "shown"]

ARTIFACT_COMMANDS = ("add", "completion", "diff", "flush", "gc", "graph", "hooks", "ls", "show", "verify")
"""Commands of nemotron-artifact, which people write behind nemotron-exec."""

OPTION_WORDS = ("doctor", "dry-run", "help", "resolve-only", "status", "version")
"""Options that people write as if they were commands."""

_BUILTINS = frozenset((
    *(".", "alias", "cd", "conda", "eval", "export", "module", "pushd", "set", "shopt"),
    *("source", "ulimit", "umask", "unset"),
))  # fmt: skip
_INTERPRETERS = {".py": "python", ".sh": "bash", ".bash": "bash"}
_SHOWN = 60  # characters of the user's own words
_ANYWHERE = "Check the spelling and the PATH of the environment that nemotron-exec runs in"


def explain(command: Sequence[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """The fault and the remedy, for a first word that is no program.

    Args:
        command: The command's words. The first one is on no PATH and is no executable file.
        environ: The environment whose PATH was searched.
    """
    word, rest = command[0], [*command[1:]]
    ending = os.path.splitext(word)[1].lower()
    parts = word.split()
    if ending in _INTERPRETERS and (os.path.isfile(word) or os.sep not in word) and len(parts) == 1:
        found = "it is a file here, not a program" if os.path.isfile(word) else "a script is no program"
        return found, f"Write {_line(_INTERPRETERS[ending], word, *rest)}"
    if ending in (".yaml", ".yml") and len(parts) == 1:
        return "it is a config, not a program", f"Write {_line('python', 'train.py', word, *rest)}, with your script"
    if len(parts) > 1:
        if "=" not in parts[0] and not rest and not re.search(r"[|&;<>$`]", word):
            return "the whole command is one word", f"Write it without the quotes: {_line(*parts)}"
        return "the whole command line is one word", f"Write {_line('bash', '-c', word)}"
    if re.match(r"[A-Za-z_]\w*=", word):
        name = word.partition("=")[0]
        return "it sets a variable, and is no program", f"Write {name}=… {_line(*rest or ('COMMAND',))}"
    if word in _BUILTINS:
        found = "it is built into the shell, not a program"
        return found, f"Write {_line('bash', '-c', shlex.join([word, *rest]) + ' && COMMAND')}"
    if word in ARTIFACT_COMMANDS:
        return "it is a command of nemotron-artifact", f"Write {_words('nemotron-artifact', word, *rest)}"
    if word.lstrip("-") in OPTION_WORDS:
        return "it is an option, not a command", f"Write {_words('nemotron-exec', '--' + word.lstrip('-'), *rest)}"
    if os.sep in word:
        return "no such file", _ANYWHERE
    near = did_you_mean(word, _programs(environ))
    return "nothing of that name on PATH", " ".join(filter(None, (near, _ANYWHERE)))


def shown(word: str) -> str:
    """A word of the command without secrets: of `VARIABLE=value` the name alone."""
    variable = re.match(r"([A-Za-z_]\w*=)\S", word)
    return variable[1] + "…" if variable and " " not in word else redact_command([word])[0]


def _line(*words: str) -> str:
    return _words("nemotron-exec", *words)


def _words(*words: str) -> str:
    """The command line, shortened at its end where it is long."""
    kept: list[str] = []
    for word in redact_command(words):
        if kept and sum(map(len, kept)) + len(word) > _SHOWN:
            return f"{' '.join(kept)} …"
        kept.append(shlex.quote(word))
    return " ".join(kept)


def _programs(environ: Mapping[str, str]) -> list[str]:
    """The names of all programs on PATH."""
    found: set[str] = set()
    for directory in os.get_exec_path(dict(environ)):
        try:
            found.update(os.listdir(directory))
        except OSError:
            continue
    return sorted(name for name in found if shutil.which(name, path=environ.get("PATH")) and len(name) > 1)
