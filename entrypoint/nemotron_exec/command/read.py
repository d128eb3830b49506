"""Step 1, read: find launcher, config files and overrides in the wrapped command.

This step changes no word of the command. `Config.render` says later which words change, by their index.
"""

from __future__ import annotations

import os

from nemotron_exec.command.named_files import named_files
from nemotron_exec.command.override import Override, parse_option, parse_override
from nemotron_exec.command.script import find_script
from nemotron_exec.command.torchrun import find_program
from nemotron_exec.command.words import Command, ConfigArgument, ElasticLauncher, word_at
from nemotron_exec.command.wrappers import Surroundings, surroundings
from nemotron_exec.command_scan import is_yaml_name, may_hold_something_of_ours

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["read"]


def read(words: Sequence[str], explicit: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Command:
    """Find launcher, program, configs and overrides in the words of a command.

    Args:
        words: The command, as it will be started.
        explicit: Paths given with `-c`. Only arguments that name one of these are configs then, whatever their suffix.
            A path that is no argument of the command gets the index -1, unless it is the config of a Hydra program.
        environ: The environment, which says where the program of `python -m` lies.
    """
    argv = tuple(words)
    launcher, program = find_program(argv)
    around = surroundings(argv[: program or _first_file(argv)])
    configs = _find_configs(argv, program, launcher, explicit, environ or {}, around)
    taken = {config.index for config in configs if not config.prefix or config.hydra is not None}
    overrides = tuple(
        override
        for index in range(program + 1, len(argv))
        if index not in taken
        if (override := parse_option(argv, index) or _parse_word(argv, index)) is not None
        if not (override.text is not None and named_files(argv[index], around.directory) == [(0, argv[index])])
    )
    return Command(argv, launcher, program, configs, overrides, around)


def _first_file(argv: tuple[str, ...]) -> int:
    """The index of the first word that names a YAML file, a Python file or a shell script: wrappers stand before it."""
    files = (at for at, word in enumerate(argv) if is_yaml_name(word) or word.endswith((".py", ".sh")))
    return next(files, len(argv))


def _parse_word(argv: tuple[str, ...], index: int) -> Override | None:
    return None if _is_option_value(argv, index) else parse_override(index, argv[index])


_HYDRA_OPTIONS = {
    "--config-path": "path",
    "-cp": "path",
    "--config-name": "name",
    "-cn": "name",
    "--config-dir": "dir",
    "-cd": "dir",
}


def _find_configs(
    argv: tuple[str, ...],
    program: int,
    launcher: ElasticLauncher | None,
    explicit: Sequence[str],
    environ: Mapping[str, str],
    around: Surroundings,
) -> tuple[ConfigArgument, ...]:
    found = []
    directory = around.directory
    options: dict[str, tuple[int, str, str]] = {}
    for index in range(max(program, 1), len(argv)):
        word = argv[index]
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", "")
        if option in _HYDRA_OPTIONS:
            given = (index, f"{option}=", value) if equals else _next_word(argv, index)
            if given is not None and _HYDRA_OPTIONS[option] == "dir":
                options["dir"] = (*given[:2], os.path.join(directory, given[2]))
            elif given is not None:
                options[_HYDRA_OPTIONS[option]] = given
        else:
            found += _configs_in(index, word, directory, environ)
    script = find_script(argv, program, launcher, environ, directory)
    if explicit:
        named = [config for path in explicit for config in _explicit_configs(argv, path, directory)]
        return tuple(
            config if config.index >= 0 else _of_program(argv, script, options, config, environ, directory)
            for config in named
        )
    if script is not None or options.keys() & {"path", "name"}:
        from nemotron_exec.command import hydra_program

        config = hydra_program.find(argv, script, options, environ, directory)
        if config is not None:
            found.append(config)
    return tuple(found)


def _of_program(
    argv: tuple[str, ...],
    script: tuple[int, str] | None,
    options: Mapping[str, tuple[int, str, str]],
    config: ConfigArgument,
    environ: Mapping[str, str],
    directory: str,
) -> ConfigArgument:
    """The config of `-c` that no word of the command names; with its directory if it is that of a Hydra program."""
    from nemotron_exec.command import hydra_program

    return hydra_program.explicit(argv, script, options, config.path, environ, directory) or config


def _configs_in(index: int, word: str, directory: str, environ: Mapping[str, str]) -> list[ConfigArgument]:
    """The configs that a word names: existing files that may hold an artifact or a `run` section."""
    override = parse_override(index, word)
    if override is not None and override.is_about_run:
        return []
    return [
        _config_argument(index, word, start, name, directory)
        for start, name in named_files(word, directory)
        if _may_be_ours(os.path.join(directory, name), environ)
    ]


def _config_argument(
    index: int, word: str, start: int, name: str, directory: str, *, explicit: bool = False
) -> ConfigArgument:
    path = os.path.join(directory, name)
    suffix = word[start + len(name) :]
    return ConfigArgument(index, word[:start], path, written=name, suffix=suffix, explicit=explicit)


def _may_be_ours(path: str, environ: Mapping[str, str]) -> bool:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return True  # the reader of the configs reports why it cannot be read
    return may_hold_something_of_ours(data) or ("NEMO_RUN_DIR" in environ and b"/nemo_run" in data)


def _explicit_configs(argv: tuple[str, ...], path: str, directory: str) -> list[ConfigArgument]:
    """The first word that names the file of `-c`; a config with index -1 where no word does."""
    wanted = _real(path)
    found = []
    for index, word in enumerate(argv):
        if word == path and not directory:
            found.append(ConfigArgument(index, "", path, explicit=True))
        elif word.startswith("-") and word.endswith(f"={path}") and not directory:
            found.append(ConfigArgument(index, word[: -len(path)], path, explicit=True))
        else:
            found += [
                _config_argument(index, word, start, name, directory, explicit=True)
                for start, name in named_files(word, directory)
                if _real(os.path.join(directory, name)) == wanted
            ]
    return found[:1] or [ConfigArgument(-1, "", path, explicit=True)]


def _real(path: str) -> str:
    """The path without links. It is returned unchanged where the working directory is gone."""
    try:
        return os.path.realpath(path)
    except OSError:
        return path


def _next_word(argv: tuple[str, ...], index: int) -> tuple[int, str, str] | None:
    following = word_at(argv, index + 1)
    return None if following is None else (index + 1, "", following)


def _is_option_value(argv: tuple[str, ...], index: int) -> bool:
    """Whether the word is the value of the long option before it (`--env A=b`). Short options count as flags."""
    before = argv[index - 1]
    return before.startswith("--") and "=" not in before and len(before) > 2 and before not in _CONFIG_FLAGS


# Long options that take overrides: a `k=v` word after one of them is an override.
_CONFIG_FLAGS = frozenset({"--overrides", "--hydra-overrides", "--override", "--set"})
