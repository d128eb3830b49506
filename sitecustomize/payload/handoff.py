"""The hand-off: what the launcher has resolved for this job (schema in ARCHITECTURE.md). Read when first asked for."""

from __future__ import annotations

import errno
import json
import os
import stat

from . import notice

__all__ = ["SCHEMA", "read"]

SCHEMA = 1
_LIMIT = 16 << 20
# Of these, one that is present and differs says that the hand-off is an older job's, left in an environment that
# something has carried over (design ruling 19).
_JOB_VARIABLES = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "DSTACK_RUN_ID")

_read = {}


def read(environ=os.environ):
    """The hand-off as a dictionary; {} where nothing was resolved, or where it must not be believed.

    One warning says why it is not; the job goes on as without it.
    """
    path = environ.get("NEMOTRON_EXEC_HANDOFF")
    if not path:
        return {}
    if path not in _read:
        data, problem = _load(path, environ)
        if problem:
            notice.warning("the hand-off %s is not used: %s" % (path, problem))
        _read[path] = data
    return _read[path]


def _load(path, environ):
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        return {}, getattr(error, "strerror", None) or str(error)
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


def _content(path):
    """The bytes of a regular file of ours: no link, no FIFO that would hang, nothing of unbounded size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        # The launcher may be root in a job that drops to a user.
        if found.st_uid not in (os.geteuid(), 0):
            raise ValueError("it belongs to user %d" % found.st_uid)
        if found.st_size > _LIMIT:
            raise ValueError("it has %d bytes" % found.st_size)
        parts = []
        while True:
            part = os.read(descriptor, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)
            if sum(map(len, parts)) > _LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    finally:
        os.close(descriptor)
