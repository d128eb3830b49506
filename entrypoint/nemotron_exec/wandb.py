"""The Python API, for scripts that call it by hand; the code is the injector's (sitecustomize/payload/api/wandb.py)."""

# In a job that the launcher has started there is one state per process: the injector's.
try:
    from _nemotron_exec.api.wandb import *  # noqa: F403
    from _nemotron_exec.api.wandb import __all__
except ImportError:
    from nemotron_exec.sitecustomize.payload.api.wandb import *  # noqa: F403
    from nemotron_exec.sitecustomize.payload.api.wandb import __all__  # noqa: F401
