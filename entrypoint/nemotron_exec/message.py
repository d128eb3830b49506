"""Messages for people, on stderr only: one prefix, one line each. stdout belongs to the command."""

from __future__ import annotations

import os
import sys

from nemotron_exec.errors import LaunchError

TYPE_CHECKING = False  # typing costs 8 ms, and this module lies on the way to exec
if TYPE_CHECKING:
    from typing import Literal, TextIO

    LogFormat = Literal["text", "json"]

__all__ = ["Messages"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Messages:
    """Writes each message as one line to `stream`, without keys and without the passwords and signatures of URLs.

    Args:
        threshold: "debug" (`-v`), "info" (default), "warning" (`-q`).
        log_format: "text" or "json" (one object a line: level, message, and the fields of the message).
        stream: Where the lines are written; None for stderr at the time of the call.
        program: The prefix of each line.
        strict: Whether a warning is an error (`--strict`).
    """

    def __init__(
        self,
        threshold: str = "info",
        log_format: LogFormat = "text",
        stream: TextIO | None = None,
        program: str = "nemotron-exec",
        *,
        strict: bool = False,
    ) -> None:
        self.threshold = threshold
        self.log_format = log_format
        self._stream = stream
        self._program = program
        self._strict = strict

    @property
    def verbose(self) -> bool:
        """Whether `-v` was given."""
        return self.threshold == "debug"

    @property
    def quiet(self) -> bool:
        """Whether `-q` was given."""
        return _LEVELS[self.threshold] > _LEVELS["info"]

    def debug(self, text: str, **fields: object) -> None:
        """Print a message that only `-v` shows."""
        self._write("debug", text, fields)

    def info(self, text: str, **fields: object) -> None:
        """Print a message that `-q` hides."""
        self._write("info", text, fields)

    def warning(self, text: str, **fields: object) -> None:
        """Print a warning: the job starts, but the user should change something.

        Raises:
            LaunchError: The options have `--strict`, under which the job does not start.
        """
        if self._strict:
            raise LaunchError("start the command under --strict", text, "Mend it, or leave out --strict")
        self._write("warning", text, fields)

    def error(self, text: str, **fields: object) -> None:
        """Print why the job does not start."""
        self._write("error", text, fields)

    def _write(self, level: str, text: str, fields: dict[str, object]) -> None:
        if _LEVELS[level] < _LEVELS[self.threshold]:
            return
        if self.log_format == "json":
            import json

            line = json.dumps({"level": level, "message": text, **fields}, default=str)
        else:
            label = "" if level in ("info", "debug") else f"{level}: "
            line = f"{self._program}: {label}" + text.replace("\n", "\n  ")
        from nemotron_exec.sitecustomize.payload.notice import redact  # only a message is worth this import

        line = redact(line)
        stream = self._stream or sys.stderr
        try:
            if self.log_format != "json" and stream.isatty():
                line = self._for_people(line, level, stream)
            # Write each line at once, so that the lines of many ranks on one stderr do not interleave.
            stream.write(line + os.linesep)
            stream.flush()
        except (OSError, ValueError):
            # A stderr that is closed or full must not keep the job from starting.
            if stream is sys.stderr:
                # Drop the text that the full stderr still buffers: Python would write it again at exit and set the exit
                # code to 120.
                sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115

    def _for_people(self, line: str, level: str, stream: TextIO) -> str:
        """The line for a terminal: its level is coloured, and wrapped lines are indented below the text."""
        from nemotron_exec import terminal

        line = terminal.wrapped(line, terminal.width_of(stream), "  ")
        if level in ("error", "warning") and terminal.has_colour(stream, os.environ):
            line = line.replace(f": {level}: ", f": {terminal.coloured(level + ':', level)} ", 1)
        return line
