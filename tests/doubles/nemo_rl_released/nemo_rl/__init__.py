"""A double of NeMo-RL: only what the checkpoint patch meets."""

__version__ = "0.5.0"
