"""A double of NeMo-RL: only the parts that the checkpoint patch uses."""

__version__ = "0.8.0rc0"
