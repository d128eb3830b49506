"""Step 4, write: the resolved files, the hand-off and the launcher's part of the run record."""

from __future__ import annotations

import os

from nemotron_exec.errors import LaunchError
from nemotron_exec.resolution.asked import Request, here, pins_of
from nemotron_exec.resolution.defaults import tags_of, wandb_of
from nemotron_exec.resolution.resolution import ResolvedConfig
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute, working_directory

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.config.config import Config
    from nemotron_exec.config.files import Rendered

__all__ = ["checkpoint_policy", "outputs_of", "text_or_none", "timestamp", "write_files"]


def write_files(rendered: Rendered) -> tuple[ResolvedConfig, ...]:
    """Write the resolved files, mode 0600, and the links to the neighbours of the originals."""
    from nemotron_exec.shared_directory import files as private

    for file in rendered.files:
        os.makedirs(os.path.dirname(file.path), mode=0o700, exist_ok=True)
        private.replace(file.path, file.text, durable=True)
    for link, target in rendered.links:
        os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
        os.symlink(target, link)
    return tuple(ResolvedConfig(absolute(file.original), file.path) for file in rendered.files)


def timestamp() -> str:
    """The current time: UTC, ISO 8601, whole seconds."""
    import datetime

    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def text_or_none(value: object) -> str | None:
    """The value if it is a text and not empty; else None."""
    return value if isinstance(value, str) and value else None


def outputs_of(config: Config, here: Callable[[str], str | None]) -> dict[str, str]:
    """`run.outputs` of a config: the directory of each artifact, absolute.

    Args:
        config: The config.
        here: Returns a path of the config as the job names it; None for a path that does not exist yet.

    Raises:
        LaunchError: The value is no mapping of names to directories.
    """
    from nemotron_exec.sitecustomize.payload.manifest import names

    given = config.run.get("outputs")
    if given is None:
        return {}
    wanted = f"run.outputs of {config.files[0]}"
    remedy = "Write `outputs: {my-model: out/model}`: for each artifact's name the directory that the command fills"
    if not isinstance(given, dict):
        raise LaunchError(wanted, f"it is {given!r}, not a mapping", remedy)
    found: dict[str, str] = {}
    for name, directory in given.items():
        try:
            names.check_name(name)
        except (names.StoreError, TypeError) as error:
            raise LaunchError(wanted, f"{name!r} is no artifact name", remedy) from error
        if not isinstance(directory, str) or not directory.strip() or "\0" in directory:
            raise LaunchError(wanted, f"the directory of {name} is {directory!r}", remedy)
        if "://" in directory:
            raise LaunchError(wanted, f"{name} is {directory}, not a local directory", remedy)
        path = absolute(here(directory) or directory)
        if (other := next((one for one, there in found.items() if there == path), None)) is not None:
            raise LaunchError(wanted, f"{other} and {name} are one directory, {path}", "Give each its own")
        found[str(name)] = path
    return found


_CHECKPOINTS = ("all", "periodic", "best", "last", "none")


def checkpoint_policy(config: Config) -> str:
    """`run.checkpoints` of a config: which checkpoints are registered.

    Raises:
        LaunchError: The value is no policy.
    """
    chosen = config.run.get("checkpoints", "all")
    if chosen in (None, False):  # YAML 1.1 reads `off` and `no` as false
        return "none"
    if chosen not in _CHECKPOINTS:
        raise LaunchError(
            f"run.checkpoints of {config.files[0]}", f"{chosen!r}", "Write one of " + ", ".join(_CHECKPOINTS)
        )
    return str(chosen)


def write_handoff(
    request: Request,
    config: Config,
    backend: str,
    store: str,
    artifacts: Sequence[Artifact],
    configs: Sequence[ResolvedConfig],
    hooks: Sequence[Mapping[str, Any]],
    directory: str,
) -> str:
    """Write the hand-off beside the resolved configs. Return its path."""
    from nemotron_exec.resolution import handoff
    from nemotron_exec.shared_directory import files as private

    wandb = wandb_of(config)
    document = handoff.handoff_document(
        job={
            "id": request.identity.id,
            "source": request.identity.source,
            "environment": dict(request.identity.environment),
        },
        backend=backend,
        store=store,
        wandb={
            "project": wandb.get("project"),
            "entity": wandb.get("entity"),
            "resume": _resume(request, config),
            "tags": tags_of(config),
            "required": _required(config),
        },
        artifacts=artifacts,
        publish=text_or_none(config.run.get("publish")),
        outputs=outputs_of(config, lambda path: here(request, path)),
        checkpoints=checkpoint_policy(config),
        on_checkpoint=hooks,
        configs=configs,
        run_record=_write_run_record(request, directory),
    )
    path = os.path.join(directory, "handoff.json")
    private.replace(path, handoff.encode(document), durable=True)
    return path


def _resume(request: Request, config: Config) -> dict[str, str] | None:
    """The W&B run that this job continues; None unless the config has `run.wandb.resume: auto`."""
    section = config.run.get("wandb")
    chosen = section.get("resume") if isinstance(section, dict) else None
    if chosen in (None, False):
        return None
    if chosen != "auto":
        raise LaunchError(f"run.wandb.resume of {config.files[0]}", f"{chosen!r}", "Write auto, or leave it out")
    return {"id": pins_of(request, here(request, config.save_directory)).run_identity()}


def _required(config: Config) -> bool:
    """`run.wandb.required` of a config: whether the job ends if W&B does not answer.

    Raises:
        LaunchError: The value is no boolean.
    """
    section = config.run.get("wandb")
    chosen = section.get("required") if isinstance(section, dict) else None
    if chosen is None or isinstance(chosen, bool):
        return chosen is not False
    remedy = "Write true or false, without quotes: with false a job whose W&B does not answer trains on offline"
    raise LaunchError(f"run.wandb.required of {config.files[0]}", f"{chosen!r}", remedy)


def _write_run_record(request: Request, directory: str) -> str:
    """Write the launcher's part of the run record. The job's first checkpoint adds the rest (run_record.py)."""
    import json

    from nemotron_exec.resolution.handoff import launched
    from nemotron_exec.shared_directory import files as private

    path = os.path.join(directory, "run.json")
    record = launched(request.command.argv, working_directory(), request.chosen, request.environ)
    private.replace(path, json.dumps(record, indent=1).encode(), durable=False)
    return path


def handoff_value(request: Request, path: str) -> str | None:
    """The hand-off as a text, for processes that may not see its file; None if all nodes see the state directory.

    A job of one launcher may be a Ray job of many nodes, which the launcher does not know.
    """
    if request.state.shared and not request.place.single:
        return None
    from nemotron_exec.resolution import handoff

    value = handoff.by_value(path)
    if len(value) <= handoff.MAX_VALUE:
        return value
    request.messages.warning(
        f"the hand-off ({len(value)} bytes, packed) is too large for the environment: processes on nodes that do "
        f"not see {path} record no inputs. Under Ray, give a directory that every node sees with --state-dir DIR"
    )
    return None
