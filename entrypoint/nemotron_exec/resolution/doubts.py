"""Warnings about commands that start, but most likely do not do what the user meant. Each names the right form.

No warning stops a job, unless `--strict` is given.
"""

from __future__ import annotations

import os
import re

from nemotron_exec.command import shell_text
from nemotron_exec.command.named_files import mentioned_files, named_files
from nemotron_exec.command_scan import OWN_OPTIONS, default_configs, is_yaml_name, read_regular
from nemotron_exec.config.foreign import would_be_a_config
from nemotron_exec.config.near_misses import near_misses
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nemotron_exec.command.words import Command
    from nemotron_exec.options import Options

__all__ = ["doubts"]

# Options that name a file which the command writes.
_OUTPUT = pattern(
    r"(?i)(?:^|[-_.])(?:o$|out|save|dump|export|write|log|result|report|metric|dest|target|store|trace|profil|summar"
    r"|histor|record|generate|emit|to$|junit|stat)"
)
# Options that name a file which the command reads.
_CONFIG = pattern(
    r"(?i)(?:-{0,2}|\+{1,2})(?:[cf]$|.*(?:conf|cfg|overr|overlay|extra|patch|merge|updat|set$|opts?$|param|args?$|base|default"
    r"|recipe|experiment|yaml|layer|file$))"
)
_CONFIG_KEYS = ("config", "cfg", "config_file", "config-file", "config_path", "yaml")
_HYDRA = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")
_EMPTIED = pattern(r"\+{0,2}[a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)+=\Z")
_LEFT = pattern(r"(?::[A-Za-z][\w.,-]*)?\Z")
_RIGHT = pattern(r"\$\{\s*art\s*:")
_USED = pattern(r"\$\{\s*(?:art|manifest)\s*:")
_REFERENCE = pattern(r"(?m)^[ \t]+[\w-]+:[ \t]+[\"']?(?:hf://\S+|[\w./-]+:(?:latest|v\d+))[\"']?[ \t]*(?:#.*)?$")
_OTHER_FORMATS = (".json", ".jsonc", ".toml")
_MAX_BYTES = 1 << 20


def doubts(command: Command, chosen: Options, environ: Mapping[str, str]) -> Iterator[str]:
    """The warnings about a command.

    Args:
        command: The wrapped command.
        chosen: The launcher's options.
        environ: The environment.
    """
    yield from _unknown_variables(environ)
    if not chosen.resolve_only:
        yield from _named_and_not_read(command)
    yield from _left_alone(command)
    if not (chosen.config or chosen.artifact or chosen.artifacts):
        yield from _falls_back(command, environ)
    yield from _about_wrappers(command)
    yield from _other_formats(command)
    yield from _missing(command)
    yield from _own_options(command, environ)
    yield from _emptied(command)
    yield from _near_misses(command)


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    from nemotron_exec.command_scan import HARMLESS
    from nemotron_exec.options import OPTIONS

    known = {option.variable for option in OPTIONS if option.variable} | HARMLESS
    strange = [name for name in environ if name.startswith("NEMOTRON_EXEC_") and name not in known]
    if strange:
        from nemotron_exec.variables import VARIABLES

        known |= {variable.name for variable in VARIABLES}
        for name in strange:
            if name not in known:
                yield f"nothing reads the variable {name}{_nearest(name, sorted(known))}"
    disabled = environ.get("NEMOTRON_EXEC_DISABLED_PATCHES", "")
    if not disabled:
        return
    from nemotron_exec.patches import PATCHES

    patches = [*PATCHES, "nemo-run"]
    for name in disabled.replace(" ", "").split(","):
        if name and name not in patches:
            near = _nearest(name, patches) or f"; there are {', '.join(patches)}"
            yield f"NEMOTRON_EXEC_DISABLED_PATCHES names {name}, which is no patch{near}"


def _nearest(name: str, known: list[str]) -> str:
    import difflib

    found = difflib.get_close_matches(name if name.isupper() else name.lower(), known, 1)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(known)}" if len(known) < 10 else ""


def _named_and_not_read(command: Command) -> Iterator[str]:
    for config in command.configs:
        if config.explicit and config.index < 0 and config.hydra is None:
            yield (
                f"-c {config.path}: no word of the command names this file, so the command reads the original, where "
                "only a program with OmegaConf finds the artifacts. Name the file on the command line"
            )


def _left_alone(command: Command) -> Iterator[str]:
    """Warn of configs that name artifacts, in a word in which no path can be replaced."""
    if any(config.explicit for config in command.configs):
        return
    said = {_real(config.path) for config in command.configs}
    for word in command.argv[1:]:
        whole = named_files(word, command.around.directory)
        if any((start == 0 or word[start - 1] == "=") and start + len(name) == len(word) for start, name in whole):
            continue  # the name of a file may hold commas or blanks, so its parts are no files
        for directory, name in _mentioned(command, word):
            path = _real(os.path.join(directory, name))
            if path not in said and would_be_a_config(path):
                said.add(path)
                shown = word if len(word) < 60 else word[:57] + "..."
                yield (
                    f"{name} stays as it is: in {shown!r} no path can be replaced. Name the file as a word of its own, "
                    "or start nemotron-exec inside"
                )


def _mentioned(command: Command, word: str) -> Iterator[tuple[str, str]]:
    """The YAML files that a word names, each with the directory to which its name is relative."""
    around = command.around.directory
    if word == shell_text.text_of(command.argv):
        found = [
            (one.directory, name)
            for one in shell_text.commands(command.argv, around)
            for text in one.words
            for name in mentioned_files(text, one.directory)
        ]
        if found or "nemotron-exec" in word:
            yield from found
            return
    yield from ((around, name) for name in mentioned_files(word, around))


def _falls_back(command: Command, environ: Mapping[str, str]) -> Iterator[str]:
    """Warn of a script without a config on its command line that may read one beside it, which names artifacts."""
    if command.configs or environ.get("NEMOTRON_EXEC_HANDOFF"):
        return
    around = command.around.directory
    for one in shell_text.commands(command.argv, around) or [shell_text.Inner(around, command.argv)]:
        if any(mentioned_files(word, one.directory) for word in one.words):
            continue
        if one.words is not command.argv and (config := _hydra_config(one, environ)) is not None:
            yield (
                f"{config} stays as it is, and nothing is resolved: the text of the shell starts a Hydra program, and "
                "no word of it can be replaced. Start nemotron-exec inside the text"
            )
            return
        for script in _scripts(one, environ):
            path = next((path for path in default_configs(script, _bytes(script)) if _names_an_artifact(path)), None)
            if path is not None:
                yield (
                    f"no config of the command names an artifact, and nothing is resolved: {script} may fall back to "
                    f"{path}, which names artifacts. Write `--config {path}` behind the script; with `nemotron-exec -c "
                    f"{path}` its artifacts are pinned, and reach a script with OmegaConf"
                )
                return


def _hydra_config(one: shell_text.Inner, environ: Mapping[str, str]) -> str | None:
    """The config of a Hydra program that a shell's text starts, if it names artifacts."""
    from nemotron_exec.command.read import read
    from nemotron_exec.config.hydra import mentions_artifacts
    from nemotron_exec.errors import LaunchError

    words = ("env", "-C", one.directory, *one.words) if one.directory else one.words
    try:
        found = [config for config in read(words, (), environ).configs if config.hydra is not None]
        return next((config.path for config in found if mentions_artifacts(config, words)), None)
    except LaunchError:
        return None  # Hydra will report that its config is no YAML


def _scripts(one: shell_text.Inner, environ: Mapping[str, str]) -> list[str]:
    from nemotron_exec.command.script import find_script
    from nemotron_exec.command.torchrun import find_program

    launcher, program = find_program(one.words)
    found = find_script(one.words, program, launcher, environ, one.directory)
    return [found[1]] if found else []


def _names_an_artifact(path: str) -> bool:
    text = _text(path)
    section = re.search(r"(?m)^run[ \t]*:[ \t]*(?:#.*)?$", text)
    return bool(_USED.search(text) or (section and _REFERENCE.search(text, section.end())))


def _about_wrappers(command: Command) -> Iterator[str]:
    """Warn of wrappers that change files or user, which the launcher cannot follow. The remedy is the last sentence."""
    around = command.around
    if around.elsewhere:
        read = [config.written or config.path for config in command.configs]
        # A file that lies here is most likely the file that the wrapper shows to the command.
        unread = [name for word in command.argv[1:] for _, name in named_files(word) if would_be_a_config(name)]
        if read or unread:
            how = "was read here" if read else "is not read"
            yield (
                f"{around.elsewhere} may start the command in another directory or with other files, and "
                f"{', '.join(read or unread)} {how}. Start nemotron-exec behind {around.elsewhere}: "
                f"{around.elsewhere} … nemotron-exec …"
            )
    if around.user and command.configs and not _is_same_user(around.user):
        yield (
            f"{around.changed_by} changes the user to {around.user}, who cannot read the resolved config: its mode is "
            f"0600. Start nemotron-exec behind it: {around.changed_by} … nemotron-exec …"
        )


def _is_same_user(user: str) -> bool:
    import pwd

    if user == "root" or user == "0":
        return True  # root reads every file
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        return False
    return uid in (0, os.geteuid())


def _other_formats(command: Command) -> Iterator[str]:
    for path in _files(command, _OTHER_FORMATS):
        if _RIGHT.search(_text(path)):
            yield f"{path} has ${{art:…}} and is passed through as it is: only YAML is read. Write the config as YAML"


def _files(command: Command, endings: tuple[str, ...]) -> list[str]:
    """The files with one of these endings that words of the command name."""
    paths = (os.path.join(command.around.directory, word.rpartition("=")[2]) for word in command.argv[1:])
    return [path for path in dict.fromkeys(paths) if path.endswith(endings) and os.path.isfile(path)]


def _missing(command: Command) -> Iterator[str]:
    """Warn of YAML files that do not exist. A file that an option writes need not exist."""
    if command.around.elsewhere:
        return
    for index in range(command.program + 1, len(command.argv)):
        word, before = command.argv[index], command.argv[index - 1]
        key, equals, value = word.partition("=")
        option = key if equals else before if before.startswith("-") and "=" not in before else ""
        if equals and not key.startswith("-") and key.lstrip("+") not in _CONFIG_KEYS:
            continue
        path = (value if equals else word).removeprefix("@")
        if option and not _CONFIG.match(option):
            continue  # another file, which the script may write
        if not is_yaml_name(path) or " " in path or path.startswith("-") or "$" in path or option in _HYDRA:
            continue
        full = os.path.join(command.around.directory, path)
        if os.path.exists(full) and not os.path.isfile(full) and not os.path.isdir(full):
            yield f"{path} is no regular file, and is passed through unread: an artifact in it stays unresolved"
        if os.path.exists(full) or _OUTPUT.search(option) or any(mark in path for mark in ",;:*?[{"):
            continue
        folder, name = os.path.split(full)
        yield f"{path} is not there{_nearest_file(folder or '.', name)}"


def _nearest_file(folder: str, name: str) -> str:
    import difflib

    try:
        names = [one for one in os.listdir(folder) if is_yaml_name(one)][:1000]
    except OSError:
        return f": there is no directory {folder}"
    found = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {os.path.join(folder, found[0]).removeprefix('./')}?" if found else ""


def _own_options(command: Command, environ: Mapping[str, str]) -> Iterator[str]:
    """Warn of options of nemotron-exec behind the command, unless its script has the same option."""
    script: bytes | None = None
    for index in range(command.program + 1, len(command.argv)):
        name, _, value = command.argv[index].partition("=")
        value = value or (command.argv[index + 1] if index + 1 < len(command.argv) else "")
        if name not in OWN_OPTIONS and not (name == "--backend" and value in ("wandb", "manifest")):
            continue
        if script is None:
            found = _scripts(shell_text.Inner(command.around.directory, command.argv), environ)
            script = _bytes(found[0]) if found else b""
        if not (script or command.configs) or name[2:].replace("-", "_").encode() in script.replace(b"-", b"_"):
            continue  # the program is unknown, or has the option itself
        yield f"{name} is given to the command. For nemotron-exec write it in front: nemotron-exec {name} …"


def _emptied(command: Command) -> Iterator[str]:
    """Warn of overrides without a value: outside of single quotes a shell replaces `${art:NAME,FIELD}` by nothing."""
    with_yaml = any(map(is_yaml_name, command.argv))
    for override in command.overrides:
        # A shell without a variable `art` turns `$art:data` into `:data`.
        if override.text is None or not _LEFT.match(override.text) or override.sign == "~":
            continue
        option = command.argv[override.index - 1] if override.alone else ""
        shown = f"{option} {override.word or repr('')}" if option else override.word
        wanted = f"{option} '${{art:NAME,FIELD}}'" if option else f"'{override.key}=${{art:NAME,FIELD}}'"
        if command.configs or (with_yaml and len(override.word) < 60 and _EMPTIED.match(override.word)):
            what = "has no name of an artifact" if override.text else "is empty"
            yield (
                f"{shown} {what}. If an artifact stood there, the shell has taken it: write {wanted} in single quotes"
            )


def _real(path: str) -> str:
    # os.path.realpath needs the working directory, which may be gone.
    return os.path.realpath(absolute(path))


def _near_misses(command: Command) -> Iterator[str]:
    """Warn of mistyped artifacts in words, in files that are no config, and in a Hydra config without a right one.

    config.py examines the configs themselves, with the files that they inherit from.
    """
    ours = {_real(config.path): config.path for config in command.configs}
    said = "".join(f"{_text(path)}\n" for path in ours.values())
    for path in _files(command, (".yaml", ".yml", *_OTHER_FORMATS)):
        if _real(path) not in ours:
            text = _text(path)
            said += f"{text}\n"
            yield from near_misses([(path, text)], sure=False)
    for config in command.silent:
        from nemotron_exec.config.hydra import near_files

        yield from near_misses(near_files(config, command.overrides), sure=False)
    for word in command.argv[command.program + 1 :]:
        yield from near_misses([("", word)], said, sure=bool(ours))


def _text(path: str) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: str) -> bytes:
    return read_regular(path, _MAX_BYTES) or b""
