"""Describes a job's surroundings for its run record: packages, scheduler, GPUs, and uncommitted changes of the code."""

from __future__ import annotations

import os

from .. import flags, notice
from ..lazy import pattern

DIFF_VARIABLE = "NEMOTRON_EXEC_CODE_DIFF"
DIFF_LIMIT = 256 << 10  # characters of the diff that are kept

_SCHEDULER = pattern(
    r"SLURM_(?:JOB_ID|JOB_NAME|JOB_PARTITION|JOB_NODELIST|JOB_NUM_NODES|CLUSTER_NAME|ARRAY_JOB_ID|ARRAY_TASK_ID"
    r"|RESTART_COUNT)\Z"
    r"|(?:POD_NAME|POD_NAMESPACE|POD_UID|KUBERNETES_SERVICE_HOST|JOB_COMPLETION_INDEX)\Z"
    r"|(?:SKYPILOT_TASK_ID|DSTACK_RUN_ID|TORCHX_JOB_ID|NEMO_EXPERIMENT_ID|LSB_JOBID|PBS_JOBID)\Z"
)
_GPUS = "/proc/driver/nvidia/gpus"


def packages():
    """`{name: version}` of every package that is installed here."""
    import importlib.metadata

    found = {}
    try:
        for one in importlib.metadata.distributions():
            name = one.metadata["Name"]
            if name:
                found.setdefault(str(name).lower(), one.version)
    except Exception as error:  # a damaged package ends the list; the run record is still written
        notice.debug("the list of packages is cut: %r" % (error,))
    return dict(sorted(found.items()))


def scheduler(environ=os.environ):
    """The scheduler's variables that identify this job."""
    return {name: environ[name] for name in sorted(environ) if _SCHEDULER.match(name)}


def gpus(root=_GPUS):
    """The models of this machine's NVIDIA GPUs, as the driver names them. No GPU is initialised."""
    found = []
    try:
        for name in sorted(os.listdir(root)):
            with open(os.path.join(root, name, "information"), encoding="utf-8") as stream:
                for line in stream:
                    key, _, value = line.partition(":")
                    if key.strip() == "Model":
                        found.append(value.strip())
    except OSError as error:
        notice.debug("no GPU is known: %s" % error)
    return found


def diff(text, environ=os.environ):
    """The diff for the run record, bounded and without secrets; None under `NEMOTRON_EXEC_CODE_DIFF=0`."""
    if not text or flags.is_on(environ.get(DIFF_VARIABLE) or "1") is not True:
        return None
    kept = text[:DIFF_LIMIT]
    lines = [notice.redact_command([line])[0] for line in kept.splitlines()]
    if len(text) > DIFF_LIMIT:
        lines.append("… %d characters more" % (len(text) - DIFF_LIMIT))
    return "\n".join(lines)
