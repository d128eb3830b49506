"""`nemotron_exec.wandb`, served to the job by the injector."""

from _nemotron_exec.api.wandb import *  # noqa: F403
from _nemotron_exec.api.wandb import __all__  # noqa: F401
