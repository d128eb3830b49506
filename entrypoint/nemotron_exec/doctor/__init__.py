"""`--doctor`: what would keep a job from working here, found out before it is started.

Each check asks the part that does the work (rank, job, state, stores, the injector itself in a real interpreter), so
that its answer is the job's.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Level, Patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    from nemotron_exec.options import Options

__all__ = ["EXIT_FAULT", "Finding", "Level", "Patient", "examine"]

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "bold red"}

EXIT_FAULT = 1
"""Exit code where at least one fault was found: as `grep` and `test` say no."""


def examine(chosen: Options, words: Sequence[str], environ: Mapping[str, str], stream: TextIO | None = None) -> int:
    """Check this machine or container for the command, and print what was found.

    Args:
        chosen: Options of nemotron-exec.
        words: The command that would be started; may be empty.
        environ: The environment that it would be started in.
        stream: Where the report goes; stdout if None.

    Returns:
        0 if the job would work, else EXIT_FAULT.
    """
    from nemotron_exec.sitecustomize.payload.notice import redact

    out = stream or sys.stdout
    say = _printer(out)
    patient = Patient(chosen, tuple(words), environ)
    faults = 0
    for finding in findings(patient):
        faults += finding.level is Level.FAULT
        if chosen.log_format == "json":
            print(redact(_as_json(finding)), file=out, flush=True)
        else:
            say(redact(str(finding)), _STYLES[finding.level])
    if chosen.log_format != "json":
        verdict = "the job would work" if not faults else f"{faults} fault{'s' * (faults > 1)}: the job would not work"
        say(f"\n{verdict}", "bold red" if faults else "bold green")
    return EXIT_FAULT if faults else 0


def findings(patient: Patient) -> Iterator[Finding]:
    """All checks, the quick ones first."""
    from nemotron_exec.doctor import command_line, directories, interpreters, mounts, place, server

    for check in (command_line.check, place.check, interpreters.check, mounts.check, directories.check, server.check):
        try:
            yield from check(patient)
        except Exception as error:  # noqa: BLE001  # the other checks are still worth having
            name = check.__module__.rpartition(".")[2].replace("_", " ")
            yield Finding(Level.FAULT, name, f"the check itself failed: {type(error).__name__}: {error}", "Report it")


def _printer(out: TextIO) -> Callable[[str, str], None]:
    """Prints a text in a style where the stream is a terminal, and as it is elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, highlight=False, soft_wrap=True)

    def say(text: str, style: str) -> None:
        line = Text(text)
        # The first word says how bad it is, and the verdict is all of it.
        line.stylize(style, 0, None if text.startswith("\n") else text.index(" "))
        console.print(line)
        out.flush()

    return say


def _as_json(finding: Finding) -> str:
    return json.dumps(
        {"level": finding.level.value, "subject": finding.subject, "found": finding.found, "remedy": finding.remedy}
    )
