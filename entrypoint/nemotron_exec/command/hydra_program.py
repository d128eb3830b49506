"""Finds the primary config of a Hydra program: on the command line, or in the script's call of Hydra.

The command line goes first, as in hydra/_internal/utils.py `_run_hydra`: `--config-path` (absolute, `pkg://…`, or
relative to the script) replaces the decorator's `config_path`, `--config-name` its `config_name`, and `--config-dir`
is searched after it. The program gets its resolved directory as `--config-path`, which replaces the decorator's: no
part of Hydra is patched, and `--cfg job`, `--info`, multirun and job launchers see what the command says.
"""

from __future__ import annotations

import os

from nemotron_exec.command import hydra_main
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.command_scan import is_yaml_name
from nemotron_exec.frozen import replace
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nemotron_exec.command.hydra_main import HydraMain

__all__ = ["explicit", "find"]


def find(
    argv: Sequence[str],
    script: tuple[int, str] | None,
    options: Mapping[str, tuple[int, str, str]],
    environ: Mapping[str, str],
    around: str = "",
) -> ConfigArgument | None:
    """The primary config of the program, if there is one. It is tentative where no word of the command names it.

    Args:
        argv: The command.
        script: Index and file of the Python program.
        options: `path`, `name` and `dir` as the command line gives them: index of the word, its text before the value,
            and the value.
        environ: The environment.
        around: The working directory of the command.
    """
    said = _said(script, environ)
    name = _name(said, options)
    if name is None or (said is None and not options.keys() & {"path", "name"}):
        return None
    for directory, option in _directories(argv, script, said, options, environ, around):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            found = _argument(argv, script, said, options, option, path, directory)
            named = options.keys() & {"path", "name"} and (said is None or said.takes_arguments)
            return replace(found, tentative=not named)
    return None


def explicit(
    argv: Sequence[str],
    script: tuple[int, str] | None,
    options: Mapping[str, tuple[int, str, str]],
    path: str,
    environ: Mapping[str, str],
    around: str = "",
) -> ConfigArgument | None:
    """The config that `-c PATH` names, if it is the primary config of a Hydra program.

    Where the script's decorator cannot be read, the directory is taken from PATH.
    """
    said = _said(script, environ)
    if said is None and not options.keys() & {"path", "name"}:
        return None
    name = _name(said, options)
    for directory, option in _directories(argv, script, said, options, environ, around):
        if name is not None and os.path.realpath(os.path.join(directory, name)) == os.path.realpath(path):
            return _argument(argv, script, said, options, option, os.path.join(directory, name), directory)
    if said is None or (said.path_known and said.name_known) or "path" in options:
        return None
    full = absolute(path)
    folder = os.path.dirname(full)
    if name is not None:
        if not full.endswith(os.sep + name):
            return None
        folder = full[: -len(name) - 1]
    elif said.path_known:
        folder = next((one for one, _ in _directories(argv, script, said, options, environ, around)), folder)
    return _argument(argv, script, said, options, "", full, folder) if full.startswith(folder + os.sep) else None


def _said(script: tuple[int, str] | None, environ: Mapping[str, str]) -> HydraMain | None:
    # HYDRA_MAIN_MODULE puts another module in the place of the script (hydra/_internal/utils.py).
    return None if script is None or "HYDRA_MAIN_MODULE" in environ else hydra_main.read(script[1])


def _name(said: HydraMain | None, options: Mapping[str, tuple[int, str, str]]) -> str | None:
    if "name" in options and (said is None or said.takes_arguments):
        name: str | None = options["name"][2]
    elif said is not None:
        name = said.name if said.name_known else None
    else:
        name = "config"
    return name if name is None or is_yaml_name(name) else name + ".yaml"


def _directories(
    argv: Sequence[str],
    script: tuple[int, str] | None,
    said: HydraMain | None,
    options: Mapping[str, tuple[int, str, str]],
    environ: Mapping[str, str],
    around: str,
) -> list[tuple[str, str]]:
    """The directories where Hydra looks for the primary config, in order, each with its option ("": the script)."""
    found: list[tuple[str, str]] = []
    takes_arguments = said is None or said.takes_arguments
    beside = os.path.dirname(script[1]) if script is not None else ""
    text: str | None = "."
    if "path" in options and takes_arguments:
        text = options["path"][2]
    elif said is not None:
        text = said.path if said.path_known else None
    if text is not None and text.startswith("pkg://"):
        from nemotron_exec.program_file import package_directory

        before = argv[: script[0]] if script is not None else ()
        text = package_directory(text[len("pkg://") :], before, environ, beside, around)
        text = text and absolute(text)
    if text is not None:
        # hydra/_internal/utils.py, `compute_search_path_dir`, computes the directory in this way.
        directory = os.path.normpath(os.path.join(os.path.realpath(beside or "."), text))  # noqa: TID251
        found.append((directory, "path" if "path" in options and takes_arguments else ""))
    if "dir" in options and takes_arguments:
        found.append((absolute(options["dir"][2]), "dir"))
    return found


def _argument(
    argv: Sequence[str],
    script: tuple[int, str] | None,
    said: HydraMain | None,
    options: Mapping[str, tuple[int, str, str]],
    option: str,
    path: str,
    directory: str,
) -> ConfigArgument:
    if option:
        index, prefix, _ = options[option]
        return ConfigArgument(index, prefix, path, hydra=index, directory=directory)
    if said is not None and not said.takes_arguments:
        return ConfigArgument(-1, "", path, hydra=-1, directory=directory)
    # argparse wants options before the overrides. Put the new one beside `--config-name`, else right after the program.
    index = options["name"][0] if "name" in options else script[0] if script is not None else -1
    return ConfigArgument(index, argv[index] if index >= 0 else "", path, hydra=-1, directory=directory)
