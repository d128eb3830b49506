"""Checks the configs of the command: reads them and looks up their references, as `--dry-run` does."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Kept, Level
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.doctor.finding import Patient

__all__ = ["check"]

_SECONDS = 120.0  # a check is not worth a longer download


def check(patient: Patient) -> Iterator[Finding]:
    """The version of each reference of the configs. The check resolves by itself, and no job uses its answer."""
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.resolution.doubts import doubts
    from nemotron_exec.resolution.resolve import resolve

    if not patient.words:
        return
    messages = Kept()
    with tempfile.TemporaryDirectory(prefix="nemotron-exec-doctor-") as scratch:
        try:
            resolution = resolve(
                patient.command,
                Place(0, 1, 0, 1, 0, 1, 0, "--doctor"),
                JobIdentity(f"doctor-{secrets.token_hex(8)}", "--doctor", shared=False, lasting=False),
                replace(
                    patient.chosen,
                    state_dir=scratch,
                    rendezvous="auto",
                    dry_run=True,
                    timeout=min(patient.chosen.timeout, _SECONDS),
                ),
                patient.environ,
                messages,
            )
        except LaunchError as error:
            yield Finding(Level.FAULT, "config", f"{error.wanted}: {error.found}", error.remedy)
            return
        required = _required(resolution.handoff)
    told = set(doubts(patient.command, patient.chosen, patient.environ))  # command_line.py has reported these
    for warning in messages.kept:
        if warning not in told:
            yield Finding(Level.WARNING, "config", warning)
    for artifact in resolution.artifacts:
        yield Finding(Level.OK, "config", f"{artifact.key}: {artifact.name}:{artifact.version} -> {artifact.path}")
    from nemotron_exec.doctor.server import when_silent

    yield from when_silent(patient, required)
    for hook in resolution.on_checkpoint:
        from nemotron_exec.resolution.on_checkpoint import describe
        from nemotron_exec.sitecustomize.payload.notice import redact_text

        yield Finding(Level.OK, "config", redact_text(f"on_checkpoint: {describe(hook)}"))
    if not resolution.artifacts:
        said = (
            "holds nothing to resolve"
            if patient.command.configs
            else "no config of the command names an artifact; `-c FILE` names one"
        )
        yield Finding(Level.OK, "config", said)


def _required(handoff: str | None) -> bool | None:
    """Whether the hand-off makes W&B required; None where the config does not say it."""
    if handoff is None:
        return None
    with contextlib.suppress(OSError, ValueError), open(handoff, encoding="utf-8") as file:
        return False if json.load(file)["wandb"].get("required") is False else None
    return None
