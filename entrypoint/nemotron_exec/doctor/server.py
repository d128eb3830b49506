"""W&B: whether it is used, whether it answers, whether it takes the key."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Level
from nemotron_exec.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.doctor.finding import Patient

__all__ = ["backend", "check"]

_PATIENCE = 5.0  # seconds


def backend(patient: Patient) -> tuple[str, str]:
    """What `--backend` comes to here, and why. A config of the command may name a project that is not seen here.

    Raises:
        LaunchError: `--backend wandb` without a key.
    """
    from nemotron_exec.env_toml import find_env_toml, read_env_toml
    from nemotron_exec.stores.backend import choose_backend, find_credentials

    env_toml = read_env_toml(patient.chosen.env_file or find_env_toml(os.getcwd(), patient.environ), patient.chosen.run)
    key = find_credentials(patient.environ) is not None
    return choose_backend(patient.chosen.backend, patient.environ, env_toml.wandb.get("project"), key=key)


def check(patient: Patient) -> Iterator[Finding]:
    """The server, where there is a key for it."""
    from nemotron_exec.stores.backend import find_credentials, wandb_base_url

    try:
        chosen, reason = backend(patient)
    except LaunchError as error:
        yield Finding(Level.FAULT, "wandb", f"{error.wanted}: {error.found}", error.remedy)
        return
    credentials = find_credentials(patient.environ)
    mode = patient.environ.get("WANDB_MODE", "").lower()
    if credentials is None or mode in ("offline", "disabled", "dryrun") or patient.chosen.backend == "manifest":
        yield Finding(Level.OK, "wandb", f"is not asked: {reason}")
        return
    base_url = wandb_base_url(patient.environ)
    try:
        from nemotron_exec.stores.wandb_child import check_server

        viewer = check_server(base_url, credentials, "to reach W&B", _PATIENCE)
    except ImportError as error:
        yield Finding(Level.FAULT, "wandb", f"the launcher cannot import {error.name}", "Install nemotron-exec[wandb]")
    except LaunchError as error:
        # Where references are looked up elsewhere, runs are still logged there.
        level = Level.FAULT if chosen == "wandb" else Level.WARNING
        yield Finding(level, "wandb", error.found, error.remedy)
    else:
        who = viewer.get("username") or viewer.get("entity") or "unnamed"
        text = f"{base_url} answers, and takes the key of {who} (from {credentials.source}); artifacts: {chosen}"
        yield Finding(Level.OK, "wandb", text)
