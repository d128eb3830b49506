"""A loopback server that speaks as much of W&B as this project's flows use; the client is always the real one.

    with Backend() as backend:
        backend.seed("team/nemotron/data", files={"blend.json": b"{}"}, metadata={"pack_size": 4096})
        environ.update(backend.environ())
        ...                                    # run the real wandb against it
        assert backend.operations("ArtifactMembershipByName") == 1

What it holds is in `Backend.model` (model.py), what it was asked in `Backend.log` (one `Operation` per request), and
what goes wrong on demand in `Backend.fail(…)` (faults.py). Facts about the wire were observed with wandb 0.22, 0.27
and 0.31; where the hosted service could not be asked, the code says "assumed".
"""

from __future__ import annotations

from wandb_backend.faults import Fault
from wandb_backend.model import Model, Run, Version
from wandb_backend.server import API_KEY, Backend, Operation

__all__ = ["API_KEY", "Backend", "Fault", "Model", "Operation", "Run", "Version"]
