"""A loopback server that speaks as much of the Hugging Face hub as this project uses. The client is the real one.

    with Hub() as hub:
        commit = hub.seed("org/model", {"config.json": b"{}", "model.safetensors": b"…"})
        environ.update(hub.environ(home))
        ...                                    # run the real huggingface_hub against it
        assert hub.operations("info org/model@main") == 1

The repositories are in `Hub.model` (model.py), the requests in `Hub.log` (one `Operation` each), and `Hub.fail(…)`
orders faults (faults.py). Facts about the wire were read in huggingface_hub 0.26 and 2.4 (`hf_raise_for_status`,
`get_hf_file_metadata`, `parse_ratelimit_headers`). A file is in Git or in LFS, and with
`xet=True` in Xet storage as well (xet.py).
"""

from __future__ import annotations

from hub_backend.faults import Fault
from hub_backend.model import Commit, Model, Repository
from hub_backend.server import TOKEN, Hub, Operation, RateLimit

__all__ = ["TOKEN", "Commit", "Fault", "Hub", "Model", "Operation", "RateLimit", "Repository"]
