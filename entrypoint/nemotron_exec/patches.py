"""The injector's patches, for people: what each waits for, and which are switched off."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 8 ms, and every job's start comes by here
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PATCHES", "describe"]

PATCHES = {
    "lineage": "wandb.sdk.wandb_init",
    "megatron-bridge": "megatron.bridge.training.utils.wandb_utils",
    "nemo-rl": "nemo_rl.utils.checkpoint",
    "resolvers": "omegaconf",
    "kit": "nemotron.kit.wandb_kit",
}
"""Name to the module that it hooks: the table of the injector's start.py, which cannot be imported without acting."""


def describe(environ: Mapping[str, str]) -> str:
    """One line at the start of a job; what becomes of a patch later, the injector says where it happens."""
    off = environ.get("NEMOTRON_EXEC_DISABLED_PATCHES", "").replace(" ", "").split(",")
    waiting = [f"{name} for {module.split('.')[0]}" for name, module in PATCHES.items() if name not in off]
    disabled = [name for name in PATCHES if name in off]
    text = "patches waiting: " + (", ".join(waiting) or "none")
    return text + (f"; switched off: {', '.join(disabled)}" if disabled else "")
