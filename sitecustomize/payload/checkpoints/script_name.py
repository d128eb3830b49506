"""The artifact name that a script sets (`patch_nemo_rl_checkpoint_logging(artifact_name=…)`).

It has the effect of `run.publish`, which wins where both are set. It is stored in the environment: NeMo-RL passes that
on to its Ray workers, one of which may write the checkpoints.
"""

from __future__ import annotations

import os

__all__ = ["VARIABLE", "hand_over", "read"]

VARIABLE = "NEMOTRON_EXEC_RL_NAME"


def hand_over(name):
    """Set the name for NeMo-RL's checkpoints in this process and in the processes that it starts."""
    if name:
        os.environ[VARIABLE] = str(name)


def read(framework, environ=os.environ):
    """The name that a script has set for checkpoints of `framework`, or None."""
    return (environ.get(VARIABLE) or None) if framework == "nemo-rl" else None
