"""`run.on_checkpoint` of a config: commands that run after a checkpoint is complete, checked before the job starts."""

from __future__ import annotations

import os
import re

from nemotron_exec.config.evaluate import select_plain
from nemotron_exec.config.root import evaluator_of, is_null, plain_value
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute, working_directory

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.config.config import Config
    from nemotron_exec.message import Messages

__all__ = ["DEFAULTS", "KEY", "describe", "hooks_of", "near_miss"]

KEY = "on_checkpoint"
WHEN = ("all", "periodic", "best", "last")
CATCH_UP = ("beside", "before")
DEFAULTS = {"when": "all", "every": 1, "timeout": 3600.0, "retries": 4, "catch_up": "beside"}
"""Values of the keys that a hook leaves out; `timeout` in seconds."""
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SECONDS = pattern(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?\Z")
_RESOLVER = pattern(r"\$\{\s*(?:art|manifest|run|oc)\b\s*[:.][^}]*\}")
_SHELL_SECONDS = 10.0
# Programs that read a file: their first word that is no option.
_READERS = pattern(r"(?:ba|da|z|k)?sh\Z|python[\d.]*\Z|sbatch\Z|perl\Z|ruby\Z")
_SCRIPT = pattern(r".+\.(?:sh|bash|py|sbatch|slurm|pl|rb)\Z")
_UNKNOWN = ("$", "`", "*", "?", "~", "{", "[")
_REMEDY = (
    "Write `on_checkpoint: COMMAND`, or a list of {command: …, when: all|periodic|best|last, every: N, timeout: 30m, "
    "name: …, retries: N, catch_up: beside|before}"
)
# Words that a shell knows without a program.
_BUILTINS = (
    " ! . : [ alias bg break case cd command continue do done elif else esac eval exec exit export false fg fi for "
    "function getopts hash if in jobs kill local printf pwd read readonly return set shift source test then time times "
    "trap true type ulimit umask unalias unset until wait while { } echo [[ ]] "
)
# After one of these, a word in the position of a command may be something else.
_FUNCTION = pattern(r"\(\s*\)|\bfunction\s")
_OTHERWISE = pattern(r"\$\(|`|<<|\b(?:case|for|select)\s")


def hooks_of(
    config: Config, artifacts: Mapping[str, Artifact] | None, environ: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The hooks in the form of the hand-off.

    Args:
        config: The config.
        artifacts: The artifacts of the references, for `${art:…}` in a command; None before they are resolved.
        environ: The job's environment; programs are searched on its PATH.

    Raises:
        LaunchError: An entry is no hook, or its command could never run.
    """
    if config.run.get(KEY) is None:
        return []
    given: object = None
    for number, root in enumerate(config.sources.roots):
        run = root.tree.get("run") if isinstance(root.tree, dict) else None
        if isinstance(run, dict) and KEY in run:
            evaluator = evaluator_of(config.sources, number, artifacts)
            given = plain_value(run[KEY], ("run", KEY), evaluator)
    where = f"run.{KEY} of {config.files[0]}"
    directory = working_directory()
    hooks: list[dict[str, Any]] = []
    for index, one in enumerate(given if isinstance(given, list) else [given]):
        wanted = f"{where}, hook {index + 1}" if isinstance(given, list) else where
        hook = _hook(one, wanted, hooks)
        _check_command(hook["command"], wanted, environ, directory, resolved=artifacts is not None)
        if hook["when"] == "best" and not _has_metric(config):
            keys = " or ".join(".".join(row.metric) for row in FRAMEWORKS if row.metric)
            raise LaunchError(
                wanted,
                "when: best, and the config has no metric by which a checkpoint is the best",
                f"Set {keys}, or write another `when`",
            )
        hooks.append({**hook, "cwd": directory})
    return hooks


def describe(hook: Mapping[str, Any]) -> str:
    """The hook in one line, for people."""
    often = f", every {hook['every']}" if hook["every"] > 1 else ""
    return f"{hook['name']} ({hook['when']}{often}): {hook['command']}"


def near_miss(run: Mapping[str, object], messages: Messages) -> None:
    """Warn of a key of `run` that was probably meant as `on_checkpoint`, and that nemotron-exec ignores."""
    for key in run:
        bare = re.sub(r"[^a-z]", "", key.lower())
        if key != KEY and bare in ("oncheckpoint", "oncheckpoints", "checkpointhook", "checkpointhooks"):
            messages.warning(f"run.{key} runs nothing; did you mean run.{KEY}?")


def _hook(one: object, wanted: str, others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def refuse(found: str, remedy: str = _REMEDY) -> NoReturn:
        raise LaunchError(wanted, found, remedy)

    given = one if isinstance(one, dict) else {"command": one}
    known = ("command", "name", *DEFAULTS)
    for key in given:
        if key not in known:
            import difflib

            close = difflib.get_close_matches(str(key), known, 1, 0.5)
            refuse(f"no hook has the key {key!r}", f"Did you mean {close[0]}?" if close else _REMEDY)
    command = given.get("command")
    if not isinstance(command, str) or not command.strip() or "\0" in command:
        refuse(f"{command!r} is no command" if "command" in given else "it has no command")
    hook = {**DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    hook["command"] = command.strip()
    if hook["when"] not in WHEN:
        refuse(f"when: {hook['when']!r}", "Write one of " + ", ".join(WHEN))
    if hook["catch_up"] not in CATCH_UP:
        refuse(f"catch_up: {hook['catch_up']!r}", "Write one of " + ", ".join(CATCH_UP))
    for key, least in (("every", 1), ("retries", 0)):
        number = hook[key]
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= 10**9:
            refuse(f"{key}: {number!r}", f"Write a whole number from {least} on")
    if hook["when"] == "last" and hook["every"] != 1:
        refuse("every beside when: last, of which there is one", "Leave `every` out")
    hook["timeout"] = _seconds(hook["timeout"])
    if hook["timeout"] is None:
        refuse(f"timeout: {given['timeout']!r}", "Write seconds, or 90s, 30m, 2h")
    if hook.get("name") is None:
        hook["name"] = _unused(_name_of(command), [other["name"] for other in others])
    if not isinstance(hook["name"], str) or not _NAME.match(hook["name"]):
        refuse(f"name: {hook['name']!r}", "Write letters, digits, dots, dashes and underscores, at most 64")
    if any(hook["name"] == other["name"] for other in others):
        refuse(f"there is a hook {hook['name']} already", "Give each its own name")
    return hook


def _seconds(value: object) -> float | None:
    """A `timeout` in seconds; None for a value that is no duration."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 < value < float("inf") else None
    if not isinstance(value, str) or not value.strip() or not (found := _SECONDS.match(value.strip().lower())):
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds or None


def _name_of(command: str) -> str:
    """A name that stays the same over restarts: the name of the script or of the program."""
    words = _simple_commands(command)[:1] or [[command]]
    script = _script_of(words[0])
    base = os.path.basename(script or (words[0] or [""])[0])
    base = os.path.splitext(base)[0] if _SCRIPT.match(base) else base
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base).lstrip(".-_")[:60] or "hook"


def _unused(name: str, taken: Sequence[str]) -> str:
    number = 1
    while (name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return name if number == 1 else f"{name}-{number}"


def _check_command(command: str, wanted: str, environ: Mapping[str, str], directory: str, *, resolved: bool) -> None:
    """Refuse a command that no shell could run here.

    Raises:
        LaunchError: The text is no shell command, or its program or script does not exist.
    """
    if resolved and (left := _RESOLVER.search(command)):
        raise LaunchError(
            wanted,
            f"{left.group()} has no value before the job starts",
            "A hook may use ${art:KEY,FIELD}; write variables of the shell without braces: $NAME",
        )
    if fault := _syntax_fault(_RESOLVER.sub("x", command)):
        raise LaunchError(wanted, f"a shell cannot read {command!r}: {fault}", "Correct the command")
    commands = _simple_commands(_RESOLVER.sub("$x", command))
    for words in commands[:1] if _OTHERWISE.search(command) else commands:
        if words[0] == "cd" or _FUNCTION.search(command):
            return  # after `cd`, or with functions, only the shell knows the programs
        missing = _missing(words, environ, directory)
        if missing:
            raise LaunchError(
                wanted, f"{missing} is not there", f"Correct {command!r}; it runs by `sh -c` in {directory}"
            )


def _syntax_fault(command: str) -> str:
    """The error that `sh -n` reports about a command; "" for none."""
    import subprocess

    try:
        done = subprocess.run(
            ["/bin/sh", "-n", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SHELL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    except OSError as error:
        raise TemporaryError(
            "to check run.on_checkpoint", f"/bin/sh: {error.strerror}", "Start the job again"
        ) from None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (said[-1] if said else f"exit code {done.returncode}") if done.returncode else ""


def _simple_commands(command: str) -> list[list[str]]:
    """The words of each command in the text, without assignments in front; [] where only a shell can read it."""
    import shlex

    lexer = shlex.shlex(command.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = [*lexer, ";"]
    except ValueError:
        return []
    found: list[list[str]] = []
    words: list[str] = []
    redirected = False
    for token in tokens:
        if token.strip("<>&") == "" and token.strip("&"):
            redirected = True
        elif not token.strip("();|&"):
            if words:
                found.append(words)
            words, redirected = [], False
        elif redirected:
            redirected = False
        elif words or not re.match(r"[A-Za-z_]\w*=", token):
            words.append(token)
    return found


def _missing(words: Sequence[str], environ: Mapping[str, str], directory: str) -> str | None:
    """The missing program or script of a command; None where both exist or are unknown."""
    program = words[0]
    if any(mark in program for mark in _UNKNOWN) or f" {program} " in _BUILTINS or program.isdigit():
        return None
    paths = (
        [os.path.join(directory, program)]
        if os.sep in program
        else [os.path.join(directory, entry, program) for entry in os.get_exec_path(dict(environ))]
    )
    if not any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths):
        return f"the program {program}"
    script = _script_of(words)
    if script is None or any(mark in script for mark in _UNKNOWN):
        return None
    return None if os.path.exists(os.path.join(directory, script)) else f"the script {absolute(script)}"


def _script_of(words: Sequence[str]) -> str | None:
    """The script that is given to an interpreter or to sbatch."""
    if not words or not _READERS.match(os.path.basename(words[0])):
        return None
    if any(word in ("-c", "-m", "--wrap", "-s", "--chdir", "-D") or word.startswith("--wrap=") for word in words[1:]):
        return None
    return next((word for word in words[1:] if _SCRIPT.match(word) and not word.startswith("-")), None)


def _has_metric(config: Config) -> bool:
    """Whether the config sets the metric by which a framework compares its checkpoints."""
    return any(row.metric and _is_set(config, row.metric) for row in FRAMEWORKS)


def _is_set(config: Config, path: tuple[str, ...]) -> bool:
    for override in reversed(config.sources.overrides):
        if override.path == path:
            return override.sign != "~" and (override.text or "").strip("'\" ").lower() not in ("", "null", "none", "~")
    for root in config.sources.roots:
        node = select_plain(root.tree, path)
        if node is not None and not is_null(node):
            return True
    return False
