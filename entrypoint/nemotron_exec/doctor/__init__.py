"""`--doctor`: what would keep a job from working here, found out before it is started.

Each check asks the part that does the work (rank, job, state, stores, the injector itself in a real interpreter), so
that its answer is the job's.
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
    patient = Patient(chosen, tuple(words), environ)
    found = []
    waiting = chosen.log_format != "json" and is_terminal(out)
    if waiting:  # it starts every Python that it finds, which takes seconds
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
    """All checks, the quick ones first."""
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
        except Exception as error:  # noqa: BLE001  # the other checks are still worth having
            name = check.__module__.rpartition(".")[2].replace("_", " ")
            yield Finding(Level.FAULT, name, f"the check itself failed: {type(error).__name__}: {error}", "Report it")
