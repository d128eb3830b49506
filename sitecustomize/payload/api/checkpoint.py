"""`record_checkpoint`: a checkpoint of any training script becomes an artifact, by two lines in the script."""

from __future__ import annotations

import os
import re
import sys

from .. import flags, job, notice
from ..checkpoints import deliver, describe, record, same_save
from ..manifest import names
from ..paths import host
from ..paths.absolute import absolute

__all__ = ["record_checkpoint"]

_NUMBER = re.compile(r"[-_=](\d+)(?:\.[A-Za-z]\w*)?\Z")
# Launchers of ranks set these variables to the process's rank. The first that is set counts.
_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


class _ByHand:
    """Path and iteration of each checkpoint that the script has recorded by a call in this process."""

    def __init__(self):
        self.recorded = set()

    def inherit(self, parents):
        self.recorded.update(parents.recorded)


def calls():
    """The number of checkpoints that the script has recorded by calls in this process."""
    return len(job.part(_ByHand).recorded)


def record_checkpoint(path, iteration=None, metrics=None, name=None):
    """Register a complete checkpoint, so that the next job finds it as `${art:KEY,path}`.

    Call it when the last byte is written. All ranks may call it: rank 0 records. The training thread writes two small
    files with fsync; the upload to W&B runs in the background. Outside a job of nemotron-exec the call does nothing. A
    path that does not exist, or a name that no store takes, gives one warning; with `NEMOTRON_EXEC_STRICT=1` it raises.
    The same path with the same iteration is recorded once, however often the script and the framework report it.

    Args:
        path: The checkpoint: a directory or a file (str or path-like).
        iteration: Step of the training (int). Default: the number at the end of the path (`step_100`,
            `checkpoint-500`, `step=200.ckpt`), if there is one.
        metrics: `{name: number}`; they stand in the metadata as `metrics.NAME`.
        name: Name of the artifact. Default: `run.publish` of the config. Without it, a checkpoint whose name ends in
            its number gets the name of the directory that holds it, and another checkpoint its own name without the
            suffix.

    Returns:
        `name:vN`, the version in the manifest store; None where nothing was recorded, or not at once.
    """
    try:
        if not os.environ.get("NEMOTRON_EXEC_ACTIVE") or flags.is_on(os.environ.get("NEMOTRON_EXEC_DISABLE")):
            return None
        if _rank() != 0:
            return None
        return _record(os.fspath(path), iteration, metrics, name)
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("checkpoint %s is not recorded as an artifact: %s" % (path, _why(error)))
        return None


def _record(path, iteration, metrics, name):
    if not path:
        raise ValueError("the path is empty; name the directory or the file of the checkpoint")
    path = absolute(path)
    if not os.path.exists(path):
        raise FileNotFoundError("there is nothing of that name; call record_checkpoint when the checkpoint is written")
    in_name = _NUMBER.search(os.path.basename(path))
    number = int(iteration) if iteration is not None else int(in_name.group(1)) if in_name else None
    if (path, number) in job.part(_ByHand).recorded or same_save.is_known(host.to_host(path), number):
        notice.debug("checkpoint %s is recorded already" % path)
        return None
    if name is not None:
        names.check_name(name)
    # The outbox lies beside numbered checkpoints. A directory without a number is the only checkpoint of its name, so
    # the outbox lies in it.
    own = not in_name and os.path.isdir(path)
    base = os.path.basename(path)
    recorded = record.record(
        describe.Completed(
            framework="script",
            versions=describe.versions("script", {"torch": "torch", "wandb": "wandb"}),
            save_dir=path if own else os.path.dirname(path),
            checkpoint_path=path,
            number=number,
            alias=_alias(os.path.splitext(base)[0] if os.path.isfile(path) else base) if in_name else "",
            path_is_checkpoint=True,
            transient=False,
            best=None,
            extra=dict(_numbers(metrics), format=describe.format_of(path)),
            name=name or (None if own or in_name or _published() else _stem(path)),
        )
    )
    job.part(_ByHand).recorded.add((path, number))
    if recorded is None:  # run.checkpoints excludes this checkpoint
        return None
    deliver.deliver(recorded)
    return None if recorded.version is None else "%s:v%d" % (recorded.entry["name"], recorded.version.number)


def _alias(base):
    """The last part of a path as an alias of the store: `epoch=1-step=200` becomes `epoch-1-step-200`."""
    return re.sub(r"[^A-Za-z0-9._+@-]+", "-", base).lstrip("-.")


def _published():
    from ..checkpoints import settings

    return settings.settings().publish


def _stem(path):
    return describe.artifact_name(path)


def _rank():
    """This process's rank: PyTorch's where it has one, else the launcher's; 0 where neither is known."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    for name in _RANKS:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _numbers(metrics):
    """The metrics as numbers. A tensor or an array with one element counts as its number."""
    found = {}
    for name, value in dict(metrics or {}).items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError("metrics[%r] is %r; give a number" % (name, value))
        found["metrics.%s" % name] = value
    return found


def _why(error):
    return (
        str(error) if isinstance(error, (FileNotFoundError, names.StoreError, TypeError, ValueError)) else repr(error)
    )
