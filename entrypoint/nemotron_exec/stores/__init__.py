"""Stores of artifacts: where a reference becomes a pinned version with a path.

Adding a third is one file beside these and one line in `open_store`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nemotron_exec.artifact import Artifact
    from nemotron_exec.reference import Reference

__all__ = ["ArtifactStore", "Progress"]


class Progress(Protocol):
    """Told by a store what it is doing, so that people and waiting nodes can see it."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Report that `done` of `total` bytes of `what` (an artifact) are here."""


class ArtifactStore(Protocol):
    """What every store can do."""

    def resolve(self, references: Sequence[Reference], *, progress: Progress, timeout: float) -> list[Artifact]:
        """Pin every reference to a version whose `path` exists here, in the order given.

        Args:
            references: All that the job names; a store may work on several at once.
            progress: Called as often as there is something to say.
            timeout: Bound on the whole call, seconds.

        Raises:
            LaunchError: A reference can never be resolved (unknown name, bad key).
            TemporaryError: It may be later (server down, disk full, time-out).
        """
        ...
