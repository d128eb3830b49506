"""The choice of a job's store, made without importing wandb and without a request."""

from __future__ import annotations

from nemotron_exec.errors import LaunchError
from nemotron_exec.stores.wandb.credentials import LOGIN
from nemotron_exec.stores.wandb.settings import OFFLINE, find_setting, run_mode

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["choose_backend"]


def choose_backend(requested: str, environ: Mapping[str, str], project: str | None, *, key: bool) -> tuple[str, str]:
    """Decide between W&B and the manifest store (design.md, `--backend`).

    Args:
        requested: "auto", or the name of a store.
        environ: The environment, for project and mode in the client's settings.
        project: The W&B project of the config or of env.toml.
        key: Whether `find_credentials` has found a key.

    Returns:
        The name of a store, and a reason for people.

    Raises:
        LaunchError: `--backend wandb` is given without a key.
    """
    if requested == "wandb" and not key:
        raise LaunchError("to look artifacts up in W&B (--backend wandb)", "there is no W&B API key", LOGIN)
    if requested != "auto":
        return requested, f"--backend {requested}"
    mode = run_mode(environ)
    if mode.value in OFFLINE:
        where = f"{mode.source}={mode.value}" if mode.source.isupper() else f"mode = {mode.value} in {mode.source}"
        return "manifest", f"{where}, so artifacts are looked up in the manifest store"
    if not (project or find_setting(environ, "project")):
        return "manifest", "no W&B project is configured, so artifacts are looked up in the manifest store"
    if not key:
        return "manifest", "there is no W&B API key, so artifacts are looked up in the manifest store"
    return "wandb", "a W&B project and a key are configured"
