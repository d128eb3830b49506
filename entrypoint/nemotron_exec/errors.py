"""The errors of the launcher, each with its exit code from design.md.

Every message has three parts: the aim, the fault, the remedy. Exit codes follow env(1).
"""

from __future__ import annotations

__all__ = [
    "EXIT_FAILED",
    "EXIT_NOT_EXECUTABLE",
    "EXIT_NOT_FOUND",
    "EXIT_TEMPFAIL",
    "EXIT_USAGE",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "LaunchError",
    "TemporaryError",
    "UsageError",
]

EXIT_USAGE = 2
EXIT_TEMPFAIL = 75  # EX_TEMPFAIL of sysexits.h
EXIT_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class LaunchError(Exception):
    """A failure of nemotron-exec that would happen again.

    Args:
        wanted: The aim, with file, key and value.
        found: The fault.
        remedy: What the user can do about it.
        exit_code: Replaces the class's code; used when another node's published error is raised here.
    """

    exit_code = EXIT_FAILED

    def __init__(self, wanted: str, found: str, remedy: str, *, exit_code: int | None = None) -> None:
        super().__init__(f"{wanted}: {found}. {remedy}")
        self.wanted = wanted
        self.found = found
        self.remedy = remedy
        if exit_code is not None:
            self.exit_code = exit_code


class TemporaryError(LaunchError):
    """A failure that may pass: a server down, a disk full, a time-out."""

    exit_code = EXIT_TEMPFAIL


class UsageError(LaunchError):
    """The command line of nemotron-exec itself is wrong."""

    exit_code = EXIT_USAGE


class CommandNotFoundError(LaunchError):
    """The wrapped command is nowhere on PATH."""

    exit_code = EXIT_NOT_FOUND


class CommandNotExecutableError(LaunchError):
    """The wrapped command was found, and the kernel would not execute it."""

    exit_code = EXIT_NOT_EXECUTABLE
