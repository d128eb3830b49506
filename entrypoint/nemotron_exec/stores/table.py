"""Opens a store of artifacts by its name."""

from __future__ import annotations

from nemotron_exec.backends import BACKENDS, backend_named
from nemotron_exec.errors import UsageError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from nemotron_exec.stores.protocol import ArtifactStore, StoreContext

__all__ = ["open_store"]


def open_store(name: str, context: StoreContext) -> ArtifactStore:
    """Open the store of a row of `BACKENDS`.

    Raises:
        UsageError: No store has that name.
        LaunchError: The store cannot be opened here.
    """
    try:
        module = backend_named(name).module
    except KeyError:
        names = " or ".join(backend.name for backend in BACKENDS if backend.option)
        raise UsageError("to open a store", f"the backend {name!r}", f"Use --backend {names}") from None
    # `importlib` would cost 1 ms more than `__import__`.
    store: ArtifactStore = __import__(module, fromlist=["open_store"]).open_store(context)
    return store
