"""nemotron-exec: start a training command with its artifacts resolved and its checkpoints tracked.

The launcher half. The injected half lies in `sitecustomize/` and is standard library only.
"""

import sys

# Inside a job the injector's directory is on sys.path and offers no module. Here the same directory is a subpackage.
sys.path_importer_cache.pop(__file__.rpartition("/")[0] + "/sitecustomize", None)

__version__ = "0.1.0"
__url__ = "https://github.com/NVIDIA-NeMo/nemotron-exec"


def __getattr__(name: str) -> object:
    """`record_checkpoint`, for training scripts.

    It is imported on first use only, because every start of the launcher imports this package.
    """
    if name == "record_checkpoint":
        # The launcher has started this process: use the injector's module, so that the process has one state.
        try:
            from _nemotron_exec.api.checkpoint import record_checkpoint
        except ImportError:
            from nemotron_exec.sitecustomize.payload.api.checkpoint import record_checkpoint
        return record_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
