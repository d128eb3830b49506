"""`--doctor`: finds before the start what would keep a job from working here.

Each check asks the code that does the work: rank, job, state, stores, the injector in a real interpreter. So it gives
the same answer as the start of the job.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Level, Patient
from nemotron_exec.schemas import DOCTOR
from nemotron_exec.terminal import is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from nemotron_exec.options import Options

__all__ = ["EXIT_FAULT", "Finding", "Level", "Patient", "examine"]

EXIT_FAULT = 1
"""Exit code for at least one fault, like the no of `grep` and `test`."""


def examine(chosen: Options, words: Sequence[str], environ: Mapping[str, str], stream: TextIO | None = None) -> int:
    """Check this machine or container for the command, and print the findings.

    Args:
        chosen: Options of nemotron-exec.
        words: The command to be checked; may be empty.
        environ: The environment of the command.
        stream: Where the report is written; stdout if None.

    Returns:
        0 if the job would work, else EXIT_FAULT.
    """
    from nemotron_exec.sitecustomize.payload.notice import redact

    out = stream or sys.stdout
    patient = Patient(chosen, tuple(words), environ)
    found = []
    waiting = chosen.log_format != "json" and is_terminal(out)
    if waiting:  # the checks start every Python that they find, which takes seconds
        out.write("looking …")
        out.flush()
    for finding in findings(patient):
        found.append(finding)
        if chosen.log_format == "json":
            print(redact(json.dumps({"schema": DOCTOR, **finding.to_json()})), file=out, flush=True)
    if waiting:
        out.write("\r\033[K")
    if chosen.log_format != "json":
        from nemotron_exec.doctor.report import print_report

        print_report(found, out, verbose=chosen.verbose)
    return EXIT_FAULT if any(one.level is Level.FAULT for one in found) else 0


def findings(patient: Patient) -> Iterator[Finding]:
    """The findings of all checks, the quick checks first."""
    from nemotron_exec.doctor import command_line, config, directories, interpreters, mounts, place, server

    for check in (
        command_line.check,
        place.check,
        interpreters.check,
        mounts.check,
        directories.check,
        server.check,
        config.check,
    ):
        try:
            yield from check(patient)
        except Exception as error:  # noqa: BLE001  # go on with the other checks
            name = check.__module__.rpartition(".")[2].replace("_", " ")
            yield Finding(Level.FAULT, name, f"the check itself failed: {type(error).__name__}: {error}", "Report it")
