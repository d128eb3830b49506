"""Names of NVIDIA's kit, where the kit itself is not installed."""

import pkgutil

# A folder nemotron/kit of the job's own, without an __init__.py, comes first.
__path__ = pkgutil.extend_path([], __name__)
