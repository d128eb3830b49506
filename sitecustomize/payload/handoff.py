"""The hand-off: what the launcher has resolved for this job (schema in ARCHITECTURE.md). Read when first asked for."""

from __future__ import annotations

import binascii
import json
import os
import zlib

from . import disk, job, notice

__all__ = ["SCHEMA", "VALUE", "read"]

SCHEMA = 1
VALUE = "NEMOTRON_EXEC_HANDOFF_VALUE"
"""The same by value (base64 of zlib), for a process on a node that does not see the file, such as a Ray worker."""
_LIMIT = 16 << 20
# A variable of these that is set and differs says that the hand-off is an older job's, left in an environment that
# something has carried over (design ruling 19).
_JOB_VARIABLES = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "DSTACK_RUN_ID")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .documents import HandOff


class _Read:
    """What this process has read, by path: the file is opened once, and a fault in it is warned about once."""

    def __init__(self):
        self.by_path = {}

    def inherit(self, parents):
        self.by_path.update(parents.by_path)


def read(environ: Mapping[str, str] = os.environ) -> HandOff:
    """The hand-off as a dictionary; {} where nothing was resolved, or where it must not be believed.

    One warning says why it is not; the job goes on as without it.
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
        # The launcher may be root in a job that drops to a user.
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
    """The bytes that the environment carries; None where it carries none, or something else."""
    try:
        packed = binascii.a2b_base64(environ.get(VALUE, "").encode("ascii", "replace"))
        return zlib.decompressobj().decompress(packed, _LIMIT) or None
    except (ValueError, zlib.error):
        return None
