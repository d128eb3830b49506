"""Finds names in W&B that are similar to an unknown name."""

from __future__ import annotations

import difflib
import itertools
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError
from nemotron_exec.stores.wandb.faults import first_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nemotron_exec.stores.wandb.connection import Connection

__all__ = ["REGISTRY", "explain_unknown"]

_LISTED = 200  # names that are fetched to find similar ones

REGISTRY = "wandb-registry-"


def some_of(things: Iterable[Any]) -> Iterable[Any]:
    """The first things of a list, which may be endless."""
    return itertools.islice(iter(things), _LISTED)


def names_of(things: Iterable[Any]) -> list[str]:
    """The names of the first things of a list."""
    return [str(thing.name) for thing in some_of(things)]


def nearest_names(name: str, known: list[str]) -> str:
    """The remedy: names to write instead."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)[:8]
    if not near:
        return "Check the name, and that the key has access"
    more = len(known) - len(near)
    return f"Nearest that exist: {', '.join(near)}" + (f" ({more} more)" if more > 0 else "")


def explain_unknown(connection: Connection, path: str, wanted: str, error: Exception) -> LaunchError:
    """The error for an unknown path: the part that does not exist, and similar names."""
    api = connection.api
    location, _, alias = path.rpartition(":")
    parts = location.split("/")
    try:
        if len(parts) != 3 or parts[1].startswith(REGISTRY):
            return LaunchError(wanted, first_line(error), "Check the names of registry, collection and alias")
        entity, project, name = parts
        projects = names_of(api.projects(entity))
        if project not in projects:
            if not projects:
                near = nearest_names(entity, _entities(connection, wanted))
                return LaunchError(wanted, f"W&B shows this key no project of the entity {entity!r}", near)
            return LaunchError(wanted, f"{entity} has no project {project!r}", nearest_names(project, projects))
        types = api.artifact_types(f"{entity}/{project}")
        kinds = {c.name: t.name for t in types for c in some_of(t.collections())}
        if name not in kinds:
            found = f"the project {entity}/{project} has no artifact {name!r}"
            return LaunchError(wanted, found, nearest_names(name, list(kinds)))
        versions = list(some_of(api.artifacts(kinds[name], location)))
        aliases = {a: None for v in versions for a in (*v.aliases, v.version)}
        found = f"{location} has no version or alias {alias!r}"
        return LaunchError(wanted, found, nearest_names(alias, [str(a) for a in aliases]))
    except Exception as second:  # noqa: BLE001
        if isinstance(second, LaunchError):
            return second
        return LaunchError(wanted, first_line(error), "Check entity, project, name and version")


def _entities(connection: Connection, wanted: str) -> list[str]:
    """The entities of the key: its default entity, its user, its teams."""
    connection.server.check(wanted, 5.0)
    viewer = connection.server.viewer
    edges = (viewer.get("teams") or {}).get("edges") or []
    names = [viewer.get("entity"), viewer.get("username"), *(edge["node"]["name"] for edge in edges)]
    return list(dict.fromkeys(str(name) for name in names if name))
