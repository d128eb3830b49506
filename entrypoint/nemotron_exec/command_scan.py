"""Is there anything to resolve? Answered from bytes, before any parser is loaded.

Every test here may only err towards the slow path, which reads properly: a file with `${ art : x }` or with `run :`
must be seen, one with the word `run` in a comment may be.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["is_yaml_name", "may_hold_something_of_ours", "may_need_resolving"]

# Variables that the launcher sets for the job (ARCHITECTURE.md), or that only the injector reads: a launcher inside
# a job started by a launcher meets them all, and they change nothing on the way to exec.
_HARMLESS = frozenset(
    {
        "NEMOTRON_EXEC_ACTIVE",
        "NEMOTRON_EXEC_BACKEND",
        "NEMOTRON_EXEC_CHECKPOINT_DRAIN",
        "NEMOTRON_EXEC_CHECKPOINT_WAIT",
        "NEMOTRON_EXEC_DISABLED_PATCHES",
        "NEMOTRON_EXEC_HANDOFF",
        "NEMOTRON_EXEC_LINEAGE_TIMEOUT",
        "NEMOTRON_EXEC_PYTHON",
        "NEMOTRON_EXEC_STORE",
    }
)
_HYDRA = ("--config-path", "--config-name", "--config-dir", "-cp", "-cn", "-cd")


def may_need_resolving(words: Sequence[str], environ: Mapping[str, str], cwd: Callable[[], str]) -> bool:
    """Whether the slow path must look at this command.

    Args:
        words: Everything after `nemotron-exec`.
        environ: The environment.
        cwd: Gives the working directory; called only if it matters.
    """
    if environ.get("NEMOTRON_EXEC_DISABLE") == "1":
        return not words or (words[0].startswith("-") and words[0] != "--")
    if not words or words == ["--"] or (words[0].startswith("-") and words[0] != "--"):
        return True
    for name in environ:
        if name.startswith(("NEMOTRON_EXEC_", "_NEMOTRON_EXEC_COMPLETE")) and name not in _HARMLESS:
            return True
    if environ.get("NEMOTRON_ENV_FILE") or environ.get("NEMO_RUN_DIR") or _env_toml_above(cwd):
        return True
    for word in words[1:]:
        if word.startswith(("run.", "+run.", "++run.", "~run.")):
            return True
        if "${" in word and ("art" in word or "manifest" in word):
            return True
        if word.startswith(_HYDRA):
            return True
        path = word.rpartition("=")[2] if word.startswith("-") else word
        if is_yaml_name(path) and _file_may_hold(path):
            return True
        if word.endswith(".py") and _may_use_hydra(word):
            return True
    return (words[0].endswith(".py") and _may_use_hydra(words[0])) or _module_may_use_hydra(words, environ)


def is_yaml_name(path: str) -> bool:
    """Whether the name says YAML."""
    return path.endswith((".yaml", ".yml", ".YAML", ".YML"))


def may_hold_something_of_ours(data: bytes) -> bool:
    """Whether a YAML text may hold an `${art:…}`, a `run` section, or a parent that does.

    The three byte tests of design ruling 8; text that is not UTF-8 is left to the parser.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if b"${" in data and (b"art" in data or b"manifest" in data):
        return True
    if b"defaults" in data:
        return True
    at = data.find(b"run")
    while at >= 0:
        if data[at + 3 : at + 64].lstrip(b" \t\r\n\"'").startswith(b":"):
            return True
        at = data.find(b"run", at + 3)
    return False


def _may_use_hydra(script: str) -> bool:
    """Whether the text of a Python file mentions Hydra, whose config no argument has to name."""
    try:
        with open(script, "rb") as file:
            return b"hydra" in file.read()
    except OSError:
        return False


def _module_may_use_hydra(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """`python -m pkg.mod`, `torchrun … -m pkg.mod`: the same of the module's file."""
    for index, word in enumerate(words):
        module = word[2:] if word.startswith("-m") else ""
        if word == "--module" or (word == "-m" and index + 1 < len(words)):
            # torchrun's is a flag, and the module the first word that is no option or value of one.
            module = next((name for name in words[index + 1 :] if not name.startswith("-")), "")
        if not module or module.startswith(("torch.distributed.", "nvidia_resiliency_ext.")):
            continue
        from nemotron_exec.program_file import script_of_module

        script = script_of_module(module, words[:index], environ)
        if script is not None and _may_use_hydra(script):
            return True
    return False


def _file_may_hold(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return may_hold_something_of_ours(file.read())
    except OSError:
        # Missing or unreadable: the slow path says so properly.
        return True


def _env_toml_above(cwd: Callable[[], str]) -> bool:
    # The same walk as env_toml.find, by which the slow path finds the file: it may name the manifest store.
    try:
        directory = cwd()
    except OSError:
        return False
    while True:
        if os.path.exists(directory + "/env.toml"):
            return True
        parent = os.path.dirname(directory)
        if parent == directory or os.path.exists(directory + "/pyproject.toml"):
            return False
        directory = parent
