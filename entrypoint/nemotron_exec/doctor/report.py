"""The report of `--doctor` for people: by group, faults first, details under `-v`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nemotron_exec import terminal
from nemotron_exec.doctor.finding import GROUPS, Level
from nemotron_exec.sitecustomize.payload.notice import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from nemotron_exec.doctor.finding import Finding

__all__ = ["print_report"]

_STYLES = {Level.OK: "ok", Level.WARNING: "warning", Level.FAULT: "error", Level.ABSENT: "dim"}
_ORDER = (Level.FAULT, Level.WARNING, Level.OK, Level.ABSENT)
_SUBJECT = 11  # columns between the level and the text of each line
_TEXT = 2 + 8 + 1 + _SUBJECT


def print_report(findings: Sequence[Finding], out: TextIO, *, verbose: bool) -> None:
    """Write all groups, those with faults first, and the verdict.

    Args:
        findings: The findings of all checks.
        out: Where the report is written.
        verbose: Whether details are shown; if not, one line gives their number.
    """
    colour = terminal.has_colour(out, os.environ)
    width = terminal.width_of(out) if terminal.is_terminal(out) else 0
    shown = [one for one in findings if verbose or not one.detail]
    for group in sorted(GROUPS, key=lambda group: _worst(shown, group)):
        lines = [line for one in _sorted(shown, group) for line in _lines(one, width, colour=colour)]
        if lines:
            out.write("\n".join([_style(group, "title", colour=colour), *lines, "", ""]))
    if hidden := len(findings) - len(shown):
        said = f"{hidden} more {'check is' if hidden == 1 else 'checks are'} well; -v shows all"
        out.write(_style(said, "dim", colour=colour) + "\n")
    faults = sum(one.level is Level.FAULT for one in findings)
    verdict = f"{faults} fault{'s' * (faults > 1)}: the job would not work" if faults else "the job would work"
    out.write(_style(verdict, "error" if faults else "ok", colour=colour) + "\n")
    out.flush()


def _sorted(findings: Sequence[Finding], group: str) -> list[Finding]:
    return sorted((one for one in findings if one.group == group), key=lambda one: _ORDER.index(one.level))


def _worst(findings: Sequence[Finding], group: str) -> int:
    """Sort key of a group: 0 for a group with a fault, 1 for one with a warning, 2 for the others."""
    return min([2, *(_ORDER.index(one.level) for one in findings if one.group == group)])


def _lines(finding: Finding, width: int, *, colour: bool) -> Iterator[str]:
    """The line of a finding, and its remedy in the lines below."""
    head = f"  {finding.level.value:<8} {finding.subject:<{_SUBJECT}}"
    texts = [finding.found, *([finding.remedy.rstrip(".") + "."] if finding.remedy else [])]
    for index, text in enumerate(texts):
        line = (head if index == 0 else " " * _TEXT) + redact(text)
        line = terminal.wrapped(line, width, " " * _TEXT) if width else line
        if index == 0 and finding.level is not Level.ABSENT:
            word = finding.level.value
            yield line.replace(word, _style(word, _STYLES[finding.level], colour=colour), 1)
        else:
            yield _style(line, "dim", colour=colour) if finding.level is Level.ABSENT else line


def _style(text: str, style: str, *, colour: bool) -> str:
    return terminal.coloured(text, style) if colour else text
