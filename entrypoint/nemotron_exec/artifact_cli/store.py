"""The store that the commands of `nemotron-artifact` open, and how they name and print its versions."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names
from nemotron_exec.sitecustomize.payload.paths.absolute import working_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from click.shell_completion import CompletionItem

    from nemotron_exec.artifact_cli.inventory import Entry, Inventory

__all__ = [
    "find_entry",
    "launch_error",
    "messages_for",
    "open_store_files",
    "parse_name",
    "print_json",
    "read_inventory",
    "read_once",
    "root_of_env_toml",
    "root_of_store",
    "store_label",
    "store_option",
    "with_version_before",
]


class ReferenceType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """`NAME` or `NAME:REF`, completed from the store."""

    name = "reference"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """The names and versions in the store; nothing where the store cannot be read."""
        from click.shell_completion import CompletionItem

        try:
            files = open_store_files(ctx.find_root().params.get("store"))
            name, colon, _ = incomplete.partition(":")
            if not colon:
                return [CompletionItem(one) for one in listing.names(files) if one.startswith(incomplete)]
            words = ["latest", *listing.aliases(files, name), *(f"v{one}" for one in listing.versions(files, name))]
        except (manifest_names.StoreError, LaunchError):
            return []
        return [CompletionItem(f"{name}:{word}") for word in words if f"{name}:{word}".startswith(incomplete)]


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--store`, also after the subcommand, where people write it."""
    # People write the option after the subcommand, too.
    return click.option("--store", "store", metavar="URI", help="Root of the manifest store.", default=None)(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")

REFERENCE = ReferenceType()


def messages_for() -> Messages:
    """Messages under the name of this program."""
    return Messages(program="nemotron-artifact")


def launch_error(e: manifest_names.StoreError) -> LaunchError:
    """A StoreError of the payload as the launcher's own error."""
    kind = TemporaryError if e.temporary else LaunchError
    return kind(e.wanted, e.found, e.remedy)


def root_of_store(store: str | None = None) -> str:
    """The root of the store: from the command line, else the environment, else env.toml, else the default."""
    context = click.get_current_context(silent=True)
    given = store or (context.find_root().params.get("store") if context else None)
    root: str = (
        given or os.environ.get("NEMOTRON_EXEC_STORE") or root_of_env_toml() or manifest_names.default_root(os.environ)
    )
    return root


def open_store_files(store: str | None) -> Any:
    """The file system of the store that the user or the environment names."""
    from nemotron_exec.stores.manifest import open_files

    return open_files(root_of_store(store))


def read_once(files: Any, name: str | None = None) -> Any:
    """A snapshot of the store, or of its artifact `name`. On a remote store its files are read in parallel."""
    if not hasattr(files, "snapshot"):
        return files
    one = None if not name or name.endswith("/") else name.partition(":")[0]
    seen = files.snapshot(one)
    # The error for an unknown name suggests the nearest names, so it needs the whole store.
    return seen if one is None or seen.list(f"{files.root}/{one}") else files


def store_label(files: Any) -> str:
    """The root of a store as people write it."""
    return str(getattr(files, "uri", files.root))


def root_of_env_toml() -> str | None:
    """The root of the store that the team's env.toml names; None where it names none."""
    from nemotron_exec.config.env_toml import find_env_toml, read_env_toml

    return read_env_toml(find_env_toml(working_directory(), os.environ)).artifacts_root


def read_inventory(
    files: Any, name: str | None = None, *, newest: int | None = None, only_latest: bool = False
) -> Inventory:
    """The inventory of the store, or of the artifact `name`, or of the prefix `name/`. See `take_inventory`."""
    from nemotron_exec.artifact_cli.inventory import take_inventory
    from nemotron_exec.sitecustomize.payload.paths.host import localise

    if not name:
        return take_inventory(files, None, localise, newest=newest, only_latest=only_latest)
    if name.endswith("/"):
        names = [one for one in listing.names(files) if one.startswith(name)]
        return take_inventory(files, names, localise, newest=newest, only_latest=only_latest)
    bare = name.partition(":")[0]
    if not listing.versions(files, bare):
        read.read_version(files, bare)  # raises an error that suggests the nearest names
    return take_inventory(files, [bare], localise, newest=newest, only_latest=only_latest)


def read_one(files: Any, name: str, number: int) -> Entry:
    """One version, with the aliases that point to it."""
    from nemotron_exec.artifact_cli.inventory import take_inventory
    from nemotron_exec.sitecustomize.payload.paths.host import localise

    return take_inventory(files, [name], localise, number=number).entries[0]


def find_entry(files: Any, reference: str) -> Entry:
    """The version that a reference names, even if its data is gone.

    Raises:
        UnknownArtifactError: The store has no such name or version.
    """
    name, version = parse_name(reference)
    files = read_once(files, name)
    # A listing shows versions whose data is gone, too.
    record = read.read_version(files, name, version, skip_gone=False)
    return read_one(files, name, record.number)


def with_version_before(files: Any, entry: Entry) -> list[Entry]:
    """A version, preceded by the version registered before it. It comes alone if that one cannot be read."""
    earlier = [number for number in listing.versions(files, entry.name) if number < entry.number]
    if not earlier:
        return [entry]
    try:
        return [read_one(files, entry.name, max(earlier)), entry]
    except (manifest_names.StoreError, IndexError):
        return [entry]


def parse_name(reference: str) -> tuple[str, str]:
    """Name and version of a reference; the version is `latest` where the reference has none."""
    name, colon, version = reference.removeprefix("art://").rpartition(":")
    return (name, version or "latest") if colon else (version, "latest")


def print_json(schema: str, value: Mapping[str, Any]) -> None:
    """Write a JSON document with the name of its schema to stdout."""
    click.echo(json.dumps({"schema": schema, **value}, indent=1, default=str))
