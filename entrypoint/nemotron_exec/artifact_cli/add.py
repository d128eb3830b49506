"""`nemotron-artifact add`: register data that exists already as a version of an artifact."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from nemotron_exec.artifact_cli.store import (
    REFERENCE,
    json_option,
    messages_for,
    open_store_files,
    parse_name,
    print_json,
    store_label,
    store_option,
)
from nemotron_exec.errors import LaunchError, UsageError
from nemotron_exec.schemas import ADD
from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names
from nemotron_exec.sitecustomize.payload.manifest import read, register
from nemotron_exec.sitecustomize.payload.paths import mountinfo

if TYPE_CHECKING:
    pass

__all__ = ["add"]


@click.command()
@click.argument("name")
@click.argument("path")
@click.option("--type", "kind", metavar="T", help="Default: `type` of metadata.json in PATH, else dataset.")
@click.option("--meta", metavar="K=V", multiple=True, help="A field of ${art:…}; 4096 is an int, 1e-4 a float.")
@click.option(
    "--input",
    "inputs",
    metavar="REF",
    multiple=True,
    type=REFERENCE,
    help="What it was made from: an artifact of this store, or a URI.",
)
@click.option("--alias", "aliases", metavar="A", multiple=True, help="Another name for this version.")
@click.option("--no-latest", is_flag=True, help="`latest` never means this version.")
@json_option
@store_option
def add(
    name: str,
    path: str,
    kind: str | None,
    meta: tuple[str, ...],
    inputs: tuple[str, ...],
    aliases: tuple[str, ...],
    no_latest: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Register the data at PATH as the next version of NAME. Nothing is copied."""
    files = open_store_files(store)
    recorded, fields, local = _data_at(path)
    nested = fields.get("metadata")
    metadata = {**(nested if isinstance(nested, dict) else {}), **dict(_meta(text) for text in meta)}
    own = {key: value for key, value in metadata.items() if key in dict(_meta(text) for text in meta)}
    used, uris = _inputs(files, inputs)
    kind = kind or (fields["type"] if isinstance(fields.get("type"), str) else "dataset")
    version = register.register(
        files,
        name,
        type=kind,
        path=recorded,
        metadata=metadata,
        fields={**fields, **own},
        used_artifacts=used,
        inputs=uris,
        aliases=aliases,
        move_latest=not no_latest,
        extra={"file_system": mountinfo.file_system(local)} if local else None,
    )
    if as_json:
        print_json(
            ADD,
            {"qualified_name": version.qualified_name, "path": recorded, "directory": version.directory, "type": kind},
        )
        return
    click.echo(version.qualified_name)
    messages_for().info(f"{recorded} is {version.qualified_name} in {store_label(files)}")


def _data_at(path: str) -> tuple[str, dict[str, Any], str | None]:
    """The path to record, the content of metadata.json there, and the path on this machine (None for a URI)."""
    if not manifest_names.is_local(path):
        return path, {}, None
    local = os.path.realpath(
        os.path.expanduser("/" + path.removeprefix("file:").lstrip("/") if path.startswith("file:") else path)
    )
    if not os.path.exists(local):
        raise LaunchError(
            f"to add the data at {path}", f"{local} is not there", "Name an existing file, directory or URI"
        )
    from nemotron_exec.sitecustomize.payload.paths.host import to_host

    # Record the host's path, not the container's: the next job may mount the data elsewhere.
    recorded = to_host(local)
    file = os.path.join(local, "metadata.json")
    data = manifest_files.LocalFiles(local).read(file) if os.path.isdir(local) else None
    if data is None:
        return recorded, {}, local
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise LaunchError(f"to read the fields in {file}", f"not JSON ({e})", "Mend or remove the file") from e
    if not isinstance(fields, dict):
        raise LaunchError(f"to read the fields in {file}", "JSON that is not an object", "Mend or remove the file")
    return recorded, fields, local


def _meta(text: str) -> tuple[str, Any]:
    """Key and value of `K=V`. The value is typed as in JSON, else as in YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError("to read --meta", f"{text!r}", "Write it as KEY=VALUE")
    try:
        return key, json.loads(value)  # 1e-4 is a number in JSON and text in YAML 1.1
    except (ValueError, RecursionError):
        pass
    import yaml

    try:
        typed = yaml.safe_load(value)
        json.dumps(typed)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError):
        return key, value
    return key, value if typed is None and value != "~" else typed


def _inputs(files: Any, references: tuple[str, ...]) -> tuple[list[str], list[str]]:
    used, uris = [], []
    for reference in references:
        if "://" in reference and not reference.startswith("art://"):
            uris.append(reference)
        elif os.path.isabs(reference):
            uris.append("file://" + os.path.realpath(reference))
        else:
            name, version = parse_name(reference)
            used.append(f"{name}:v{read.read_version(files, name, version, skip_gone=False).number}")
    return used, uris
