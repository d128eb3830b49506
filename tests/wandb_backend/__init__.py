"""A loopback server with the part of W&B that nemotron-exec uses. The client is always the real one.

    with Backend() as backend:
        backend.seed("team/nemotron/data", files={"blend.json": b"{}"}, metadata={"pack_size": 4096})
        environ.update(backend.environ())
        ...                                    # run the real wandb against it
        assert backend.operations("ArtifactMembershipByName") == 1

Its state is in `Backend.model` (model.py), its requests are in `Backend.log` (one `Operation` each), and
`Backend.fail(…)` orders faults (faults.py). Facts about the wire were observed with wandb 0.22, 0.27 and 0.31; facts
that could not be checked with the hosted service are marked "assumed" in the code.
"""

from __future__ import annotations

from wandb_backend.faults import Fault
from wandb_backend.model import Model, Run, Version
from wandb_backend.server import API_KEY, Backend, Operation

__all__ = ["API_KEY", "Backend", "Fault", "Model", "Operation", "Run", "Version"]
