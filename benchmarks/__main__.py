"""`make bench`: run every group, print one table, write it to results.json and README.md, fail if a bar is missed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from benchmarks.row import Row, parse

# Each group is a file of this directory. A group without a file is skipped.
GROUPS = (
    "interpreter",
    "launcher",
    "resolving",
    "peers",
    "checkpoint",
    "checkpoint_files",
    "rendezvous",
    "node",
    "stores",
    "download",
    "wandb_download",
    "hub_ranks",
    "containers",
)
HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results.json")
README = os.path.join(HERE, "README.md")
# A run of all groups rewrites the page between these marks.
BEGIN, END = "<!-- table: written by make bench -->\n", "<!-- end of the table -->\n"


def main() -> None:
    """Run the groups named in argv, or all of them."""
    groups = sys.argv[1:] or [group for group in GROUPS if find_spec(f"benchmarks.{group}")]
    report: list[tuple[str, Row]] = []
    seconds: dict[str, float] = {}
    for group in groups:
        started = time.monotonic()
        report += [(group, row) for row in run_group(group)]
        seconds[group] = round(time.monotonic() - started, 1)
        sys.stderr.write(f"{group}: {seconds[group]} s\n")
    print_table(report)
    if groups == [group for group in GROUPS if group in groups] and not sys.argv[1:]:
        write_results(report, seconds)
        write_readme(report, seconds)
    missed = [f"{group}: {row.name}" for group, row in report if row.met is False]
    if missed:
        sys.exit("missed: " + "; ".join(missed))


def run_group(group: str) -> list[Row]:
    """The rows that `python -m benchmarks.GROUP` prints; a group that fails is a row with a missed bar."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{group}"], stdout=subprocess.PIPE, text=True, check=False)
    rows = [parse(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        rows.append(Row(f"the group itself: exit {done.returncode}", "", 0, bar="runs to its end", met=False))
    return rows


def print_table(report: list[tuple[str, Row]]) -> None:
    """Print one table to stdout, as wide as it needs to be."""
    table = Table(title="nemotron-exec", title_justify="left")
    for column in ("what", "ours", "baseline", "added (95 %)", "ratio", "bar", "verdict"):
        table.add_column(column, justify="left" if column in ("what", "bar", "verdict") else "right")
    last = ""
    for group, row in report:
        if group != last:
            table.add_section()
            table.add_row(f"[bold]{group}")
            last = group
        colour = {"ok": "[green]ok", "MISSED": "[red]MISSED"}
        table.add_row(*cells(row)[:-1], colour.get(row.verdict, ""))
    Console(width=None if sys.stdout.isatty() else 170).print(table)


def write_results(report: list[tuple[str, Row]], seconds: dict[str, float]) -> None:
    """Write all rows to results.json, with the machine and the time."""
    results = {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": seconds,
        "rows": [{"group": group, **asdict(row), "ratio": row.ratio, "verdict": row.verdict} for group, row in report],
    }
    with open(RESULTS, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table, as text."""
    interval = f" ({row.interval[0]:+.3g} … {row.interval[1]:+.3g})" if row.interval else ""
    return (
        row.name,
        f"{row.ours:.4g} {row.unit}".strip(),
        "" if row.baseline is None else f"{row.baseline:.4g} {row.unit}".strip(),
        "" if row.added is None else f"{row.added:+.3g}{interval}",
        "" if row.ratio is None else f"{row.ratio:.3g}",
        row.bar,
        row.verdict,
    )


def write_readme(report: list[tuple[str, Row]], seconds: dict[str, float]) -> None:
    """Write the same table into the page, with the machine and the time."""
    on = machine()
    measured_on = (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {on['system']}, {on['processors']} processors, Python {on['python']}, "
        f"all groups in one run of {sum(seconds.values()) / 60:.1f} minutes, load {on['load']} at its end. "
        "Milliseconds belong to that machine; ratios travel better."
    )
    lines = [
        measured_on,
        "",
        "| what | ours | baseline | added (95 %) | ratio | bar | verdict |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    last = ""
    for group, row in report:
        if group != last:
            lines.append(f"| **{group}** | | | | | | |")
            last = group
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |")
    with open(README, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    after = rest.partition(END)[2]
    with open(README, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + "\n".join(lines) + "\n" + END + after)


def machine() -> dict[str, object]:
    """The machine to which the figures belong."""
    return {
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
