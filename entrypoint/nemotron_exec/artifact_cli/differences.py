"""`nemotron-artifact diff A B`: the differences between two versions, and between the runs that made them."""

from __future__ import annotations

import hashlib
import itertools
import shlex
from typing import TYPE_CHECKING, Any

import click

from nemotron_exec.artifact_cli.made_by import record_of
from nemotron_exec.artifact_cli.store import (
    REFERENCE,
    find_entry,
    json_option,
    messages_for,
    open_store_files,
    print_json,
    store_option,
)
from nemotron_exec.errors import LaunchError
from nemotron_exec.schemas import DIFF
from nemotron_exec.sitecustomize.payload.notice import is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nemotron_exec.artifact_cli.inventory import Entry

__all__ = ["changed_since", "diff", "differences"]

_SHOWN = 30  # differences that are shown between a version and the one before it; `diff` shows all of them
_COMPARED = 200  # pairs of versions that are compared, the newest ones

_FLAT: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "command": lambda record: shlex.join(map(str, record.get("command") or ())),
    "options": lambda record: shlex.join(map(str, record.get("options") or ())),
    "directory": lambda record: record.get("cwd"),
    "commit": lambda record: _table(record.get("code")).get("commit"),
    "changes not committed": lambda record: _changes(_table(record.get("code"))),
    "image": lambda record: record.get("image"),
    "python": lambda record: record.get("python"),
    "GPUs": lambda record: ", ".join(map(str, record.get("gpus") or ())),
}


@click.command("diff")
@click.argument("a", metavar="A", type=REFERENCE)
@click.argument("b", metavar="B", type=REFERENCE)
@json_option
@store_option
def diff(a: str, b: str, as_json: bool, store: str | None) -> None:
    """Show what differs between the versions A and B: inputs, config, command, code, packages, fields."""
    files = open_store_files(store)
    first, second = (find_entry(files, reference) for reference in (a, b))
    found = list(differences(first, second, messages_for().info))
    if as_json:
        rows = [{"what": what, "name": name, "a": one, "b": other} for what, name, one, other in found]
        print_json(DIFF, {"a": first.qualified_name, "b": second.qualified_name, "differences": rows})
    elif found:
        from nemotron_exec.artifact_cli.listing import print_table

        cells = [(what, name, _text(one), _text(other)) for what, name, one, other in found]
        print_table(("WHAT", "NAME", first.qualified_name, second.qualified_name), cells)
    else:
        messages_for().info("no recorded field differs")


def differences(a: Entry, b: Entry, doubt: Callable[[str], object]) -> Iterator[tuple[str, str, Any, Any]]:
    """The differences between two versions, as kind, name and both values; a value is None where a version has none.

    Args:
        a: A version.
        b: Another version.
        doubt: Called with a text for each thing that cannot be compared.
    """
    yield from _tables("version", _version(a), _version(b))
    yield from _tables("input", _inputs(a), _inputs(b))
    records = [_record(entry, doubt) for entry in (a, b)]
    yield from _tables("field", _fields(a), _fields(b))
    one, other = records
    if not one or not other:
        return
    yield from _tables("run", *({name: of(record) for name, of in _FLAT.items()} for record in records))
    yield from _tables("environment", _table(one.get("environment")), _table(other.get("environment")))
    yield from _tables("package", *(_packages(record) for record in records))
    yield from _tables("config", *(_configs(record, doubt) for record in records))


def changed_since(entries: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """The differences between each version and the version of the same name before it, for `show` and the lineage page.

    Args:
        entries: The versions. A version is compared only if `entries` has another of the same name before it.

    Returns:
        By qualified name: `since` (the version before), `differences` (as in `diff --json`) and `more` (how many were
        cut off).
    """
    by_name: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.number):
        if not entry.damaged:
            by_name.setdefault(entry.name, []).append(entry)
    pairs = [pair for versions in by_name.values() for pair in itertools.pairwise(versions)]
    found: dict[str, dict[str, Any]] = {}
    for before, after in sorted(pairs, key=lambda pair: pair[1].created_at)[-_COMPARED:]:
        all_of_them = list(differences(before, after, lambda _: None))
        found[after.qualified_name] = {
            "since": before.qualified_name,
            "differences": [
                {"what": what, "name": name, "a": one, "b": other} for what, name, one, other in all_of_them[:_SHOWN]
            ],
            "more": max(0, len(all_of_them) - _SHOWN),
        }
    return found


def _tables(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any]]:
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            yield what, name, a.get(name), b.get(name)


def _version(entry: Entry) -> dict[str, Any]:
    return {"type": entry.type, "path": entry.path, "iteration": entry.iteration}


def _inputs(entry: Entry) -> dict[str, Any]:
    """Version of each input by the input's name, so that two versions of one input give one line of the diff."""
    found: dict[str, str] = {}
    for used in (*entry.used_artifacts, *entry.inputs):
        mark = "@" if used.startswith("hf://") else ":"
        name, sign, version = used.removeprefix("art://").rpartition(mark)
        if not sign or "/" in version:
            name, version = used, "is there"
        found[name] = ", ".join(filter(None, (found.get(name), version)))
    return found


def _fields(entry: Entry) -> dict[str, Any]:
    skipped = {
        "path",
        "type",
        "created_at",
        "iteration",
        "step",
        "absolute_path",
        "checkpoint_path",
        "run_record",
        "job",
    }
    fields = {**_table(entry.manifest.get("metadata")), **_table(entry.fields.get("metadata"))}
    return {name: value for name, value in fields.items() if name not in skipped and not isinstance(value, dict)}


def _record(entry: Entry, doubt: Callable[[str], object]) -> dict[str, Any]:
    try:
        return record_of(entry)
    except LaunchError as error:
        doubt(f"{error.wanted}: {error.found}")
        return {}


def _changes(code: Mapping[str, Any]) -> str | None:
    if code.get("diff"):
        return hashlib.sha256(str(code["diff"]).encode()).hexdigest()[:12]
    return "yes" if code.get("dirty") else None


def _packages(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**_table(record.get("versions")), **_table(record.get("packages"))}


def _configs(record: Mapping[str, Any], doubt: Callable[[str], object]) -> dict[str, Any]:
    """Every value of the config files by its key. A file that has changed since gives only its recorded digest."""
    found: dict[str, Any] = {}
    for one in record.get("config") or ():
        kept = _content(_table(one))
        if kept is None:
            path = str(_table(one).get("original"))
            doubt(f"{path} and its resolved copy have changed or are gone since: only the digest is compared")
            found[path] = _table(one).get("resolved_sha256") or _table(one).get("original_sha256")
        else:
            found.update(_flat(kept, ""))
    return found


def _content(one: Mapping[str, Any]) -> Any:
    import yaml

    for key in ("resolved", "original"):
        try:
            with open(str(one.get(key)), "rb") as file:
                data = file.read(64 << 20)
            if hashlib.sha256(data).hexdigest() == one.get(f"{key}_sha256"):
                return yaml.safe_load(data)
        except (OSError, yaml.YAMLError, RecursionError):
            continue
    return None


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None or not value:
        yield path, "***" if isinstance(value, str) and is_secret(path, value) else value
    else:
        for name, inner in pairs:
            yield from _flat(inner, f"{path}.{name}" if path else str(name))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
