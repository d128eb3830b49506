"""The field table of `${art:NAME,FIELD}`, over an artifact as the hand-off carries it."""

from __future__ import annotations

__all__ = ["INFO", "look_up", "names"]

INFO = ("path", "version", "name", "type", "iteration", "qualified_name")


def look_up(artifact, name):
    """The value of a field, in the type it was recorded with.

    Order of look-up (design.md, Artifacts): the artifact itself, metadata.json, the `metadata` inside it, the metadata
    of the store. `metadata.X` looks only in the last three.

    Raises:
        KeyError: There is no field of that name.
    """
    if name in INFO and artifact.get(name) is not None:
        return artifact[name]
    inner = name[len("metadata.") :] if name.startswith("metadata.") else name
    for table in _tables(artifact):
        if inner in table:
            return table[inner]
    raise KeyError(name)


def names(artifact):
    """Every field that `look_up` answers, sorted."""
    own = {name for name in INFO if artifact.get(name) is not None}
    return sorted(own.union(*(map(str, table) for table in _tables(artifact))))


def _tables(artifact):
    fields = artifact.get("fields") or {}
    nested = fields.get("metadata")
    return fields, nested if isinstance(nested, dict) else {}, artifact.get("metadata") or {}
