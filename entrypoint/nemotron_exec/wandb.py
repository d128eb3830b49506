"""The Python API, for scripts that call it by hand; the code is the injector's (sitecustomize/payload/api/wandb.py)."""

# The launcher has started this process: use the injector's module, so that the process has one state.
try:
    from _nemotron_exec.api.wandb import *  # noqa: F403
    from _nemotron_exec.api.wandb import __all__
except ImportError:
    from nemotron_exec.sitecustomize.payload.api.wandb import *  # noqa: F403
    from nemotron_exec.sitecustomize.payload.api.wandb import __all__  # noqa: F401
