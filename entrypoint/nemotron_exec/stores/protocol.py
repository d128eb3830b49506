"""What every store of artifacts can do."""

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


@dataclass(frozen=True)
class StoreContext:
    """What a store may need to know to be opened; each takes what concerns it.

    Attributes:
        root: Root of the manifest store, a path or an fsspec URI.
        environ: The launcher's environment.
        messages: Where the store says what the user should know.
        localise: Translates a path recorded on the host into the path of the same data here.
        project: W&B project of the config; None where it names none.
        entity: W&B entity of the config; None where it names none.
        cache_dir: `--cache-dir`; None where the store's own default counts.
        stall: Seconds without a byte after which a download is given up and tried anew.
        flush_first: Called with the references before they are looked up: sends what an outbox still holds of them.
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
