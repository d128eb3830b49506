"""Writes the injector's messages: one line on stderr, never on stdout, never an exception.

Each line is one write(2) to the descriptor: lines of many ranks do not interleave, and a signal handler may write.
"""

from __future__ import annotations

import os
import re
import sys

from . import flags
from .lazy import pattern

# The first finds a password or a key before the host of a URL, the second a query after its path, which may be a
# signature.
_USER = pattern(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#@\"']+|[^\s/?#@:\"']+:(?!\d+[/?#])[^\s@\"']+)@")
_QUERY = pattern(r"(https?://[^\s?#\"'<>]+)\?[^\s\"'<>)]+")
# The first finds authorization headers. The second finds tokens by their issuer's prefix (GitHub, GitLab, Hugging Face,
# Slack, NVIDIA, W&B and AWS) and JSON web tokens.
_BEARER = pattern(r"(?i)\b((?:authorization\s*[:=]\s*)(?:(?:bearer|basic|token)\s+)?|bearer\s+)[\w.~+/=-]{4,}")
_KNOWN = pattern(
    r"\b(?:gh[opsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|hf_\w{20,}|xox[abps]-[\w-]{10,}|nvapi-[\w-]{20,}"
    r"|wandb_v\d_\w{20,}|A[KS]IA[0-9A-Z]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
# Ends of the names of variables whose value is a secret. The path of a secret (`KEY_FILE`) is no secret.
_VARIABLE = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS")
# The last part of the name of an option, an override or a key of a config whose value is a secret. There, many tokens
# and keys are none (`pad_token`, `sort_key`): such a value is a secret only if it looks random.
_SECRET_NAME = pattern(
    r"(?:^|_)(?:pass|passwds?|passwords?|passphrases?|pwd|secrets?|credentials?|api_?keys?|bearer"
    r"|(?:access|account|auth|deploy|encryption|license|master|private|secret|service|signing|ssh)_?keys?"
    r"|(?:anthropic|azure|gemini|hf|huggingface|mlflow|neptune|ngc|nvidia|openai|wandb)_?keys?"
    r"|(?:^|access|api|auth|bearer|deploy|git|github|gitlab|hf|hub|hugging_?face|jwt|ngc|oauth|personal|private"
    r"|refresh|registry|secret|security|service|session|slack|wandb)_?token"
    r"|(?:access|api|auth|git|github|gitlab|hf|hub|ngc|oauth|refresh|secret|session|wandb)_?tokens)$"
)
_PERHAPS = pattern(r"(?:^|_)(?:key|token)$")
_RANDOM = pattern(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[\w.+/=-]{20,}\Z")
_REFERENCE = pattern(r"\$\{[^{}]*\}\Z|\$\w+\Z|(?:null|None|~|True|False|true|false)?\Z")
# `--hf-token VALUE` inside a text.
_OPTION = pattern(
    r"(?<![\w-])(?P<name>--?[A-Za-z][\w.-]*)(?P<sign>\s+)(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"';&|)-][^\s\"';&|)]*)"
)
_PAIR = pattern(
    r"(?<![\w.])(?P<name>[A-Za-z_][\w.-]*)(?P<sign>[\"']?\s*[:=]\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|\$\{[^{}]*\}|[^\s,;&|{}()\[\]\"']+)"
)


def info(text):
    """Report a fact; silent under `NEMOTRON_EXEC_QUIET=1`."""
    if not _on("NEMOTRON_EXEC_QUIET"):
        _write(text)


def warning(text):
    """Report a failure after which training goes on."""
    _write("warning: " + text)


def debug(text):
    """Report a detail that only `NEMOTRON_EXEC_VERBOSE=1` shows."""
    if _on("NEMOTRON_EXEC_VERBOSE"):
        _write(text)


def strict():
    """Whether `NEMOTRON_EXEC_STRICT=1` makes failures of the injector fatal."""
    return _on("NEMOTRON_EXEC_STRICT")


def redact(text):
    """`text` without the passwords and signatures of URLs, known tokens, and the values of variables with secrets."""
    if "://" in text:
        text = _QUERY.sub(r"\1?***", _USER.sub(r"\1***@", text))
    text = _KNOWN.sub("***", _BEARER.sub(r"\1***", text))
    for name, value in os.environ.items():
        if len(value) >= 8 and value in text and is_secret_variable(name):
            text = text.replace(value, "***")
    return text


def is_secret_variable(name):
    """Whether an environment variable holds a secret, judged by its name."""
    return name.rstrip("_0123456789").upper().endswith(_VARIABLE)


def is_secret(name, value):
    """Whether `value` is a secret, judged by the name of its option, override or key of a config.

    Args:
        name: str; of a dotted or dashed name the last part counts.
        value: str. `${oc.env:TOKEN}`, `$TOKEN`, null and the empty text hide nothing.
    """
    value = value.strip("\"'")
    if _REFERENCE.match(value):
        return False
    last = re.split(r"[.\[\]/:+~]", name.rstrip("]"))[-1].strip("-_ \"'").replace("-", "_")
    last = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", last).lower().rstrip("_0123456789")
    if _SECRET_NAME.search(last):
        return True
    return _PERHAPS.search(last) is not None and _RANDOM.match(value) is not None


def redact_command(words):
    """The words of a command, redacted: as by `redact`, and `--api-key VALUE`, `--token=VALUE`, `a.secret=VALUE`.

    Args:
        words: list of str.

    Returns:
        A list of str of the same length.
    """
    shown, before = [], ""
    for word in words:
        name, equals, value = word.partition("=")
        if before and not word.startswith("-") and is_secret(before, word):
            shown.append("***")
        elif equals and re.match(r"[+~-]*[\w.\[\]/@-]+\Z", name) and is_secret(name, value):
            shown.append(name + "=***")
        else:
            shown.append(redact_text(word))
        before = word if word.startswith("-") and not equals else ""
    return shown


def redact_text(text):
    """A piece of shell, Python, JSON or YAML with its secrets replaced."""
    return redact(_OPTION.sub(_hide, _PAIR.sub(_hide, text)))


def _hide(pair):
    name, sign, value = pair.group("name"), pair.group("sign"), pair.group("value")
    quote = value[0] if value[0] in "\"'" else ""
    if is_secret(name, value):
        return name + sign + quote + "***" + quote
    # `--env=HF_TOKEN=…`, `sh -c "… --hf-token …"`
    inner = value[1:-1] if quote else value
    return name + sign + quote + _OPTION.sub(_hide, _PAIR.sub(_hide, inner)) + quote


def _on(name):
    return flags.is_on(os.environ.get(name)) is True


def _write(text):
    if sys.__stderr__ is None:
        return  # stderr was closed when the process began: descriptor 2 may be a file of the job by now
    try:
        os.write(2, ("nemotron-exec: " + redact(text).replace("\n", "\n  ") + "\n").encode("utf-8", "replace"))
    except OSError:
        return
