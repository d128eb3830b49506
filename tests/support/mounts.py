"""Scripts in a mount namespace of their own: what they mount nobody else sees, and it is gone with them."""

from __future__ import annotations

import os
import subprocess


def run_with_mounts(script, cwd, **environ):
    """Run a shell script that may mount; as another user than root it is root of a user namespace.

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
