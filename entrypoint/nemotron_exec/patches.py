"""The injector's patches, for people: the modules for which each waits, and which patches are switched off."""

from __future__ import annotations

from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS

TYPE_CHECKING = False  # typing costs 8 ms, and every job's start comes by here
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PATCHES", "describe"]

PATCHES: dict[str, tuple[str, ...]] = {
    "lineage": ("wandb.sdk.wandb_init",),
    **{framework.name: framework.modules for framework in FRAMEWORKS},
    "resolvers": ("omegaconf",),
    "kit": ("nemotron.kit.wandb_kit", "nemo_runspec.config.resolvers"),
    "ray": ("ray._private.utils", "ray.util.client", "ray._private.worker"),
}
"""The modules that each patch hooks, as in the injector's start.py, whose import would start the injector."""


def describe(environ: Mapping[str, str]) -> str:
    """One line about the patches at the start of a job under `-v`.

    The injector itself reports the later state of each patch.
    """
    off = environ.get("NEMOTRON_EXEC_DISABLED_PATCHES", "").replace(" ", "").split(",")
    waiting = [f"{name} for {modules[0].split('.')[0]}" for name, modules in PATCHES.items() if name not in off]
    disabled = [name for name in PATCHES if name in off]
    text = "patches waiting: " + (", ".join(waiting) or "none")
    return text + (f"; switched off: {', '.join(disabled)}" if disabled else "")
