"""Finds the Python file that the command runs: behind torchrun, `python -m` or an unknown launcher."""

from __future__ import annotations

import os

from nemotron_exec.command.words import word_at
from nemotron_exec.command_scan import module_in, read_regular

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nemotron_exec.command.words import ElasticLauncher

__all__ = ["find_script"]


def find_script(
    argv: tuple[str, ...],
    program: int,
    launcher: ElasticLauncher | None,
    environ: Mapping[str, str],
    directory: str = "",
) -> tuple[int, str] | None:
    """The index and the file of the Python program that the command starts; None if no word names one.

    A program named as a file is returned. The program of `python -m`, or one that starts others, may be a launcher
    itself (coverage, cProfile, accelerate). Where it does not use Hydra, a later file or module that does is returned.
    """
    if program < len(argv) and program and argv[program].endswith(".py"):
        named = os.path.join(directory, argv[program])
        if _says_hydra(named) or not _starts_programs(named):
            return program, named
    first: tuple[int, str] | None = None
    for index, file in _candidates(argv, program, launcher, environ, directory):
        first = first or (index, file)
        if _says_hydra(file):
            return index, file
    return first


def _starts_programs(file: str) -> bool:
    """Whether a Python file may be a launcher itself: `python tools/launch.py train.py`."""
    source = read_regular(file) or b""
    return any(
        mark in source
        for mark in (b"subprocess", b"runpy", b"os.exec", b"os.spawn", b"Popen", b"os.system", b"launch(")
    )


def _says_hydra(file: str) -> bool:
    if b"hydra" not in (read_regular(file) or b""):
        return False
    from nemotron_exec.command import hydra_main

    return hydra_main.read(file) is not None


def _candidates(
    argv: tuple[str, ...], program: int, launcher: ElasticLauncher | None, environ: Mapping[str, str], directory: str
) -> Iterator[tuple[int, str]]:
    if program and program < len(argv):
        attached = module_in(argv[program])
        if attached or module_in(argv[program - 1]) == "" or (launcher is not None and "module" in launcher.options):
            yield from _module(argv, program, attached or argv[program], environ, directory)
            if argv[program] == "runpy" and (after := word_at(argv, program + 1)) is not None:
                yield from _module(argv, program + 1, after, environ, directory)
    index = program
    while index < len(argv):
        word = argv[index]
        if word.endswith(".py"):
            yield index, os.path.join(directory, word)
        elif word == "--module" or module_in(word) == "":
            # For torchrun `--module` is a flag, and the module is the first word after it that is no option.
            at = next(
                (at for at in range(index + 1, len(argv)) if not argv[at].startswith("-") and argv[at] != "runpy"),
                len(argv),
            )
            if at < len(argv):
                yield from _module(argv, at, argv[at], environ, directory)
        elif word.startswith("--module="):
            yield from _module(argv, index, word[len("--module=") :], environ, directory)
        elif (module := module_in(word) or "").replace(".", "").isidentifier():
            yield from _module(argv, index, module, environ, directory)
        index += 1


def _module(
    argv: tuple[str, ...], index: int, name: str, environ: Mapping[str, str], directory: str
) -> Iterator[tuple[int, str]]:
    from nemotron_exec.program_file import script_of_module

    file = script_of_module(name, argv[:index], environ, directory)
    if file is not None:
        yield index, file
