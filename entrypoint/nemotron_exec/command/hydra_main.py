"""The config that a script gives to Hydra by `@hydra.main(config_path=…, config_name=…)`, read without running it.

Only literals and constants of the module are read. For anything else (a directory computed from `__file__`, a decorator
in another module) the user names the config with `-c FILE`.
"""

from __future__ import annotations

import ast

from nemotron_exec.command_scan import read_regular
from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HydraMain", "read"]

_MAX_BYTES = 4 * 1024 * 1024
_UNREADABLE = "\0"
_ABSENT = "\0absent"
# Parameters by position. NeMo's decorator hands the same command line on to Hydra (nemo/core/config/hydra_runner.py).
_MAIN = ("config_path", "config_name", "version_base")
_RUNNER = ("config_path", "config_name", "schema")
_COMPOSE = {
    "initialize": ("config_path", "job_name", "caller_stack_depth", "version_base"),
    "initialize_config_dir": ("config_dir", "job_name", "version_base"),
    "compose": ("config_name", "overrides"),
}


@dataclass(frozen=True)
class HydraMain:
    """The config that a script gives to Hydra.

    Attributes:
        path: `config_path`: relative to the script, absolute, or `pkg://…`; None where there is none.
        name: `config_name`; None where there is none.
        path_known: Whether `path` could be read.
        name_known: Whether `name` could be read.
        takes_arguments: Whether Hydra reads the command line; with `hydra.compose` it does not.
    """

    path: str | None
    name: str | None
    path_known: bool = True
    name_known: bool = True
    takes_arguments: bool = True


def read(file: str) -> HydraMain | None:
    """The config that the script `file` gives to Hydra; None if it does not use Hydra, or cannot be parsed here."""
    try:
        source = read_regular(file, _MAX_BYTES)
        if source is None or b"hydra" not in source:
            return None
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = _imported(tree)
    constants = _constants(tree)
    mains: set[HydraMain] = set()
    composed: dict[str, set[str | None]] = {}
    for node in ast.walk(tree):
        function = names.get(_dotted(node.func)) if isinstance(node, ast.Call) else None
        if function is None or not isinstance(node, ast.Call):
            continue
        if function in _COMPOSE:
            given = _arguments(node, _COMPOSE[function], constants)
            for key in ("config_path", "config_dir", "config_name"):
                if key in given:
                    composed.setdefault("config_path" if key == "config_dir" else key, set()).add(given[key])
        else:
            given = _arguments(node, _RUNNER if function == "hydra_runner" else _MAIN, constants)
            mains.add(_main(given, function == "hydra_runner"))
    if mains:
        return mains.pop() if len(mains) == 1 else HydraMain(None, None, False, False)
    return _composed(composed) if "config_name" in composed else None


def _main(given: Mapping[str, str | None], runner: bool) -> HydraMain:
    path, name = given.get("config_path", _ABSENT), given.get("config_name")
    if path == _ABSENT:
        # hydra/main.py: without `config_path`, Hydra before 1.2 takes the script's directory, and later versions take
        # none.
        version = given.get("version_base", "1.1")
        path = "." if runner or (version is not None and _before_1_2(version)) else None
    return HydraMain(path, name, path != _UNREADABLE, name != _UNREADABLE)


def _before_1_2(version: str) -> bool:
    parts = version.split(".")
    return parts[0] == "1" and parts[1:2] in (["0"], ["1"])


def _composed(given: Mapping[str, set[str | None]]) -> HydraMain:
    """The config of `hydra.compose` under `hydra.initialize`. A value is known where the script has only one."""
    values = {key: found.pop() if len(found) == 1 else _UNREADABLE for key, found in given.items()}
    path, name = values.get("config_path"), values["config_name"]
    return HydraMain(path, name, path != _UNREADABLE, name != _UNREADABLE, takes_arguments=False)


def _imported(tree: ast.Module) -> dict[str, str]:
    """The names by which the script calls each function: `hydra.main`, `h.main`, `main` → main."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                if item.name == "hydra" or (item.name.startswith("hydra.") and not item.asname):
                    names |= {f"{item.asname or 'hydra'}.{name}": name for name in ("main", *_COMPOSE)}
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                ours = item.name in ("main", *_COMPOSE) and (node.module or "").split(".")[0] == "hydra"
                if ours or item.name == "hydra_runner":
                    names[item.asname or item.name] = item.name
    return names


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _constants(tree: ast.Module) -> dict[str, str | None]:
    """The names that the module assigns once, at its top level, with the string that each gets."""
    found: dict[str, str | None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = _UNREADABLE if node.id in found else _ABSENT
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name) and found.get(target.id) == _ABSENT:
                assert isinstance(statement, (ast.Assign, ast.AnnAssign))
                assert statement.value is not None
                found[target.id] = _value(statement.value, {})
    return {name: value for name, value in found.items() if value != _ABSENT}


def _arguments(
    call: ast.Call, parameters: tuple[str, ...], constants: Mapping[str, str | None]
) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    if any(isinstance(node, ast.Starred) for node in call.args) or any(item.arg is None for item in call.keywords):
        return dict.fromkeys(parameters, _UNREADABLE)
    found.update({name: _value(node, constants) for name, node in zip(parameters, call.args, strict=False)})
    found.update({item.arg: _value(item.value, constants) for item in call.keywords if item.arg})
    return found


def _value(node: ast.expr, constants: Mapping[str, str | None]) -> str | None:
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
        return node.value
    if isinstance(node, ast.Name):
        return constants.get(node.id, _UNREADABLE)
    return _UNREADABLE
