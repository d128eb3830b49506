"""Translates `/nemo_run` in a process outside the container that has this directory (design ruling 10).

If `/nemo_run` does not exist but NEMO_RUN_DIR names its place, paths are translated in the job's arguments, its
environment and the resolved config.
"""

from __future__ import annotations

import os
import re
import sys

CONTAINER_PATH = "/nemo_run"

# A path begins at the start of a word or after a separator of values, and ends before a separator.
_PATH = re.compile(r"""(?:^|(?<=[=:,"'\[{]))/nemo_run(?=/|[=:,"'\]}\s]|$)""")


def directory(environ):
    """The directory that stands for `/nemo_run`; None where `/nemo_run` exists or NEMO_RUN_DIR names no other."""
    target = environ.get("NEMO_RUN_DIR")
    if not target or target == CONTAINER_PATH or os.path.lexists(CONTAINER_PATH):
        return None
    return target.rstrip("/") or None


def translate(text, target):
    """`text` with every path under /nemo_run replaced by the same path under `target`."""
    return _PATH.sub(lambda _: target, text) if CONTAINER_PATH in text else text


def translate_process():
    """Translate sys.argv[1:], sys.path and the environment of this process, in place."""
    target = directory(os.environ)
    if target is None:
        return
    # At interpreter start sys.argv may not exist yet (before 3.8). The script's own path cannot be changed here.
    argv = getattr(sys, "argv", None)
    if argv:
        argv[1:] = [translate(word, target) for word in argv[1:]]
    sys.path[:] = [translate(entry, target) for entry in sys.path]
    for name, value in list(os.environ.items()):
        if name != "NEMO_RUN_DIR" and CONTAINER_PATH in value:
            os.environ[name] = translate(value, target)
