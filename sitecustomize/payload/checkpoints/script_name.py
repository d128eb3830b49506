"""The artifact's name that a script hands over (`patch_nemo_rl_checkpoint_logging(artifact_name=…)`).

It counts as `run.publish` does, which wins where both are there. It stands in the environment: NeMo-RL hands that on to
its Ray workers, one of which may keep the checkpoints.
"""

from __future__ import annotations

import os

__all__ = ["VARIABLE", "hand_over", "read"]

VARIABLE = "NEMOTRON_EXEC_RL_NAME"


def hand_over(name):
    """Name the artifacts of NeMo-RL's checkpoints, in this process and in those that it starts."""
    if name:
        os.environ[VARIABLE] = str(name)


def read(framework, environ=os.environ):
    """The name that a script has handed over for checkpoints of `framework`; None where it has not."""
    return (environ.get(VARIABLE) or None) if framework == "nemo-rl" else None
