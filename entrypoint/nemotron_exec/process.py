"""Step 5, exec: become the command, with the same PID and stdio. No child and no thread is left behind."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports enum (1.5 ms), this does not
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
        CommandNotFoundError: The command is on no PATH (127).
        CommandNotExecutableError: The file was found, but it is no program (126).
    """
    # Python ignores these two signals from its start, and exec would pass that on: `yes | head` would not end. Their
    # earlier handling is unknown, and every shell starts programs with the default.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(_signal, name):
            _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), dict(environ))
    except (OSError, ValueError) as error:  # ValueError: the first word is empty
        _explain(command, environ, error)


def hold_closed_streams() -> None:
    """Open /dev/null in the place of a closed standard stream, until exec.

    Otherwise the first file that this process opens would get the stream's number, and messages for stderr would go
    into that file. The command finds the stream closed, as before.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number; exec closes it
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def discard_output() -> None:
    """Redirect stdout to /dev/null, so that Python does not write its buffer again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Fail before anything is downloaded if `command` can never be started.

    Raises:
        CommandNotFoundError: The command is on no PATH (127).
        CommandNotExecutableError: The file was found, but it is not executable (126).
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
    """End like a process that never caught the signal, so that the parent sees the signal in the wait status."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _explain(command: Sequence[str], environ: Mapping[str, str], error: OSError | ValueError) -> NoReturn:
    import errno

    if not isinstance(error, OSError):
        check_command(command, environ)
        raise error
    if error.errno == errno.ENOEXEC:
        # execvp(3) and every shell run a script without `#!` by sh.
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
