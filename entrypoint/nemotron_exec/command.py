"""Step 1, read: what the wrapped command says about its launcher, its config files and their overrides.

The command is only looked at. What is replaced in it later is the config argument, by its index; nothing else.
"""

from __future__ import annotations

import os
import re

from nemotron_exec.command_scan import is_yaml_name
from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Command", "ConfigArgument", "ElasticLauncher", "read"]


@dataclass(frozen=True)
class ElasticLauncher:
    """torchrun or a look-alike, as the command calls it.

    Attributes:
        kind: "torchrun" (also `python -m torch.distributed.run`) or "ft_launcher".
        options: Its options by name with underscores and without dashes (`node_rank`), as written; "" for a flag.
            `PET_*` variables are not merged in: rank.py ranks the two sources.
    """

    kind: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigArgument:
    """One argument of the command that names a YAML file.

    Attributes:
        index: Position in argv of the word to be replaced.
        prefix: What stands before the path in that word: "" or `--config=`.
        path: The path as written.
        hydra: For a Hydra program, whose `path` is D/N.yaml: the index of the word that holds D; -1 where the command
            has none, and `--config-path` is to be put after the word at `index`, which is `prefix`. None for a plain
            file argument.
        directory: D, for a Hydra program: N may have folders of its own.
    """

    index: int
    prefix: str
    path: str
    hydra: int | None = None
    directory: str = ""


@dataclass(frozen=True)
class Command:
    """The wrapped command, read.

    Attributes:
        argv: All its words, untouched.
        launcher: torchrun or a look-alike, if the command starts one.
        program: Index of the training script, module or program; `len(argv)` if there is none.
        configs: The arguments that name configs, in order.
        overrides: Indices of the words after the program that read as overrides (`a.b=1`, `+a=1`, `++a=1`, `~a`).
    """

    argv: tuple[str, ...]
    launcher: ElasticLauncher | None
    program: int
    configs: tuple[ConfigArgument, ...]
    overrides: tuple[int, ...]

    @property
    def relative(self) -> tuple[str, ...]:
        """The words from the program on: the part that is the same on every node."""
        return self.argv[self.program :]


def read(words: Sequence[str], explicit: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Command:
    """Find launcher, program, configs and overrides in the words of a command.

    Args:
        words: The command, as it will be started.
        explicit: Paths given with `-c`: only arguments that name one of these are configs then, whatever their names
            end in. A path that is no argument of the command is listed with index -1, but for the config of a Hydra
            program.
        environ: The environment: where the program of `python -m` lies.
    """
    argv = tuple(words)
    launcher, program = _find_program(argv)
    configs = _find_configs(argv, program, launcher, explicit, environ or {})
    taken = {config.index for config in configs}
    overrides = tuple(
        index
        for index in range(program + 1, len(argv))
        if index not in taken and _OVERRIDE.match(argv[index]) and not _is_option_value(argv, index)
    )
    return Command(argv, launcher, program, configs, overrides)


# Hydra's override grammar, which OmegaConf's dot-lists are a part of: [~|+|++] key[@package] [= value].
_OVERRIDE = re.compile(r"(?:\+\+|\+)?[A-Za-z_][\w.\-/@:$\[\]]*=|~[A-Za-z_][\w.\-/@:\[\]]*(?:=|\Z)")

# torch/distributed/run.py, get_args_parser: the options that take no value. All others take one, also ft_launcher's
# own (`--ft-…`), in which `--ft-cfg-path F.yaml` is not the training config.
_FLAGS = frozenset({"standalone", "module", "no_python", "run_path", "virtual_local_rank", "help"})
_SHORT = {"-m": "module", "-r": "redirects", "-t": "tee", "-h": "help"}
_LAUNCHERS = {"torchrun": "torchrun", "ft_launcher": "ft_launcher"}
_LAUNCHER_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "nvidia_resiliency_ext.fault_tolerance.launcher": "ft_launcher",
}
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*\Z")
# Options of the interpreter that take the next word (python --help).
_PYTHON_VALUED = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_HYDRA_OPTIONS = {
    "--config-path": "path",
    "-cp": "path",
    "--config-name": "name",
    "-cn": "name",
    "--config-dir": "dir",
    "-cd": "dir",
}


def _find_program(argv: tuple[str, ...]) -> tuple[ElasticLauncher | None, int]:
    """The launcher of the command and the index of what it starts."""
    for index, word in enumerate(argv):
        name = os.path.basename(word)
        if name in _LAUNCHERS:
            return _read_launcher(argv, index + 1, _LAUNCHERS[name])
        if _PYTHON.match(name):
            return _read_python(argv, index)
        if is_yaml_name(word) or name.endswith(".py") or (name.endswith(".sh") and not _starts_a_command(argv, index)):
            break
    # A shell script, or a program after wrappers of its own (`numactl -N0 prog`): every later word may be an override.
    return None, 0


def _starts_a_command(argv: tuple[str, ...], script: int) -> bool:
    """Whether a script becomes its arguments, as an image's entrypoint does: `nvidia_entrypoint.sh torchrun …`."""
    name = os.path.basename(argv[script + 1]) if script + 1 < len(argv) else ""
    return name in _LAUNCHERS or bool(_PYTHON.match(name))


def _read_python(argv: tuple[str, ...], python: int) -> tuple[ElasticLauncher | None, int]:
    index = python + 1
    while index < len(argv) and argv[index].startswith("-"):
        word = argv[index]
        if word == "-m" and index + 1 < len(argv):
            kind = _LAUNCHER_MODULES.get(argv[index + 1])
            return _read_launcher(argv, index + 2, kind) if kind else (None, index + 1)
        if word.startswith("-m") and word[2:]:
            kind = _LAUNCHER_MODULES.get(word[2:])
            return _read_launcher(argv, index + 1, kind) if kind else (None, index)
        if word == "-c":
            return None, index + 1
        index += 2 if word in _PYTHON_VALUED else 1
    return None, index


def _read_launcher(argv: tuple[str, ...], index: int, kind: str) -> tuple[ElasticLauncher, int]:
    options: dict[str, str] = {}
    while index < len(argv):
        word = argv[index]
        index += 1
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            index -= 1
            break
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name.lstrip("-").replace("-", "_"))
        if not equals and name not in _FLAGS:
            value = argv[index] if index < len(argv) else ""
            index += 1
        options[name] = value
    if "no_python" in options and index < len(argv):
        # `torchrun --no-python nemotron-exec python train.py`: what it starts is a command of its own.
        _, inner = _find_program(argv[index:])
        return ElasticLauncher(kind, options), index + inner
    return ElasticLauncher(kind, options), index


def _find_configs(
    argv: tuple[str, ...],
    program: int,
    launcher: ElasticLauncher | None,
    explicit: Sequence[str],
    environ: Mapping[str, str],
) -> tuple[ConfigArgument, ...]:
    found = []
    options: dict[str, tuple[int, str, str]] = {}
    for index in range(max(program, 1), len(argv)):
        word = argv[index]
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", "")
        if option in _HYDRA_OPTIONS:
            given = (index, f"{option}=", value) if equals else _next_word(argv, index)
            if given is not None:
                options[_HYDRA_OPTIONS[option]] = given
        elif word.startswith("-"):
            if equals and is_yaml_name(value) and os.path.isfile(value):
                found.append(ConfigArgument(index, f"{option}=", value))
        elif is_yaml_name(word) and not _OVERRIDE.match(word) and _is_file_or_meant_as_one(argv, index):
            found.append(ConfigArgument(index, "", word))
    script = _find_script(argv, program, launcher, environ)
    if explicit:
        named = [_explicit_config(argv, path) for path in explicit]
        if (script is None and not options) or all(config.index >= 0 for config in named):
            return tuple(named)
        from nemotron_exec import hydra_program

        return tuple(
            (config.index < 0 and hydra_program.explicit(argv, script, options, config.path, environ)) or config
            for config in named
        )
    if script is not None or options.keys() & {"path", "name"}:
        from nemotron_exec import hydra_program

        config = hydra_program.find(argv, script, options, environ)
        if config is not None:
            found.append(config)
    return tuple(found)


def _find_script(
    argv: tuple[str, ...], program: int, launcher: ElasticLauncher | None, environ: Mapping[str, str]
) -> tuple[int, str] | None:
    """The index and the file of the Python program that the command starts."""
    index, file = program, None
    if program < len(argv) and argv[program].endswith(".py"):
        file = argv[program]
    elif launcher is None and program == 0:
        # After wrappers that we do not know: `uv run train.py`.
        index = next((at for at, word in enumerate(argv) if word.endswith(".py")), -1)
        file = argv[index] if index >= 0 else None
    elif program < len(argv):
        attached = argv[program].startswith("-m")
        if attached or argv[program - 1] == "-m" or (launcher is not None and "module" in launcher.options):
            from nemotron_exec.program_file import script_of_module

            file = script_of_module(argv[program][2 if attached else 0 :], argv[:program], environ)
    return None if file is None else (index, file)


def _explicit_config(argv: tuple[str, ...], path: str) -> ConfigArgument:
    for index, word in enumerate(argv):
        if word == path:
            return ConfigArgument(index, "", path)
        if word.startswith("-") and word.endswith(f"={path}"):
            return ConfigArgument(index, word[: -len(path)], path)
    return ConfigArgument(-1, "", path)


def _is_file_or_meant_as_one(argv: tuple[str, ...], index: int) -> bool:
    # A missing file is only an error of ours where the word before it says that it is the config; any other word
    # that ends in .yaml may be an output.
    return os.path.isfile(argv[index]) or argv[index - 1] in ("--config", "--config-file", "--config_file")


def _next_word(argv: tuple[str, ...], index: int) -> tuple[int, str, str] | None:
    return (index + 1, "", argv[index + 1]) if index + 1 < len(argv) else None


def _is_option_value(argv: tuple[str, ...], index: int) -> bool:
    """Whether the word belongs to the option before it (`--env A=b`): only where that option is spelled long."""
    before = argv[index - 1]
    return before.startswith("--") and "=" not in before and len(before) > 2 and before not in _CONFIG_FLAGS


# Long options after which a `k=v` word is an override, not their value.
_CONFIG_FLAGS = frozenset({"--overrides", "--hydra-overrides", "--override", "--set"})
