"""What the injector says to people: one line on stderr, never on stdout, never an exception.

Written to the file descriptor in one piece: lines of many ranks do not interleave, and a signal handler may call it.
"""

from __future__ import annotations

import os
import re

# A password or a key in front of a host; and what follows a URL's path, which may be a signature.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#@\"']+|[^\s/?#@:\"']+:(?!\d+[/?#])[^\s@\"']+)@")
_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)\?[^\s\"'<>)]+")
_SECRETS = (
    *("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("NGC_API_KEY", "NVIDIA_API_KEY", "GITHUB_TOKEN"),
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
    for name in _SECRETS:
        value = os.environ.get(name, "")
        if len(value) >= 8:
            text = text.replace(value, "***")
    return text


def _on(name):
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def _write(text):
    try:
        os.write(2, ("nemotron-exec: " + redact(text).replace("\n", "\n  ") + "\n").encode("utf-8", "replace"))
    except OSError:
        return
