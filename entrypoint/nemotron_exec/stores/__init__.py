"""Stores of artifacts: where a reference becomes a pinned version with a path.

Adding a third is one file beside these and one line in `open_store`.
"""

from __future__ import annotations

from nemotron_exec.errors import UsageError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from nemotron_exec.artifact import Artifact
    from nemotron_exec.message import Messages
    from nemotron_exec.reference import Reference
else:
    Protocol = object

__all__ = ["ArtifactStore", "Progress", "open_store"]


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


def open_store(
    backend: str,
    *,
    root: str,
    messages: Messages | None = None,
    localise: Callable[[str], str] | None = None,
    wandb: Mapping[str, Any] | None = None,
) -> ArtifactStore:
    """The store of a backend.

    Args:
        backend: "manifest" or "wandb", decided.
        root: Root of the manifest store, a path or an fsspec URI.
        messages: Where the store says what the user should know.
        localise: Translates a path as it was recorded on the host into the one that it has here; by the mount table
            if None.
        wandb: What only W&B needs: the keyword arguments `project`, `entity`, `cache_directory`, `environ` and, where
            there is an outbox, `flush_first` of WandbStore.
    """
    if localise is None:
        from nemotron_exec.sitecustomize.payload.mountinfo import localise
    if backend == "manifest":
        from nemotron_exec.stores.manifest import ManifestStore

        return ManifestStore(root, messages, localise=localise)
    if backend == "wandb":
        from nemotron_exec.stores.wandb import WandbStore

        return WandbStore(messages=messages, localise=localise, **(wandb or {}))
    raise UsageError("to open a store", f"the backend {backend!r}", "Use --backend wandb or manifest")
