"""What the injector says to people: one line on stderr, never on stdout, never an exception.

Written to the file descriptor in one piece: lines of many ranks do not interleave, and a signal handler may call it.
"""

from __future__ import annotations

import os
import re

# A password or a key in front of a host; and what follows a URL's path, which may be a signature.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#@\"']+|[^\s/?#@:\"']+:(?!\d+[/?#])[^\s@\"']+)@")
_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)\?[^\s\"'<>)]+")
# How a variable is named whose value is a secret; one that only says where a secret lies is none.
_VARIABLE = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS")
# The same of an option or an override; but tokens and keys of another kind (`pad_token`, `sort_key`) are many there.
_ARGUMENT = (
    r"(?i)(?:^|[^a-z])(?:password|passwd|credentials|secret|api_?key|(?:access|secret|private)_key"
    r"|(?:access|auth|bearer|hf|hub|session)_token)$"
)


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


def redact(text):
    """`text` without the passwords and signatures of URLs, and without the values of variables that hold secrets."""
    if "://" in text:
        text = _QUERY.sub(r"\1?***", _USER.sub(r"\1***@", text))
    for name, value in os.environ.items():
        if len(value) >= 8 and value in text and name.rstrip("_0123456789").endswith(_VARIABLE):
            text = text.replace(value, "***")
    return text


def redact_command(words):
    """The words of a command without secrets: as `redact`, and `--api-key VALUE`, `--api-key=VALUE`, `a.secret=VALUE`.

    Args:
        words: list of str.

    Returns:
        A list of str of the same length.
    """
    shown, hide = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        is_secret = re.search(_ARGUMENT, name.replace("-", "_")) is not None
        if hide and not word.startswith("-"):
            shown.append("***")
        else:
            shown.append(name + "=***" if is_secret and equals else redact(word))
        hide = is_secret and not equals and word.startswith("-")
    return shown


def _on(name):
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def _write(text):
    try:
        os.write(2, ("nemotron-exec: " + redact(text).replace("\n", "\n  ") + "\n").encode("utf-8", "replace"))
    except OSError:
        return
