"""Tables for people: drawn by rich on a terminal, plain text with one line a row elsewhere and for long tables."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nemotron_exec.artifact_cli.inventory import Entry, Inventory

__all__ = ["plain", "print_artifacts", "print_table", "print_version", "print_versions"]


_LONG = ("PATH", "FOUND", "REMEDY", "VALUE", "SINCE IT")
_DRAWN = 500  # rows; rich needs a millisecond for each
_SPARE = ("CREATED", "ALSO", "VERSIONS", "TYPE", "ITERATION")  # left out on a narrow terminal, in this order


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table on stdout."""
    terminal = sys.stdout.isatty()
    if terminal and len(rows) <= _DRAWN:
        _draw(columns, rows)
        return
    from rich.cells import cell_len

    cells = [tuple(columns), *(tuple(plain(cell).replace("\n", " ") for cell in row) for row in rows)]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        # Wrap and cut nothing: the output may go to grep.
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table on a terminal, fitted to its width."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    every = columns
    columns, rows = _fitting(columns, rows, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # Keep names and numbers whole on a narrow terminal. Long texts share the rest of the line.
        table.add_column(column, overflow="fold", no_wrap=column not in _LONG, style="bold" if index == 0 else None)
    for row in rows:
        table.add_row(
            *(Text(plain(cell), style=_style(column, cell)) for column, cell in zip(columns, row, strict=True))
        )
    console.print(table)
    if left_out := [column for column in every if column not in columns]:
        said = f"left out at {console.width} columns: {', '.join(left_out)}; | cat shows all"
        console.print(Text(said, style="dim"))


def _style(column: str, cell: str) -> str:
    """The style of a cell: red for lost or damaged data and for errors, yellow for notes."""
    bad = {"DATA": ("gone", "damaged"), "LEVEL": ("error",)}
    return "bold red" if cell in bad.get(column, ()) else "yellow" if column == "LEVEL" else ""


def print_artifacts(inventory: Inventory) -> None:
    """Print one line an artifact: its latest version, the number of its versions, the place of its data."""
    rows = [
        (entry.name, f"v{entry.number}", str(inventory.counts[entry.name]), *_common(entry), entry.path)
        for entry in inventory.entries
    ]
    print_table(("ARTIFACT", "LATEST", "VERSIONS", "TYPE", "ITERATION", "CREATED", "ALSO", "DATA", "PATH"), rows)


def print_versions(entries: Sequence[Entry]) -> None:
    """Print one line a version."""
    rows = [(entry.qualified_name, *_common(entry, latest=True), entry.path) for entry in entries]
    print_table(("VERSION", "TYPE", "ITERATION", "CREATED", "ALSO", "DATA", "PATH"), rows)


def print_version(entry: Entry, changed: Mapping[str, Any] | None = None) -> None:
    """Print everything about one version.

    Args:
        entry: The version.
        changed: The result of `differences.changed_since` for the version.
    """
    rows: list[tuple[str, str]] = [
        ("path", entry.path),
        ("artifact", entry.qualified_name),
        ("type", entry.type),
        ("iteration", _text(entry.iteration)),
        ("created", entry.created_at),
        ("producer", _text(entry.manifest.get("producer"))),
        ("also", ", ".join(entry.aliases)),
        ("in W&B", entry.wandb or ""),
        ("made from", "\n".join((*entry.used_artifacts, *entry.inputs))),
        ("data", entry.damaged or entry.missing or ("" if "://" in entry.path else "is there")),
        ("manifest", entry.directory + "/manifest.json"),
    ]
    print_table(("FIELD", "VALUE"), [row for row in rows if row[1]])
    if changed and changed["differences"]:
        lines = [tuple(_text(one[key]) for key in ("what", "name", "a", "b")) for one in changed["differences"]]
        if changed["more"]:
            lines.append(("…", f"and {changed['more']} more", "", ""))
        print_table(("CHANGED", "NAME", changed["since"], entry.qualified_name), lines)
    if not entry.damaged:
        from nemotron_exec.artifact_cli.snippet import snippet

        print(f"\n# in a config:\n{snippet(entry)}")


def plain(text: str) -> str:
    """The text without characters that a terminal would obey or an encoding refuses. Line breaks stay."""
    # A recorded path may hold control characters, which a terminal would obey.
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", text)


def when(iso: str) -> str:
    """`2026-03-11 10:00` of an ISO 8601 time, as it was recorded."""
    return iso[:16].replace("T", " ")


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table without its least important columns, where the width has no room for all of them."""
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
