"""env.toml: a file beside a project that names its W&B project, artifact store and cluster profile.

It is read as nemo_runspec/env.py reads it, as far as `[wandb]`, `[artifacts]` and `run.env` need it.
"""

from __future__ import annotations

import os
import sys

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass, field
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute, user_path

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_WITHOUT = "or start without the file: nemotron-exec --env-file /dev/null"

__all__ = ["EnvToml", "find_env_toml", "read_env_toml"]


@dataclass(frozen=True)
class EnvToml:
    """The content of env.toml.

    Attributes:
        path: The file, or None if there is none.
        wandb: `[wandb]`, with the profile's own `wandb` over it.
        artifacts: `[artifacts]`, with the profile's own `artifacts` over it.
        profile: The chosen profile with everything that it extends. `run.env` is filled from it.
    """

    path: str | None = None
    wandb: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def artifacts_root(self) -> str | None:
        """`[artifacts.manifest] root`."""
        manifest = self.artifacts.get("manifest")
        root = manifest.get("root") if isinstance(manifest, dict) else None
        return root if isinstance(root, str) and root else None


def find_env_toml(directory: str, environ: Mapping[str, str]) -> str | None:
    """`NEMOTRON_ENV_FILE`, else the nearest env.toml upward from `directory`, not past a pyproject.toml."""
    named = environ.get("NEMOTRON_ENV_FILE")
    if named:
        return str(user_path(named, environ))
    directory = absolute(directory)
    while True:
        candidate = os.path.join(directory, "env.toml")
        if os.path.isfile(candidate):
            return candidate
        parent = os.path.dirname(directory)
        if parent == directory or os.path.isfile(os.path.join(directory, "pyproject.toml")):
            return None
        directory = parent


def read_env_toml(path: str | None, profile: str | None = None) -> EnvToml:
    """Read the file at `path`; None gives an empty `EnvToml`.

    Raises:
        LaunchError: The file cannot be read, is no TOML, or has no such profile.
    """
    if path is None:
        if profile:
            raise LaunchError(
                f"to use the profile {profile!r}", "there is no env.toml", "Name it with --env-file, or leave out --run"
            )
        return EnvToml()
    content = _load(path)
    chosen = _profile(content, profile, path) if profile else {}
    return EnvToml(
        path,
        {**_table(content, "wandb", path), **_table(chosen, "wandb", path)},
        {**_table(content, "artifacts", path), **_table(chosen, "artifacts", path)},
        {key: value for key, value in chosen.items() if key not in ("wandb", "artifacts")},
    )


def _load(path: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:
        import tomli as toml

    wanted = f"to read {path}"
    try:
        with open(path, "rb") as stream:
            content: dict[str, Any] = toml.load(stream)
    except OSError as error:
        raise LaunchError(
            wanted, error.strerror or str(error), f"Check --env-file and NEMOTRON_ENV_FILE, {_WITHOUT}"
        ) from None
    except ValueError as error:  # TOMLDecodeError names the line; UnicodeDecodeError is a ValueError as well
        raise LaunchError(wanted, str(error), f"Correct the TOML, {_WITHOUT}") from None
    return content


def _table(content: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise LaunchError(f"to read [{name}] of {path}", f"it is {table!r}", f"Write a table [{name}]")
    return table


def _profile(content: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    """A profile, merged over the profiles that it `extends`."""
    chain: list[str] = []
    tables = []
    current: Any = name
    while current is not None:
        wanted = f"to use the profile {name!r} of {path}"
        if current in chain:
            raise LaunchError(wanted, f"profiles extend in a circle: {' -> '.join([*chain, current])}", "Break it")
        table = content.get(current)
        if not isinstance(table, dict):
            profiles = sorted(
                key
                for key, value in content.items()
                if isinstance(value, dict) and key not in ("wandb", "cli", "cache", "artifacts")
            )
            by = f", which {chain[-1]!r} extends," if chain else ""
            raise LaunchError(
                wanted, f"there is no [{current}]{by} in it", f"Profiles: {', '.join(profiles) or 'none'}"
            )
        chain.append(current)
        tables.append(table)
        current = table.get("extends")
    merged: dict[str, Any] = {}
    for table in reversed(tables):
        merged = _merge(merged, {key: value for key, value in table.items() if key != "extends"})
    return merged


def _merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in child.items():
        before = result.get(key)
        result[key] = _merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result
