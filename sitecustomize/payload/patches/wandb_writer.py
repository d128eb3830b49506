"""Stands in for the W&B writer of a framework that logs an artifact itself, and completes that artifact.

Megatron-Bridge and Megatron-LM keep the `wandb` module as their writer, make an artifact with it, and log it through
its run. `Writer` stands in for that module during the callback.
"""

from __future__ import annotations

import os

from .. import notice
from ..checkpoints import delivery


class Writer:
    """Stands in for the `wandb` module that the framework keeps as its writer, and passes all other calls through.

    An artifact made with its `Artifact` is completed: metadata that the framework does not set, the right iteration,
    the injector's metadata.json. An artifact logged through its `run` is remembered.
    """

    def __init__(self, wandb, entry):
        object.__setattr__(self, "_wandb", wandb)
        object.__setattr__(self, "_entry", entry)
        object.__setattr__(self, "_logged", [])

    def __getattr__(self, name):
        value = getattr(self._wandb, name)
        if name == "run" and value is not None:
            return Run(value, self._entry, self._logged)
        return value

    def __setattr__(self, name, value):
        setattr(self._wandb, name, value)

    def __bool__(self):
        return bool(self._wandb)

    def Artifact(self, name, type, *args, **kwargs):  # noqa: N802, A002
        """Make a `wandb.Artifact` with completed metadata."""
        entry = self._entry
        if entry["wandb"] is not None and entry["wandb"]["published"]:
            name = entry["wandb"]["name"]  # the name of `run.publish`; without it the framework's name stays
        if not args:
            kwargs["metadata"] = completed_metadata(kwargs.get("metadata"), entry)
        return self._wandb.Artifact(name, type, *args, **kwargs)

    def log_artifact(self, *args, **kwargs):
        """Log an artifact as the run does, and remember it."""
        return _log(self._wandb.log_artifact, self._entry, self._logged, args, kwargs)

    def nemotron_exec_handle(self):
        """The artifact that has been logged, or None."""
        return self._logged[-1] if self._logged else None


class Run:
    """Stands in for the run of a `Writer`."""

    def __init__(self, run, entry, logged):
        object.__setattr__(self, "_run", run)
        object.__setattr__(self, "_entry", entry)
        object.__setattr__(self, "_logged", logged)

    def __getattr__(self, name):
        return getattr(self._run, name)

    def __setattr__(self, name, value):
        setattr(self._run, name, value)

    def __bool__(self):
        return bool(self._run)

    def log_artifact(self, *args, **kwargs):
        """Log an artifact as the run does, and remember it."""
        return _log(self._run.log_artifact, self._entry, self._logged, args, kwargs)


def completed_metadata(metadata, entry):
    """The framework's metadata, completed by the injector's. The framework's values win, except for the iteration."""
    ours = delivery.wandb_metadata(entry)
    merged = dict(ours)
    merged.update(metadata or {})
    merged["iteration"] = ours.get("iteration", merged.get("iteration"))
    return merged


def _log(log_artifact, entry, logged, args, kwargs):
    # wandb asks its server before it takes an artifact. If the server does not answer, that takes minutes, and all
    # other ranks wait. So the commit thread logs the artifact, or a caller that reads an attribute of the result.
    def log():
        artifact = args[0] if args else None
        if hasattr(artifact, "add_reference"):
            try:
                # Add the file before the call, which seals the artifact, and after the framework's references, whose
                # names win.
                delivery.translate_references(artifact, os.path.realpath(entry["local_path"]), entry["checkpoint_path"])
                delivery.add_metadata_file(artifact, entry)
            except Exception as error:
                notice.warning("checkpoint %s is in W&B without metadata.json: %r" % (entry["checkpoint_path"], error))
        return log_artifact(*args, **kwargs)

    handle = delivery.Deferred(log)
    logged.append(handle)
    return handle
