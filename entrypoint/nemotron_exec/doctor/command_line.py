"""Checks whether the command can start, and whether a word of it keeps the injector out."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Level
from nemotron_exec.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nemotron_exec.doctor.finding import Patient

__all__ = ["check", "obstacles"]

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*\Z")
_VALUED = frozenset({"-W", "-X", "-c", "-m"})
_FLAGS = {
    "I": "-I takes PYTHONPATH and with it the injector away",
    "E": "-E takes PYTHONPATH and with it the injector away",
    "S": "-S keeps sitecustomize, and with it the injector, from running",
}


def check(patient: Patient) -> Iterator[Finding]:
    """The findings about the command: whether it starts, and whether the injector runs in its Python."""
    from nemotron_exec.environment import is_disabled
    from nemotron_exec.process import check_command
    from nemotron_exec.resolution.doubts import doubts

    if is_disabled(patient.environ):
        yield Finding(Level.FAULT, "command", "NEMOTRON_EXEC_DISABLE turns everything off", "Unset it")
    if not patient.words:
        yield Finding(Level.OK, "command", "none given; `nemotron-exec --doctor COMMAND …` checks one as well")
        return
    try:
        check_command(patient.words, patient.environ)
    except LaunchError as error:
        yield Finding(Level.FAULT, "command", f"{error.wanted}: {error.found}", error.remedy)
        return
    found = obstacles(patient.words, patient.environ)
    for what, remedy in found:
        yield Finding(Level.FAULT, "command", what, remedy)
    for doubt in doubts(patient.command, patient.chosen, patient.environ):
        what, _, remedy = doubt.rpartition(". ")
        yield Finding(Level.WARNING, "command", what, remedy)
    if patient.environ.get("PYTHONSAFEPATH"):
        yield Finding(Level.OK, "command", "PYTHONSAFEPATH is set, which leaves the injector alone")
    if not found:
        launcher = f", under {patient.command.launcher.kind}" if patient.command.launcher else ""
        yield Finding(Level.OK, "command", f"{patient.words[0]} starts{launcher}")


def obstacles(words: Sequence[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The words of the command, or its first line, that keep sitecustomize from running, each with the remedy."""
    return [*_obstacles(words), *_shebang(words[0], environ)] if words else []


def _obstacles(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The words that keep sitecustomize from running, each with the remedy."""
    for index, word in enumerate(words):
        name = os.path.basename(word)
        if _PYTHON.match(name):
            for flag in _interpreter_flags(words[index + 1 :]):
                yield f"{word} -{flag}: {_FLAGS[flag]}", f"Start {name} without -{flag}"
        elif name == "env" and _clears(words[index + 1 :]):
            yield f"{' '.join(words[index : index + 2])} clears PYTHONPATH", "Put nemotron-exec after it"
        elif name == "opentelemetry-instrument":
            # OpenTelemetry's directory comes before the injector's, and its sitecustomize does not run the next one.
            yield (
                "opentelemetry-instrument after nemotron-exec hides the injector",
                "Write opentelemetry-instrument nemotron-exec COMMAND",
            )
        elif name in ("sudo", "su"):
            yield f"{name} clears the environment", f"Put nemotron-exec after {name}"


def _interpreter_flags(words: Sequence[str]) -> list[str]:
    """The interpreter's own flags that keep sitecustomize out, of those before the script."""
    found = []
    for word in words:
        if not word.startswith("-") or word.startswith("--"):
            break
        for position, letter in enumerate(word[1:]):
            if f"-{letter}" in _VALUED:
                break
            if letter in _FLAGS and letter not in found:
                found.append(letter)
            del position
        if word[:2] in ("-c", "-m") or any(f"-{letter}" in ("-c", "-m") for letter in word[1:]):
            break
    return found


def _clears(words: Sequence[str]) -> bool:
    """Whether these arguments of env(1) remove PYTHONPATH."""
    for index, word in enumerate(words):
        if word in ("-i", "-", "--ignore-environment", "-uPYTHONPATH", "--unset=PYTHONPATH"):
            return True
        if word in ("-u", "--unset") and list(words[index + 1 : index + 2]) == ["PYTHONPATH"]:
            return True
        if not word.startswith("-") and "=" not in word:
            return False
    return False


def _shebang(word: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The obstacles in the first line of a script such as torchrun, which names the interpreter."""
    import shutil

    path = shutil.which(word, path=environ.get("PATH"))
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return
    if line.startswith(b"#!"):
        for what, _ in _obstacles(line[2:].decode(errors="replace").split()):
            yield f"the first line of {path}: {what}", "Start it as `python " + path + "`, or mend that line"
