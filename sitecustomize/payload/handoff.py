"""Reads the hand-off, the launcher's result for this job (schema in ARCHITECTURE.md), on the first call."""

from __future__ import annotations

import binascii
import json
import os
import zlib

from . import disk, job, notice

__all__ = ["SCHEMA", "VALUE", "read"]

SCHEMA = 1
VALUE = "NEMOTRON_EXEC_HANDOFF_VALUE"
"""The hand-off by value (base64 of zlib), for a process on a node that does not see the file, such as a Ray worker."""
_LIMIT = 16 << 20
# If one of these variables is set and differs, the hand-off is of an older job: its environment was passed on to this
# job (design ruling 19).
_JOB_VARIABLES = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "DSTACK_RUN_ID")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .documents import HandOff


class _Read:
    """The hand-offs that this process has read, by path: each file is opened once, and gives one warning at most."""

    def __init__(self):
        self.by_path = {}

    def inherit(self, parents):
        self.by_path.update(parents.by_path)


def read(environ: Mapping[str, str] = os.environ) -> HandOff:
    """The hand-off as a dictionary; {} where nothing was resolved, or where the file is not to be trusted.

    One warning says why a file is not trusted; the job goes on as without it.
    """
    path = environ.get("NEMOTRON_EXEC_HANDOFF")
    if not path:
        return {}
    known = job.part(_Read).by_path
    if path not in known:
        data, problem = _load(path, environ)
        if problem:
            notice.warning("the hand-off %s is not used: %s" % (path, problem))
        known[path] = data
    handoff: HandOff = known[path]
    return handoff


def _load(path, environ):
    try:
        # Accept a file of root: the launcher may run as root in a job that drops to a user.
        content = disk.read_regular(path, _LIMIT, (os.geteuid(), 0))
    except disk.UnusableFileError as error:
        return {}, "it is %s" % error
    except OSError as error:
        problem = error.strerror or str(error)
        content = _carried(environ)
        if content is None:
            return {}, (
                "%s. This process records no inputs, and its checkpoints under their default names. Give the launcher "
                "a directory that every node sees with --state-dir DIR" % problem
            )
    try:
        data = json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return {}, "it is not JSON, or cut off"
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        return {}, "it has no schema number"
    if data["schema"] > SCHEMA:
        return {}, "its schema is %d, of a later version; this injector knows %d" % (data["schema"], SCHEMA)
    job = data.get("job")
    recorded = job.get("environment") if isinstance(job, dict) else None
    for name in _JOB_VARIABLES:
        was = recorded.get(name) if isinstance(recorded, dict) else None
        if was and environ.get(name) and environ[name] != was:
            return {}, "it is of %s %s, and this is %s" % (name, was, environ[name])
    return data, None


def _carried(environ):
    """The hand-off by value from the environment, as bytes; None where there is none, or where it does not decode."""
    try:
        packed = binascii.a2b_base64(environ.get(VALUE, "").encode("ascii", "replace"))
        return zlib.decompressobj().decompress(packed, _LIMIT) or None
    except (ValueError, zlib.error):
        return None
