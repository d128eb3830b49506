"""`--dry-run`: do everything except exec, and print the plan to stdout."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.resolution.masking import mask_yaml
from nemotron_exec.resolution.on_checkpoint import describe
from nemotron_exec.schemas import DRY_RUN
from nemotron_exec.sitecustomize.payload import handoff
from nemotron_exec.sitecustomize.payload.notice import is_secret_variable, redact, redact_command, redact_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.resolution.resolution import Resolution, ResolvedConfig

__all__ = ["Plan", "report"]


@dataclass(frozen=True)
class Plan:
    """The plan of a start.

    Attributes:
        place: The place of this launcher.
        identity: The job to which the answer belongs.
        resolution: The answer.
        words: The command that would be exec'ed.
        before: The launcher's environment.
        after: The job's environment.
    """

    place: Place
    identity: JobIdentity
    resolution: Resolution
    words: Sequence[str]
    before: Mapping[str, str]
    after: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str | None]:
        """The variables that the launcher changes; None for a removed variable. Secrets are not shown."""
        names = sorted({*self.before, *self.after})
        return {
            name: _shown(name, self.after.get(name)) for name in names if self.before.get(name) != self.after.get(name)
        }


def report(plan: Plan, *, as_json: bool) -> int:
    """Print the plan. Return the exit code, 0."""
    if as_json:
        json.dump(_document(plan), sys.stdout, indent=2, ensure_ascii=False, default=str)
        sys.stdout.write("\n")
        return 0
    from rich.console import Console

    # Do not break long paths: a user may copy them. The terminal may wrap the lines.
    _print(plan, Console(highlight=False, soft_wrap=True))
    return 0


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "schema": DRY_RUN,
        "place": {**vars(plan.place)},
        "job": {"id": plan.identity.id, "source": plan.identity.source},
        **plan.resolution.to_json(),
        "diff": {config.original: "".join(_diff(config)) for config in plan.resolution.configs},
        "environment": plan.variables,
        "command": redact_command(plan.words),
    }


def _print(plan: Plan, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    state = os.path.dirname(plan.resolution.handoff) if plan.resolution.handoff else ""

    def section(title: str) -> None:
        console.print(Text(f"\n{title}", style="bold"))

    def short(text: str) -> str:
        return text.replace(state + os.sep, "$STATE/") if state else text

    section("Place")
    console.print(Text(f"  {plan.place}, job {plan.identity.id} ({plan.identity.source})"))
    if state:
        console.print(Text(f"  STATE={state}"))
    section("Artifacts")
    if plan.resolution.artifacts:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("  key", "reference", "version", "type", "path"):
            table.add_column(column, overflow="fold")
        for item in plan.resolution.artifacts:
            table.add_row(
                *(Text(cell) for cell in ("  " + item.key, item.reference, item.version, item.type, item.path))
            )
        console.print(table, soft_wrap=False)
    else:
        reason = "" if plan.resolution.configs else ": no config of the command names one, and no option does"
        console.print(Text(f"  none{reason}"))
    if plan.resolution.on_checkpoint:
        section("When a checkpoint is complete")
        for hook in plan.resolution.on_checkpoint:
            console.print(Text(f"  {redact_text(describe(hook))}"))
    for config in plan.resolution.configs:
        section(f"Config {config.original}")
        for line in _diff(config):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
            console.print(Text("  " + short(line.rstrip("\n")), style=style))
    section("Environment")
    for name, value in plan.variables.items():
        console.print(Text(f"  {name}={short(value)}" if value is not None else f"  {name} is removed"))
    section("Command")
    console.print(Text("  " + short(shlex.join(redact_command(plan.words)))))


def _diff(config: ResolvedConfig) -> list[str]:
    texts = []
    for path in (config.original, config.resolved):
        with open(path, encoding="utf-8", errors="replace") as file:
            texts.append(mask_yaml(file.read()).splitlines(keepends=True))
    return list(difflib.unified_diff(texts[0], texts[1], config.original, config.resolved))


def _shown(name: str, value: str | None) -> str | None:
    if value and name == handoff.VALUE:
        return f"({len(value)} bytes)"
    return "(not shown)" if value and is_secret_variable(name) else value and redact(value)
