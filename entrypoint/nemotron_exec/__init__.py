"""nemotron-exec: start a training command with its artifacts resolved and its checkpoints tracked.

The launcher half. The injected half lies in `sitecustomize/` and is standard library only.
"""

import sys

# Inside a job our injector's directory is on sys.path, where it offers nothing; here it is a package of ours.
sys.path_importer_cache.pop(__file__.rpartition("/")[0] + "/sitecustomize", None)

__version__ = "0.1.0"
