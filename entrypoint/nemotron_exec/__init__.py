"""nemotron-exec: start a training command with its artifacts resolved and its checkpoints tracked.

The launcher half. The injected half lies in `sitecustomize/` and is standard library only.
"""

__version__ = "0.1.0"
