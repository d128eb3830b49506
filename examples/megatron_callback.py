"""Megatron-Bridge's own checkpoint callback, without the rest of the framework.

`import megatron.bridge` needs Transformer Engine and other packages for GPUs. The one module that these examples call
needs none of them, so an empty parent package stands in for the framework's `__init__`.
"""

import sys
import types
import warnings

warnings.filterwarnings("ignore", message=".*(Apex|Transformer Engine)")

import megatron.core  # noqa: E402, F401  # makes `megatron` known

bridge = types.ModuleType("megatron.bridge")
bridge.__path__ = [entry + "/bridge" for entry in sys.modules["megatron"].__path__]
sys.modules.setdefault("megatron.bridge", bridge)

from megatron.bridge.training.utils import wandb_utils  # noqa: E402


def on_save_checkpoint_success(checkpoint_path, save_dir, iteration, wandb_writer):
    """Call it through the module at call time, as megatron/bridge/training/checkpointing.py does."""
    wandb_utils.on_save_checkpoint_success(checkpoint_path, save_dir, iteration, wandb_writer)
