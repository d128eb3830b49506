"""Runs scripts in a mount namespace of their own: their mounts are invisible outside, and end with them."""

from __future__ import annotations

import os
import subprocess


def run_with_mounts(script, cwd, **environ):
    """Run a shell script that may mount. For a user other than root, the script is root of a user namespace.

    Args:
        script: For `sh -c`.
        cwd: Its working directory.
        **environ: Variables to add.

    Returns:
        The CompletedProcess, with text.
    """
    words = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c", script]
    environ = {**os.environ, **environ}
    return subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=120)
