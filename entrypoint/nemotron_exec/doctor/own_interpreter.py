"""The interpreter that the command itself would start, and how to start it with other code."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Start", "is_the_launchers", "start_of"]

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*\Z")
# Programs that start the words after them elsewhere, many times, or with other rights. A check must not start them.
_ELSEWHERE = frozenset(
    {
        *(
            "srun",
            "mpirun",
            "mpiexec",
            "orterun",
            "sbatch",
            "salloc",
            "flux",
            "jsrun",
            "aprun",
            "ssh",
            "kubectl",
            "ray",
        ),
        *("kubectl", "ray", "docker", "podman", "apptainer", "singularity", "enroot", "sudo", "su", "doas"),
    }
)
_VALUED = frozenset({"-W", "-X", "--check-hash-based-pycs"})


class Start:
    """How the command's interpreter is started with other code.

    Attributes:
        words: The command line, up to the code; None where the interpreter is not known.
        variables: Variables to be set in addition.
        what: Name of the interpreter for messages.
    """

    def __init__(self, words: Sequence[str] | None, what: str, variables: Mapping[str, str] | None = None) -> None:
        self.words = words
        self.what = what
        self.variables = variables or {}


def start_of(words: Sequence[str], environ: Mapping[str, str]) -> Start:
    """The start of the interpreter that runs the command's Python code.

    Args:
        words: The command.
        environ: The environment, for `PATH`.
    """
    for index, word in enumerate(words):
        name = os.path.basename(word)
        if name in _ELSEWHERE:
            return Start(None, name)
        if _PYTHON.match(name):
            end = index + 1
            while end < len(words) and words[end].startswith("-") and words[end][:2] not in ("-c", "-m"):
                end += 2 if words[end] in _VALUED else 1
            return Start([*words[:end], "-c"], " ".join(words[: index + 1]))
        if index == 0 and (start := _script(word, environ)) is not None:
            return start
    return Start(None, words[0])


def is_the_launchers(prefix: str, packages: Sequence[str]) -> bool:
    """Whether an interpreter is the launcher's own, in an environment without the packages of a job.

    Args:
        prefix: `sys.prefix` of the interpreter.
        packages: The packages of a job that it can import.
    """
    own = os.path.realpath(sys.prefix)
    here = os.path.realpath(__file__)
    # The launcher of an image or of the bundle lies in its own directory, and runs under the job's interpreter.
    of_launcher = sys.prefix != sys.base_prefix or here.startswith(own.rstrip("/") + "/")
    return of_launcher and os.path.realpath(prefix) == own and not packages


def _script(word: str, environ: Mapping[str, str]) -> Start | None:
    path = shutil.which(word, path=environ.get("PATH"))
    if path is None:
        return None
    if _is_pex(path):
        # pex.readthedocs.io: with PEX_INTERPRETER the file starts an interpreter that has the file's packages.
        return Start([path, "-c"], f"{word} (a pex)", {"PEX_INTERPRETER": "1"})
    try:
        with open(path, "rb") as file:
            line = file.readline(512)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    interpreter = line[2:].decode(errors="replace").split()
    named = [one for one in interpreter if _PYTHON.match(os.path.basename(one))]
    if not named:
        return None
    # In `#!/usr/bin/env -S python -I` the flag -S is env's, not the interpreter's.
    return Start([*(one for one in interpreter if one != "-S" or named[0] == interpreter[0]), "-c"], word)


def _is_pex(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "PEX-INFO" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
