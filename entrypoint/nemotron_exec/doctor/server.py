"""Checks W&B: whether it is used, whether it answers, whether it accepts the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_exec.config.env_toml import find_env_toml, read_env_toml
from nemotron_exec.doctor.finding import Finding, Level
from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.paths.absolute import working_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.doctor.finding import Patient

__all__ = ["backend", "check", "when_silent"]

_PATIENCE = 5.0  # seconds


def backend(patient: Patient) -> tuple[str, str]:
    """The backend that `--backend` means here, and why. The project that a config names is not known to this check.

    Raises:
        LaunchError: `--backend wandb` without a key.
    """
    from nemotron_exec.stores.backend import choose_backend
    from nemotron_exec.stores.wandb.credentials import find_credentials

    path = patient.chosen.env_file or find_env_toml(working_directory(), patient.environ)
    env_toml = read_env_toml(path, patient.chosen.run)
    key = find_credentials(patient.environ) is not None
    return choose_backend(patient.chosen.backend, patient.environ, env_toml.wandb.get("project"), key=key)


def check(patient: Patient) -> Iterator[Finding]:
    """The findings about the run's destination, and about the server if there is a key for it."""
    yield Finding(Level.OK, "run", _run_of(patient))
    if not patient.words:  # with a command, config.py reports it
        yield from when_silent(patient, None)
    yield from _server(patient)


def when_silent(patient: Patient, config: bool | None) -> Iterator[Finding]:
    """How a job goes on if W&B does not answer, for a job that logs a run there.

    Args:
        patient: The start that is examined.
        config: `run.wandb.required` of its config; None where the config has none.
    """
    from nemotron_exec.sitecustomize.payload.flags import is_on
    from nemotron_exec.sitecustomize.payload.patches.outage import BOUND, REQUIRED_VARIABLE, TIMEOUT_VARIABLE
    from nemotron_exec.stores.wandb.credentials import find_credentials
    from nemotron_exec.stores.wandb.settings import OFFLINE, run_mode

    if find_credentials(patient.environ) is None or run_mode(patient.environ).value in OFFLINE:
        return
    said = patient.environ.get(REQUIRED_VARIABLE)
    variable = is_on(said) if said else None
    if said and variable is None:
        found, remedy = f"{REQUIRED_VARIABLE} is {said!r}, which is neither on nor off", "Write 0 or 1"
        yield Finding(Level.WARNING, "run", found, remedy)
    required = variable if variable is not None else config is not False
    source = REQUIRED_VARIABLE if variable is not None else "the default" if config is None else "run.wandb.required"
    does = (
        "the job ends with one error"
        if required
        else "the run starts offline, and the next start or `nemotron-artifact flush` sends it"
    )
    bound = patient.environ.get(TIMEOUT_VARIABLE) or f"{BOUND:g}"
    yield Finding(Level.OK, "run", f"where W&B does not answer within {bound} s, {does} ({source})")


def _run_of(patient: Patient) -> str:
    """Server, entity, project and mode of a run of this job, each with its source."""
    from nemotron_exec.stores.wandb.settings import find_setting, run_mode, wandb_base_url

    path = patient.chosen.env_file or find_env_toml(working_directory(), patient.environ)
    env_toml = read_env_toml(path, patient.chosen.run)
    server = find_setting(patient.environ, "base_url")
    where = f"{wandb_base_url(patient.environ)} ({server.source})" if server else "the client's default server"
    words = [f"a run goes to {where}"]
    for name in ("entity", "project"):
        setting = find_setting(patient.environ, name)
        if value := env_toml.wandb.get(name):
            words.append(f"{name} {value} ({env_toml.path})")
        elif setting:
            words.append(f"{name} {setting.value} ({setting.source})")
        else:
            words.append(f"{name} as the {'key' if name == 'entity' else 'config'} says")
    mode = run_mode(patient.environ)
    return ", ".join([*words, f"mode {mode.value} ({mode.source})"])


def _server(patient: Patient) -> Iterator[Finding]:
    from nemotron_exec.stores.wandb.credentials import find_credentials
    from nemotron_exec.stores.wandb.settings import OFFLINE, run_mode, wandb_base_url

    try:
        chosen, reason = backend(patient)
    except LaunchError as error:
        yield Finding(Level.FAULT, "wandb", f"{error.wanted}: {error.found}", error.remedy)
        return
    credentials = find_credentials(patient.environ)
    if credentials is None or run_mode(patient.environ).value in OFFLINE or patient.chosen.backend == "manifest":
        yield Finding(Level.OK, "wandb", f"is not asked: {reason}")
        return
    base_url = wandb_base_url(patient.environ)
    try:
        from nemotron_exec.stores.wandb.server import check_server

        viewer = check_server(patient.environ, base_url, credentials, "to reach W&B", _PATIENCE)
    except ImportError as error:
        yield Finding(Level.FAULT, "wandb", f"the launcher cannot import {error.name}", "Install nemotron-exec[wandb]")
    except LaunchError as error:
        # Even if another store resolves the references, runs are logged to W&B.
        level = Level.FAULT if chosen == "wandb" else Level.WARNING
        yield Finding(level, "wandb", error.found, error.remedy)
    else:
        who = viewer.get("username") or viewer.get("entity") or "unnamed"
        text = f"{base_url} answers, and takes the key of {who} (from {credentials.source}); artifacts: {chosen}"
        yield Finding(Level.OK, "wandb", text)
