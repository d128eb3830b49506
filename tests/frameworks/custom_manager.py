"""Classes for Megatron-Bridge's `custom_manager_class`. They do not use nemotron-exec."""

from __future__ import annotations

import os

from megatron.bridge.training.checkpointing import DefaultCheckpointManager


class Alone:
    """Writes its own files."""

    def __init__(self, checkpoint_config):
        self.directory = checkpoint_config.save

    def save(self, ctx, callback_manager=None):
        os.makedirs(os.path.join(self.directory, f"mine_{ctx.state.train_state.step}"), exist_ok=True)

    def load(self, ctx):
        return 0, 0

    def finalize_async_saves(self, state, blocking=False, terminate=False):
        return None


class PassedOn(DefaultCheckpointManager):
    """Saves as Megatron-Bridge does."""
