"""`--lock FILE` writes the resolved versions to a small YAML file. `--locked FILE` starts only with exactly these."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from nemotron_exec import __version__
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace
from nemotron_exec.shared_directory import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.options import Options
    from nemotron_exec.resolution.resolution import Resolution

__all__ = ["check", "read", "with_versions_of", "write"]

SCHEMA = 1
# The keys of a version's manifest.json that never change.
_LASTING = ("name", "version", "type", "path", "created_at")


def write(path: str, resolution: Resolution, directory: str) -> None:
    """Write the lock of a resolution.

    Args:
        path: The file; an existing one is replaced.
        resolution: The resolution.
        directory: The command's directory; paths below it are written relative to it.

    Raises:
        LaunchError: The file cannot be written.
    """
    import yaml

    lock = {
        "run": {one.key: _reference(one) for one in resolution.artifacts},
        "lock": {
            "schema": SCHEMA,
            "artifacts": {one.key: _artifact(one) for one in resolution.artifacts},
            "configs": _configs(resolution, directory),
        },
    }
    head = (
        f"# Written by nemotron-exec {__version__} --lock. As a config it names these versions;\n"
        f"# `nemotron-exec --locked {os.path.basename(path)} COMMAND` starts only with exactly them.\n"
    )
    text = head + yaml.safe_dump(lock, sort_keys=False, allow_unicode=True, width=120)
    try:
        files.replace(path, text.encode("utf-8", "surrogateescape"), durable=True)
    except OSError as error:
        raise LaunchError(
            f"to write the lock {path}", error.strerror or str(error), "Give a path in a directory of yours"
        ) from None


def read(path: str) -> dict[str, Any]:
    """The `lock` section of a lock file.

    Raises:
        LaunchError: The file does not exist, is no lock, or has another schema.
    """
    import yaml

    wanted, remedy = f"to start with what {path} names", "Make one with nemotron-exec --lock FILE COMMAND"
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file.read(1 << 20))
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(wanted, getattr(error, "strerror", None) or "it is no UTF-8", remedy) from None
    except (yaml.YAMLError, RecursionError):
        raise LaunchError(wanted, "it is no YAML", remedy) from None
    lock = found.get("lock") if isinstance(found, dict) else None
    if not isinstance(lock, dict) or not isinstance(lock.get("schema"), int):
        raise LaunchError(wanted, "it has no `lock` section with a schema", remedy)
    if lock["schema"] != SCHEMA:
        raise LaunchError(
            wanted, f"its schema is {lock['schema']}, and this is {SCHEMA}", "Use the nemotron-exec that wrote it"
        )
    if not all(_is_table(lock.get(name)) for name in ("artifacts", "configs")) or not all(
        _is_table(one) and isinstance(one.get("version"), str) for one in lock["artifacts"].values()
    ):
        raise LaunchError(wanted, "its `lock` section lacks artifacts, versions or configs", remedy)
    return lock


def with_versions_of(lock: Mapping[str, Any], path: str, chosen: Options) -> Options:
    """The options, with the lock's versions as artifacts of the job.

    Raises:
        LaunchError: `--artifact` names another version.
    """
    given = dict(pair.partition("=")[::2] for pair in chosen.artifact)
    for key, one in lock["artifacts"].items():
        if given.get(key, one["version"]) != one["version"]:
            raise LaunchError(
                f"to start with what {path} names",
                f"--artifact {key}={given[key]}, and the lock has {one['version']}",
                "Leave out one of them",
            )
    pins = [f"{key}={one['version']}" for key, one in lock["artifacts"].items() if not one.get("some_files")]
    return replace(chosen, artifact=tuple({*chosen.artifact, *pins}))


def check(lock: Mapping[str, Any], path: str, resolution: Resolution, directory: str) -> None:
    """Check that a resolution is exactly the locked one.

    Raises:
        LaunchError: It differs; the message names the differences.
    """
    if found := list(_differences(lock, resolution, directory)):
        raise LaunchError(
            f"to start with exactly what {path} names",
            "; ".join(found),
            f"Undo what differs, or write the lock anew with --lock {path}",
        )


def _differences(lock: Mapping[str, Any], resolution: Resolution, directory: str) -> Iterator[str]:
    now = {one.key: _artifact(one) for one in resolution.artifacts}
    for key, locked in lock["artifacts"].items():
        here = now.pop(key, None)
        if here is None:
            yield f"run.{key} is not there"
        elif here["version"] != locked["version"]:
            yield f"run.{key} is {here['version']}, and was {locked['version']}"
        elif here.get("digest") != locked.get("digest"):
            digests = f"digest {here.get('digest')}, and was {locked.get('digest')}"
            yield f"{here['version']} of run.{key} has another content: {digests}"
    for key, here in now.items():
        yield f"run.{key} ({here['version']}) is new"
    configs = _configs(resolution, directory)
    for name, digest in lock["configs"].items():
        if name not in configs:
            yield f"the config {name} is not among those of the command"
        elif configs[name] != digest:
            yield f"{name} has changed"
    for name in configs.keys() - lock["configs"].keys():
        yield f"the config {name} is new"


def _artifact(artifact: Artifact) -> dict[str, Any]:
    found = {
        "reference": artifact.reference,
        "version": artifact.qualified_name,
        "store": artifact.store,
        "digest": artifact.digest or _digest_of_manifest(artifact.source),
        "path": artifact.path,
        "some_files": bool(artifact.fields.get("include") or artifact.fields.get("exclude")) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _reference(artifact: Artifact) -> object:
    if artifact.store != "huggingface" or not _artifact(artifact).get("some_files"):
        return artifact.qualified_name
    name, _, commit = artifact.qualified_name.removeprefix("hf://").partition("@")
    patterns = {word: list(artifact.fields[word]) for word in ("include", "exclude") if artifact.fields.get(word)}
    return {"hf": name, "revision": commit, **patterns}


def _digest_of_manifest(directory: str | None) -> str | None:
    """A digest of the lasting keys of a version in the manifest store; None where its manifest is no local file."""
    if not directory or not os.path.isabs(directory):
        return None
    try:
        manifest = json.loads(files.read(os.path.join(directory, "manifest.json")) or b"{}")
        kept = {name: manifest.get(name) for name in _LASTING}
    except (files.UnusableFileError, ValueError, RecursionError, AttributeError):
        return None
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _configs(resolution: Resolution, directory: str) -> dict[str, str]:
    """The digest of each file from which the resolution was made."""
    return {_shown(path, directory): digest for path, digest in sorted(resolution.files.items())}


def _shown(path: str, directory: str) -> str:
    relative = os.path.relpath(path, directory)
    return path if relative.startswith("..") else relative


def _is_table(value: object) -> bool:
    return isinstance(value, dict)
