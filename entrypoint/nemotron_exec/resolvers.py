"""The Python API, for scripts that call it by hand; the code is the injector's (sitecustomize/payload/resolvers.py)."""

# The launcher has started this process: use the injector's module, so that the process has one state.
try:
    from _nemotron_exec.resolvers import *  # noqa: F403
    from _nemotron_exec.resolvers import __all__
except ImportError:
    from nemotron_exec.sitecustomize.payload.resolvers import *  # noqa: F403
    from nemotron_exec.sitecustomize.payload.resolvers import __all__  # noqa: F401
