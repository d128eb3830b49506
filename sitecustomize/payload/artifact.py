"""Describes a version of an artifact for a job, in the same way for the launcher, its W&B child and the Python API.

Megatron-Bridge takes a save directory and an iteration. Older artifacts name the directory of one iteration instead,
`…/iter_0000010`; a job gets the save directory and 10 (nemo_runspec/config/resolvers.py, resolve_artifact_pre_init).
"""

from __future__ import annotations

import os

from .lazy import pattern

__all__ = ["describe", "describe_record"]

_ITERATION = pattern(r"iter_(\d+)\Z")


def describe(key, reference, store, name, version, path, qualified_name, kind=None, fields=None, metadata=None, **more):
    """The artifact as the hand-off carries it.

    Args:
        key: The key under `run:`.
        reference: What the config says.
        store: "manifest" or "wandb".
        name: Its name.
        version: `v5`.
        path: The path of the data in this job.
        qualified_name: What lineage records.
        kind: Its type: `dataset`, `model`, …; None where it has none.
        fields: Content of its metadata.json.
        metadata: The store's own metadata of it.
        more: Further items (`digest`, `source`).
    """
    fields = fields if isinstance(fields, dict) else {}
    metadata = metadata if isinstance(metadata, dict) else {}
    path, number = _save_directory(path)
    if number is None:
        recorded = metadata.get("absolute_path")
        number = _save_directory(recorded)[1] if isinstance(recorded, str) else None
    given = _first_number(fields.get("iteration"), metadata.get("iteration"))
    item = {
        "key": key,
        "reference": reference,
        "store": store,
        "name": name,
        "version": version,
        "type": kind if isinstance(kind, str) else "",
        "path": path,
        "qualified_name": qualified_name,
        "iteration": number if given is None else given,
        "fields": fields,
        "metadata": metadata,
    }
    item.update(more)
    return item


def describe_record(record, key, reference, name, localise=None):
    """`describe` for a version of the manifest store.

    Args:
        record: `manifest.Record`.
        key: See `describe`.
        reference: See `describe`.
        name: See `describe`.
        localise: Translates a recorded path into the path of the same data here.
    """
    path = record.manifest["path"]
    if path.startswith("file:"):
        path = "/" + path[len("file:") :].lstrip("/")
    if localise is not None and os.path.isabs(path):
        path = localise(path)
    version = "v%d" % record.number
    return describe(
        key,
        reference,
        "manifest",
        name,
        version,
        path,
        "%s:%s" % (name, version),
        record.manifest.get("type") or record.metadata.get("type"),
        fields=record.metadata,
        metadata=record.manifest.get("metadata"),
        source=record.directory,
    )


def _save_directory(path):
    """A path without the `iter_` directory at its end, and that iteration; the path itself and None without one."""
    directory, slash, last = path.rstrip("/").rpartition("/")
    found = _ITERATION.match(last) if slash else None
    return (directory or "/", int(found.group(1))) if found else (path, None)


def _first_number(*values):
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
    return None
