"""Reads a job's settings for checkpoints from environment and hand-off: store, backend, name, policy."""

from __future__ import annotations

import os

from .. import handoff, job, notice
from ..manifest import names

__all__ = []

POLICIES = ("all", "periodic", "best", "last", "none")


class Settings:
    """The settings for checkpoints, read once in a process, at its first checkpoint."""

    def __init__(self, data=None, environ=os.environ):
        data = data or {}
        wandb = data.get("wandb") or {}
        self.store = environ.get("NEMOTRON_EXEC_STORE") or data.get("store") or names.default_root(environ)
        self.backend = environ.get("NEMOTRON_EXEC_BACKEND") or data.get("backend") or "manifest"
        self.project = environ.get("WANDB_PROJECT") or wandb.get("project")
        self.entity = environ.get("WANDB_ENTITY") or wandb.get("entity")
        # With this backend the next job looks artifacts up in W&B, so each checkpoint must reach W&B, even by a later
        # flush.
        self.sends_to_wandb = bool(
            self.backend == "wandb"
            and self.project
            and environ.get("WANDB_MODE", "").lower() != "disabled"
            and environ.get("WANDB_DISABLED", "").lower() not in ("true", "1")
        )
        self.publish = data.get("publish") or None
        policy = data.get("checkpoints") or "all"
        if policy not in POLICIES:
            notice.warning("run.checkpoints is %r, and must be one of %s: taken as all" % (policy, ", ".join(POLICIES)))
            policy = "all"
        self.policy = policy
        self.job = (data.get("job") or {}).get("id") or environ.get("NEMO_EXPERIMENT_ID") or ""
        self.used_artifacts = [
            one["qualified_name"] for one in data.get("artifacts") or () if one.get("qualified_name")
        ]
        self.hooks = [hook for hook in data.get("on_checkpoint") or () if isinstance(hook, dict)]
        self.handoff = data


class _Said:
    def __init__(self):
        self.settings = None

    def inherit(self, parents):
        self.settings = parents.settings


def settings():
    """The process's `Settings`."""
    said = job.part(_Said)
    if said.settings is None:
        said.settings = Settings(handoff.read())
    return said.settings
