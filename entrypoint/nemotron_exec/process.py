"""Step 5, exec: become the command. Same PID, same stdio, no child, no thread left behind."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports enum (1.5 ms); this is behind it
import os
import sys

from nemotron_exec.errors import CommandNotExecutableError, CommandNotFoundError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

__all__ = ["check_command", "die_by_signal", "discard_output", "execute", "hold_closed_streams"]


def execute(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by `command`, found on the PATH of `environ` as the shell finds it.

    Raises:
        CommandNotFoundError: No such command (127).
        CommandNotExecutableError: Found, but no program (126).
    """
    # Python ignores these two at start, and exec would hand that on: `yes | head` would not end. What they were
    # before cannot be known, and the default is what every shell starts programs with.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(_signal, name):
            _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), dict(environ))
    except (OSError, ValueError) as error:  # ValueError: the first word is empty
        _explain(command, environ, error)


def hold_closed_streams() -> None:
    """Put /dev/null in the place of a standard stream that is closed, until exec.

    Else the first file that this process opens gets the stream's number, and messages for stderr are written into that
    file. The command finds the stream closed, as it was.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free; closed by exec
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def discard_output() -> None:
    """Let stdout lead nowhere: what it could not take is not tried again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Fail before anything is downloaded if `command` can never be started.

    Raises:
        CommandNotFoundError: No such command (127).
        CommandNotExecutableError: Found, but not executable (126).
    """
    if not command[0]:
        raise CommandNotFoundError("start ''", "the first word is empty", "Name the program; a variable may be unset")
    found = None
    for path in _candidates(command[0], environ):
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return
            found = found or path
        elif os.path.isdir(path) and os.sep in command[0]:
            raise _not_executable(path, "a directory")
    if found:
        raise _not_executable(found, "a file without execute permission", command, environ)
    from nemotron_exec.command_mistake import explain, shown

    said, remedy = explain(command, environ)
    raise CommandNotFoundError(f"start {shown(command[0])!r}", said, remedy)


def die_by_signal(number: int) -> NoReturn:
    """End as a process ends that never caught the signal, so that the parent sees it in the wait status."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _explain(command: Sequence[str], environ: Mapping[str, str], error: OSError | ValueError) -> NoReturn:
    import errno

    if not isinstance(error, OSError):
        check_command(command, environ)
        raise error
    if error.errno == errno.ENOEXEC:
        # A script without `#!`: execvp(3) and every shell give it to sh.
        for path in _candidates(command[0], environ):
            if os.access(path, os.X_OK):
                os.execve("/bin/sh", ["/bin/sh", path, *command[1:]], dict(environ))
    if error.errno == errno.E2BIG:
        raise _not_executable(command[0], "arguments and environment larger than the kernel takes") from None
    check_command(command, environ)
    raise _not_executable(command[0], error.strerror or str(error)) from None


def _candidates(name: str, environ: Mapping[str, str]) -> list[str]:
    if os.sep in name:
        return [name]
    return [os.path.join(directory, name) for directory in os.get_exec_path(dict(environ))]


def _not_executable(
    name: str, found: str, command: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> CommandNotExecutableError:
    remedy = "Name a program, or an interpreter before the file"
    if command:
        from nemotron_exec.command_mistake import explain

        meant = explain(command, environ or {})[1]
        remedy = meant if meant.startswith("Write") else remedy
    return CommandNotExecutableError(f"start {name!r}", found, remedy)
