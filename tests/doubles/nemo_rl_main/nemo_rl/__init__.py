"""A double of NeMo-RL: only what the checkpoint patch meets."""

__version__ = "0.8.0rc0"
