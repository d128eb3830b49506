"""The stores of artifacts, one row each. The options, the choice of a store and its opening read this table."""

from __future__ import annotations

from nemotron_exec.frozen import dataclass

__all__ = ["BACKENDS", "Backend", "backend_named"]


@dataclass(frozen=True)
class Backend:
    """A store of artifacts.

    Attributes:
        name: Name of the store in `--backend`, the hand-off and `Artifact.store`.
        module: The module with its `open_store(context: StoreContext) -> ArtifactStore`, imported when it is needed.
        title: Name of the store in messages; "" where they show the root of the store instead.
        option: Whether `--backend` takes the name. Other stores are named by the scheme of a reference.
    """

    name: str
    module: str
    title: str = ""
    option: bool = True


BACKENDS = (
    Backend("wandb", "nemotron_exec.stores.wandb.store", "W&B"),
    Backend("manifest", "nemotron_exec.stores.manifest"),
    Backend("huggingface", "nemotron_exec.stores.huggingface.store", "the Hugging Face hub", option=False),
)


def backend_named(name: str) -> Backend:
    """The row of a store.

    Raises:
        KeyError: No store has that name.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise KeyError(name)
