"""Finds the existing place of a W&B artifact's data: by its manifest, its recorded path, its file references."""

from __future__ import annotations

import itertools
import os
import posixpath
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.wandb.faults import first_line, not_here
from nemotron_exec.stores.wandb.server import client_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.stores.wandb.connection import Connection

__all__ = ["list_entries", "local_path", "page_of", "recorded_path", "referenced_path"]


def page_of(app_url: str, qualified: str, kind: str) -> str:
    """The address of a version's page. It is composed here, because the client would ask the server three times."""
    location, _, version = qualified.rpartition(":")
    entity, project, name = location.split("/")
    return f"{app_url}/{entity}/{project}/artifacts/{quote(kind)}/{name}/{version}"


def list_entries(connection: Connection, artifact: Any, wanted: str, deadline: float) -> dict[str, Any]:
    """The manifest's entries by path."""
    for attempt in itertools.count():
        try:
            with client_requests(connection.server.transport):
                entries = {str(name): entry for name, entry in artifact.manifest.entries.items()}
            break
        except Exception as error:  # noqa: BLE001
            connection.raise_for(error, wanted)
            pause = 0.5 * 2.0**attempt
            connection.tell(first_line(error))
            if attempt == 3 or time.monotonic() + pause > deadline:
                found = f"its manifest cannot be read ({first_line(error)})"
                raise TemporaryError(wanted, found, "Start the job again") from None
            time.sleep(pause)
    for name in entries:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
            found = f"it holds a file named {name!r}, which would leave its directory"
            raise LaunchError(wanted, found, "Log the artifact anew")
    return entries


def recorded_path(metadata: Mapping[str, Any], wanted: str, localise: Callable[[str], str]) -> str | None:
    """The path in the metadata, if it exists here or is a URI; else None."""
    recorded = metadata.get("absolute_path")
    if not isinstance(recorded, str) or not recorded:
        return None
    if "://" in recorded:
        return recorded
    path = localise(recorded)
    if not os.path.exists(path):
        return None
    checkpoint = metadata.get("checkpoint_path")
    if isinstance(checkpoint, str) and checkpoint and not os.path.exists(localise(checkpoint)):
        found = f"its data, {checkpoint}, is gone"
        raise LaunchError(wanted, found, "Name another version, or restore that directory")
    return path


def referenced_path(references: Mapping[str, str], wanted: str, localise: Callable[[str], str]) -> str:
    """The directory of an artifact that consists of `file://` references which exist here."""
    here = {name: localise(path) for name, path in references.items()}
    for name, path in here.items():
        if not os.path.exists(path):
            raise not_here(wanted, references[name])
    if len(here) == 1 and os.path.isdir(only := next(iter(here.values()))):
        return only
    roots = {p[: -len(n) - 1] for n, p in here.items() if p.endswith("/" + n)}
    if len(roots) == 1 and all(p.endswith("/" + n) for n, p in here.items()):
        return roots.pop() or "/"
    if len(here) == 1:
        return posixpath.dirname(next(iter(here.values())))
    return posixpath.commonpath(here.values())


def local_path(uri: str) -> str:
    """The path of a `file://` reference. Like wandb it unquotes nothing."""
    url = urlsplit(uri)
    return f"{url.netloc}{url.path}"
