"""`--status`: the known facts of a job, from the state directory, the outbox and the notes of its processes."""

from nemotron_exec.status.show import report

__all__ = ["report"]
