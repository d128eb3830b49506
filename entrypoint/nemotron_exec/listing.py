"""Tables for people: on a terminal with rich, elsewhere the same columns as plain text, one line a row."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nemotron_exec.inventory import Entry

__all__ = ["plain", "print_artifacts", "print_table", "print_version", "print_versions"]


_LONG = ("PATH", "FOUND", "REMEDY", "VALUE", "IS", "SINCE IT")
_SPARE = ("CREATED", "ALSO", "VERSIONS", "TYPE", "ITERATION")  # the first goes first


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    # Without a terminal nothing is wrapped or cut: the reader may be grep.
    console = Console(width=None if terminal else 100_000, color_system="auto" if terminal else None)
    if terminal:
        columns, rows = _fitting(columns, rows, console.width)
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for index, column in enumerate(columns):
        style = "bold" if index == 0 and terminal else None
        # Names and numbers stay whole on a narrow terminal; long texts take what is left.
        table.add_column(column, overflow="fold", no_wrap=not (terminal and column in _LONG), style=style)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    print(*(line.rstrip() for line in capture.get().splitlines()), sep="\n")


def print_artifacts(by_name: dict[str, list[Entry]]) -> None:
    """One line an artifact: what `latest` means, how many versions, where its data is."""
    rows = []
    for name, entries in by_name.items():
        shown = next((entry for entry in entries if "latest" in entry.aliases), entries[-1])
        rows.append((name, f"v{shown.number}", str(len(entries)), *_common(shown), shown.path))
    print_table(("ARTIFACT", "LATEST", "VERSIONS", "TYPE", "ITERATION", "CREATED", "ALSO", "DATA", "PATH"), rows)


def print_versions(entries: Sequence[Entry]) -> None:
    """One line a version."""
    rows = [(entry.qualified_name, *_common(entry, latest=True), entry.path) for entry in entries]
    print_table(("VERSION", "TYPE", "ITERATION", "CREATED", "ALSO", "DATA", "PATH"), rows)


def print_version(entry: Entry) -> None:
    """Everything about one version."""
    key = entry.name.rsplit("/", 1)[-1]
    rows: list[tuple[str, str]] = [
        ("artifact", entry.qualified_name),
        ("type", entry.type),
        ("path", entry.path),
        ("iteration", _text(entry.iteration)),
        ("created", entry.created_at),
        ("producer", _text(entry.manifest.get("producer"))),
        ("also", ", ".join(entry.aliases)),
        ("made from", "\n".join((*entry.used_artifacts, *entry.inputs))),
        ("data", entry.damaged or entry.missing or ("" if "://" in entry.path else "is there")),
        ("manifest", entry.directory + "/manifest.json"),
    ]
    print_table(("FIELD", "VALUE"), [row for row in rows if row[1]])
    fields = {**_table(entry.manifest.get("metadata")), **_table(entry.fields.get("metadata")), **entry.fields}
    own = {"path", "type", "created_at", "iteration", "metadata", "name", "version"}
    rest = [(f"${{art:{key},{name}}}", _text(value)) for name, value in sorted(fields.items()) if name not in own]
    if rest:
        print_table(("IN A CONFIG", "IS"), rest)


def plain(text: str) -> str:
    """The text as any terminal and any encoding take it, on one line or several."""
    # A recorded path may hold anything; a terminal must not obey it.
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", text)


def when(iso: str) -> str:
    """`2026-03-11 10:00` of an ISO 8601 time, as it was recorded."""
    return iso[:16].replace("T", " ")


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Without the columns that matter least, as far as the rest has no room."""
    for name in _SPARE:
        widths = [max([len(column), *(len(row[i]) for row in rows)]) for i, column in enumerate(columns)]
        need = sum(20 if column in _LONG else wide for column, wide in zip(columns, widths, strict=True))
        if need + 3 * len(columns) <= width or name not in columns:
            continue
        out = columns.index(name)
        columns = [*columns[:out], *columns[out + 1 :]]
        rows = [[*row[:out], *row[out + 1 :]] for row in rows]
    return columns, rows


def _common(entry: Entry, *, latest: bool = False) -> tuple[str, str, str, str, str]:
    aliases = ", ".join(alias for alias in entry.aliases if latest or alias != "latest")
    data = "damaged" if entry.damaged else "gone" if entry.missing else "" if "://" in entry.path else "ok"
    return entry.type, _text(entry.iteration), when(entry.created_at), aliases, data


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, dict, list)):
        import json

        return json.dumps(value, default=str)
    return str(value)
