"""The interface of every store of artifacts."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
else:
    Protocol = object

__all__ = ["ArtifactStore", "Progress", "StoreContext"]


class Progress(Protocol):
    """A store reports its work to it, so that people and waiting nodes can see it."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Report that `done` of `total` bytes of `what` (an artifact) have arrived."""


class ArtifactStore(Protocol):
    """The interface of every store."""

    def resolve(self, references: Sequence[Reference], *, progress: Progress, timeout: float) -> list[Artifact]:
        """Pin every reference to a version whose `path` exists here, in the order given.

        Args:
            references: All references of the job; a store may work on several at the same time.
            progress: Called whenever there is something to report.
            timeout: Seconds for the whole call.

        Raises:
            LaunchError: A reference can never be resolved (unknown name, bad key).
            TemporaryError: A reference may be resolved later (server down, disk full, time-out).
        """


@dataclass(frozen=True)
class StoreContext:
    """The values that a store may need to be opened. Each store takes those that it uses.

    Attributes:
        root: Root of the manifest store, a path or an fsspec URI.
        environ: The launcher's environment.
        messages: For messages of the store to the user.
        localise: Translates a path recorded on the host into the path of the same data here.
        project: W&B project of the config; None where it names none.
        entity: W&B entity of the config; None where it names none.
        cache_dir: The value of `--cache-dir`; None for the default of the store.
        stall: Seconds without a byte after which a download is restarted.
        flush_first: Called with the references before they are looked up. It sends the outbox entries of their
            artifacts.
    """

    root: str
    environ: Mapping[str, str]
    messages: Messages | None = None
    localise: Callable[[str], str] | None = None
    project: str | None = None
    entity: str | None = None
    cache_dir: str | None = None
    stall: float = 30.0
    flush_first: Callable[[Sequence[Reference]], None] | None = None
