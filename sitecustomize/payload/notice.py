"""What the injector says to people: one line on stderr, never on stdout, never an exception.

Written to the file descriptor in one piece: lines of many ranks do not interleave, and a signal handler may call it.
"""

from __future__ import annotations

import os


def info(text):
    """Something worth knowing; silent under `NEMOTRON_EXEC_QUIET=1`."""
    if not _on("NEMOTRON_EXEC_QUIET"):
        _write(text)


def warning(text):
    """Something did not work; training goes on."""
    _write("warning: " + text)


def debug(text):
    """Something only `NEMOTRON_EXEC_VERBOSE=1` shows."""
    if _on("NEMOTRON_EXEC_VERBOSE"):
        _write(text)


def strict():
    """Whether `NEMOTRON_EXEC_STRICT=1` makes our own failures fatal."""
    return _on("NEMOTRON_EXEC_STRICT")


def _on(name):
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def _write(text):
    try:
        os.write(2, ("nemotron-exec: " + text.replace("\n", "\n  ") + "\n").encode("utf-8", "replace"))
    except OSError:
        return
