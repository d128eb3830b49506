"""A double of NeMo-RL: only the parts that the checkpoint patch uses."""

__version__ = "0.5.0"
