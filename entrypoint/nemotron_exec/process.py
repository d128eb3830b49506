"""Step 5, exec: become the command. Same PID, same stdio, no child, no thread left behind."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports enum (1.5 ms); this is behind it
import os

from nemotron_exec.errors import CommandNotExecutableError, CommandNotFoundError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

__all__ = ["check_command", "die_by_signal", "execute"]


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
    except OSError as error:
        _explain(command, environ, error)


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Fail before anything is downloaded if `command` can never be started.

    Raises:
        CommandNotFoundError: No such command (127).
        CommandNotExecutableError: Found, but not executable (126).
    """
    if not command[0]:
        raise _not_found(command[0], "an empty word")
    found = None
    for path in _candidates(command[0], environ):
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return
            found = found or path
        elif os.path.isdir(path) and os.sep in command[0]:
            raise _not_executable(path, "a directory")
    if found:
        raise _not_executable(found, "a file without execute permission")
    raise _not_found(command[0], "no such file" if os.sep in command[0] else "nothing of that name on PATH")


def die_by_signal(number: int) -> NoReturn:
    """End as a process ends that never caught the signal, so that the parent sees it in the wait status."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _explain(command: Sequence[str], environ: Mapping[str, str], error: OSError) -> NoReturn:
    import errno

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


def _not_found(name: str, found: str) -> CommandNotFoundError:
    return CommandNotFoundError(
        f"start {name!r}", found, "Check the spelling and the PATH of the environment that nemotron-exec runs in"
    )


def _not_executable(name: str, found: str) -> CommandNotExecutableError:
    return CommandNotExecutableError(f"start {name!r}", found, "Name a program, or an interpreter before the file")
