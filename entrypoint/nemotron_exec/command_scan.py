"""Is there anything to resolve? This module answers from bytes, before any parser is loaded.

A test may err only towards the slow path, which parses the files. A file with `${ art : x }` or with `run :` must be
seen; a file with the word `run` in a comment may be.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "HARMLESS",
    "OWN_OPTIONS",
    "default_configs",
    "is_yaml_name",
    "may_hold_something_of_ours",
    "may_need_resolving",
    "read_regular",
]

# Variables that the launcher sets for the job (ARCHITECTURE.md), or that only the injector reads. A launcher inside the
# job of another launcher finds all of them set, and the fast path to exec ignores them.
HARMLESS = frozenset(
    {
        "NEMOTRON_EXEC_ACTIVE",
        "NEMOTRON_EXEC_BACKEND",
        "NEMOTRON_EXEC_CHECKPOINT_DRAIN",
        "NEMOTRON_EXEC_CHECKPOINT_WAIT",
        "NEMOTRON_EXEC_GIVEN",
        "NEMOTRON_EXEC_HANDOFF",
        "NEMOTRON_EXEC_LINEAGE_TIMEOUT",
        "NEMOTRON_EXEC_PYTHON",
        "NEMOTRON_EXEC_STORE",
    }
)
# Options of nemotron-exec that hardly any script has. After COMMAND the launcher does not read them, but doubts.py
# warns of them.
OWN_OPTIONS = frozenset(
    {"--dry-run", "--doctor", "--resolve-only", "--refresh", "--env-file", "--state-dir", "--cache-dir"}
    | {"--job-id", "--rendezvous", "--stall", "--pin"}
)
# Mistyped forms of `${art:…}` begin with one of these.
_NEARLY = (
    b"{art",
    b"$art",
    b"(art",
    b"{ art",
    b"<art",
    b"[art",
    b"{ART",
    b"{Art",
    b"$ART",
    b" art:",
    b"'art:",
    b'"art:',
)
# Options by which a wrapper starts the command in another directory, where a config's name may mean another file.
_DIRECTORY = (
    *(
        "-C",
        "-D",
        "--chdir",
        "--directory",
        "--cwd",
        "-cwd",
        "-wd",
        "--wd",
        "--working-dir",
        "--workdir",
        "--pwd",
        "--cd",
    ),
    "--container-workdir",
)
_PYTHON_FLAGS = "bBdEhiIOPqRsSuvx"  # flags without a value in `python --help`
# Folders in which scripts keep their default config, and the most configs that are looked at for one script.
_BESIDE = ("", "config", "conf", "configs")
_MAX_DEFAULTS = 20
_HYDRA = ("--config-path", "--config-name", "--config-dir", "-cp", "-cn", "-cd")


def may_need_resolving(words: Sequence[str], environ: Mapping[str, str], cwd: Callable[[], str]) -> bool:
    """Whether the slow path must look at this command.

    Args:
        words: Everything after `nemotron-exec`.
        environ: The environment.
        cwd: Gives the working directory; called only if it matters.
    """
    if environ.get("NEMOTRON_EXEC_DISABLE") and _is_on(environ["NEMOTRON_EXEC_DISABLE"]):
        return not words or (words[0].startswith("-") and words[0] != "--")
    if not words or words == ["--"] or (words[0].startswith("-") and words[0] != "--"):
        return True
    for name in environ:
        if name.startswith(("NEMOTRON_EXEC_", "_NEMOTRON_EXEC_COMPLETE")) and name not in HARMLESS:
            return True
    if environ.get("NEMOTRON_ENV_FILE") or environ.get("NEMO_RUN_DIR") or _env_toml_above(cwd):
        return True
    for word in words[1:]:
        if _word_may_matter(word, environ):
            return True
    return (words[0].endswith(".py") and _script_may_matter(words[0])) or _module_may_matter(words, environ)


def _word_may_matter(word: str, environ: Mapping[str, str]) -> bool:
    if word.startswith(("run.", "+run.", "++run.", "~run.")) and ("=" in word or word[0] == "~"):
        return True  # command/override.py decides whether it is an override
    if ("${" in word and "manifest" in word) or ("art" in word and ("{" in word or "$" in word)):
        return True
    if word.partition("=")[0] in OWN_OPTIONS or (word.endswith("=") and "." in word and word[0] != "-"):
        return True  # doubts.py warns of an option meant for nemotron-exec, and of a value that the shell has emptied
    if word.startswith(_HYDRA) or word.startswith(_DIRECTORY):
        return True
    if (".yaml" in word or ".yml" in word) and (" " in word or "\n" in word or not is_yaml_name(word)):
        return True  # the text of a shell, `cfg.yaml:section`, `[cfg.yaml]`
    path = word.rpartition("=")[2] if word.startswith("-") else word
    if is_yaml_name(path) and _file_may_hold(path):
        return True
    if "cd " in word and "$@" in word:
        return True  # `sh -c 'cd sub && exec "$@"'`
    if " " in word and (".py" in word or "-m" in word or "m " in word) and _shell_text_may_matter(word, environ):
        return True
    if word.endswith(".py") and _script_may_matter(word):
        return True
    return word.endswith((".json", ".jsonc", ".toml")) and _may_name_artifacts(word.rpartition("=")[2])


def is_yaml_name(path: str) -> bool:
    """Whether the name ends like that of a YAML file."""
    return path.endswith((".yaml", ".yml", ".YAML", ".YML"))


def read_regular(path: str, limit: int = -1) -> bytes | None:
    """The bytes of a file, at most `limit`; None where it is absent, no regular file, or cannot be read.

    Reading a FIFO would wait for its writer, and take bytes that are meant for the job.
    """
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError:
        return None


def may_hold_something_of_ours(data: bytes) -> bool:
    """Whether a YAML text may hold an `${art:…}`, a `run` section, or a parent that does.

    The three byte tests are those of design ruling 8. Text that is not UTF-8 goes to the parser.
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


def _is_on(text: str) -> bool:
    from nemotron_exec.sitecustomize.payload.flags import is_on

    return is_on(text) is True


def _may_name_artifacts(path: str) -> bool:
    """Whether a JSON or TOML config has `${art:…}`: the slow path warns that it is not read."""
    data = read_regular(path, 1 << 20) or b""
    return (b"${" in data and b"art" in data) or any(text in data for text in _NEARLY)


def _script_may_matter(script: str) -> bool:
    """Whether a Python file has a config that no argument names: Hydra's, or one that its text names."""
    data = read_regular(script) or b""
    return b"hydra" in data or any(_file_may_hold(path) for path in default_configs(script, data))


def default_configs(script: str, data: bytes) -> list[str]:
    """The existing YAML files beside a script that its text names: `Path(__file__).parent / "config" / "x.yaml"`.

    Args:
        script: Path of the script.
        data: Text of the script.
    """
    found: list[str] = []
    folder = os.path.dirname(script)
    at = data.find(b".yaml")
    while at >= 0 and len(found) < _MAX_DEFAULTS:
        quote = data[at + 5 : at + 6]
        start = data.rfind(quote, max(0, at - 200), at) if quote in (b'"', b"'") else -1
        name = data[start + 1 : at + 5].decode("utf-8", "replace") if start >= 0 else ""
        if name and not name.startswith(("/", "-")) and "\n" not in name and "\0" not in name:
            for below in _BESIDE:
                path = os.path.join(folder, below, name)
                if path not in found and os.path.isfile(path):
                    found.append(path)
        at = data.find(b".yaml", at + 5)
    return found


def _shell_text_may_matter(text: str, environ: Mapping[str, str]) -> bool:
    """Whether the text of `bash -c` starts a script with such a config, here or in a directory that it changes to."""
    pieces = [piece.strip("'\"();&|") for piece in text.split()]
    directories = ["", *(pieces[at] for at in range(1, len(pieces)) if pieces[at - 1] == "cd")]
    scripts = [piece for piece in pieces if piece.endswith(".py")]
    if any(_script_may_matter(os.path.join(directory, name)) for directory in directories for name in scripts):
        return True
    return any(map(_is_module_flag, pieces)) and ("cd" in pieces or _module_may_matter(pieces, environ))


def module_in(word: str) -> str | None:
    """The module in an interpreter's word `-mpkg.mod`, where other flags may stand before the `m` (`-um`).

    "" where the module is the next word; None where the word has no `-m`.
    """
    if word[:1] != "-" or word[1:2] == "-":
        return None
    flags, found, name = word[1:].partition("m")
    return name if found and all(flag in _PYTHON_FLAGS for flag in flags) else None


def _is_module_flag(word: str) -> bool:
    return module_in(word) is not None


def _module_may_matter(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether the module of `python -m pkg.mod` or `torchrun … -m pkg.mod` has a config that no argument names."""
    for index, word in enumerate(words):
        attached = module_in(word)
        module = attached or ""
        if word.startswith("--module="):
            module = word[len("--module=") :]
        if word == "--module" or (attached == "" and index + 1 < len(words)):
            # For torchrun `--module` is a flag, and the module is the first word after it that is no option.
            module = next((name for name in words[index + 1 :] if not name.startswith("-") and name != "runpy"), "")
        if not module or module.startswith(("torch.distributed.", "nvidia_resiliency_ext.")):
            continue
        from nemotron_exec.program_file import script_of_module

        script = script_of_module(module, words[:index], environ)
        if script is not None and _script_may_matter(script):
            return True
    return False


def _file_may_hold(path: str) -> bool:
    data = read_regular(path)
    # A file that is missing or unreadable goes to the slow path, which reports it.
    return data is None or may_hold_something_of_ours(data) or any(text in data for text in _NEARLY)


def _env_toml_above(cwd: Callable[[], str]) -> bool:
    # Walk as `find_env_toml` does, by which the slow path finds the file. The file may name the manifest store.
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
