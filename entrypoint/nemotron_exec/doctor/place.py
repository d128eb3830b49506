"""Checks rank, number of nodes and job identity, and names their sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.doctor.finding import Patient
    from nemotron_exec.place.job import JobIdentity

__all__ = ["check", "identity_of"]


def check(patient: Patient) -> Iterator[Finding]:
    """The findings about the place of this launcher, and about its job."""
    place = patient.place
    yield Finding(Level.OK, "place", str(place))
    for contradiction in place.contradictions:
        yield Finding(Level.WARNING, "place", contradiction, "Unset the variable that is wrong")
    identity = identity_of(patient)
    if place.several_nodes and place.nodes is not None and not identity.shared:
        yield Finding(
            Level.FAULT,
            "job",
            f"{identity.id} ({identity.source}), which the other nodes do not have in common with this one",
            "Give all nodes the same --job-id ID or NEMOTRON_EXEC_JOB_ID",
        )
    else:
        yield Finding(Level.OK, "job", f"{identity.id} ({identity.source})")


def identity_of(patient: Patient) -> JobIdentity:
    """The identity of the job to which the launcher belongs."""
    from nemotron_exec.place import job, nemo_run

    return job.identify(
        patient.environ,
        patient.command,
        patient.place,
        explicit=patient.chosen.job_id,
        nemo_run=nemo_run.nemo_run_target(),
        process=job.ProcessIdentity.current(),
    )
