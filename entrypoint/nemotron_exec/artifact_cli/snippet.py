"""The lines of a config that use a version, as YAML to be pasted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nemotron_exec.config.references import NO_REFERENCES
from nemotron_exec.document.literal import UnwritableError, yaml_literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nemotron_exec.artifact_cli.inventory import Entry

__all__ = ["snippet"]

_SKIPPED = frozenset({"path", "type", "created_at", "metadata", "name", "version", "run_record", "job"})
_MOST = 60  # characters of a field's value that its comment shows


def snippet(entry: Entry) -> str:
    """`run:` with the version, then a line for each field with its value in a comment; `path` comes first."""
    key = _key(entry.name)
    fields = {**_table(entry.manifest.get("metadata")), **_table(entry.fields.get("metadata")), **entry.fields}
    named = [("path", entry.path), *((str(name), fields[name]) for name in sorted(fields, key=str))]
    lines = [
        (f"  {name}: ${{art:{key},{name}}}", value)
        for index, (name, value) in enumerate(named)
        if (index == 0 or name not in _SKIPPED) and _is_plain(name) and not isinstance(value, (dict, list))
    ]
    width = max(len(line) for line, _ in lines)
    shown = [f"{line:<{width}}  # {_text(value)}".rstrip(" #") for line, value in lines]
    return "\n".join(["run:", f"  {key}: {_reference(entry)}", "", f"{key}:", *shown])


def _key(name: str) -> str:
    """A key for `run` from the name of the artifact: letters, digits, `_` and `-`, and no word that YAML converts."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", name.rsplit("/", 1)[-1])
    return key if _is_plain(key) and key not in (*NO_REFERENCES, "run") else f"artifact_{key}"


def _is_plain(name: str) -> bool:
    """Whether YAML and OmegaConf read the word as text, not as a number or null."""
    return bool(re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII)) and yaml_literal(name) == name


def _reference(entry: Entry) -> str:
    try:
        return yaml_literal(entry.qualified_name)
    except UnwritableError:
        return entry.qualified_name


def _text(value: Any) -> str:
    from nemotron_exec.artifact_cli.listing import plain

    text = plain("" if value is None else str(value)).replace("\n", " ")
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
