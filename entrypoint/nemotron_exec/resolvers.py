"""The Python API, for scripts that call it by hand; the code is the injector's (sitecustomize/payload/resolvers.py)."""

# In a job that the launcher has started there is one state per process: the injector's.
try:
    from _nemotron_exec.resolvers import *  # noqa: F403
    from _nemotron_exec.resolvers import __all__
except ImportError:
    from nemotron_exec.sitecustomize.payload.resolvers import *  # noqa: F403
    from nemotron_exec.sitecustomize.payload.resolvers import __all__  # noqa: F401
