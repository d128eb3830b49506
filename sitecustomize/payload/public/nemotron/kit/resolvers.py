"""`nemotron.kit.resolvers`, under the name that NVIDIA's kit has for it, served to the job by the injector."""

from _nemotron_exec.resolvers import *  # noqa: F403
from _nemotron_exec.resolvers import __all__  # noqa: F401
