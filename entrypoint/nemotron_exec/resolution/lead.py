"""The leader's work for its job: resolve, look up, write."""

from __future__ import annotations

import functools
import os

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.frozen import replace
from nemotron_exec.place.nemo_run import translation
from nemotron_exec.resolution.asked import Request, digests_of, here, pins_of
from nemotron_exec.resolution.defaults import (
    choose_store,
    default_wandb,
    load_env_toml,
    wandb_of,
    wandb_variables,
)
from nemotron_exec.resolution.resolution import Resolution
from nemotron_exec.resolution.words import portable_changes
from nemotron_exec.resolution.write import handoff_value, timestamp, write_files, write_handoff
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.config.config import Config
    from nemotron_exec.rendezvous.answer import Lead
    from nemotron_exec.stores.protocol import ArtifactStore

__all__ = ["answer", "follow", "replay"]


def answer(request: Request, lead: Lead) -> Mapping[str, Any]:
    """Resolve and write, in the leading launcher.

    Raises:
        LaunchError: A fault that the user has to mend.
    """
    return _answer(request, lead, {})


def follow(request: Request, lead: Lead, leaders: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolve and write on this node what node 0 has resolved: the same versions, at this node's paths.

    Raises:
        LaunchError: The versions cannot be found here.
    """
    artifacts = map(Artifact.from_json, leaders["artifacts"])
    return _answer(request, lead, {artifact.key: artifact.pinned_alias for artifact in artifacts}, follows=True)


def _answer(request: Request, lead: Lead, versions: Mapping[str, str], *, follows: bool = False) -> Mapping[str, Any]:
    from nemotron_exec.config import config as config_config
    from nemotron_exec.config import files as config_files
    from nemotron_exec.config import run_section
    from nemotron_exec.config.named import named_artifacts

    lead("reading " + ", ".join(config.path for config in request.command.configs))
    env_toml = load_env_toml(request.chosen, request.environ)
    wandb_defaults = default_wandb(env_toml, request.environ)
    config = config_config.read(
        request.command.configs,
        request.command.overrides,
        environ=request.environ,
        run_wandb=run_section.Injected(
            wandb_defaults.get("project"),
            wandb_defaults.get("entity"),
            env_toml.profile,
            null=len(request.command.configs) == 1 and request.command.configs[0].hydra is None,
        ),
        resolve="all" if request.chosen.resolve == "all" else "artifacts",
        named=named_artifacts(request.chosen.artifact, request.chosen.artifacts),
        words=request.command.argv,
        start=request.command.program + 1,
        directory=request.command.around.directory,
        messages=request.messages,
    )
    if empty := config.empty_wandb:
        request.messages.info(f"{' and '.join(empty)}: null, since config, env.toml and environment do not set it")
    hooks = _hooks(request, config, None)
    store = choose_store(request.chosen, request.environ, env_toml, config)
    backend = _choose_where(request, config)
    save_directory = here(request, config.save_directory)
    # Send first: the config may name a checkpoint that an earlier start has saved.
    lead("sending what earlier starts have left in the outbox")
    replay(request, save_directory, store, None if follows else lead)
    artifacts = _look_up(request, config, save_directory, versions, backend, store, lead)
    if any(artifact.iteration is not None for artifact in artifacts):
        from nemotron_exec.resolution.pretrained import texts_of, warn_of_newer, with_pretrained_paths

        texts = [*request.command.argv, *texts_of(config.files)]
        artifacts = with_pretrained_paths(artifacts, lead.directory, texts)
        warn_of_newer(artifacts, texts, request.messages)
    rendered = config.render(
        {artifact.key: artifact for artifact in artifacts},
        directory=os.path.join(lead.directory, "config"),
        header=config_files.Header(created_at=timestamp()),
        translate=translation(request.environ),
    )
    resolved = write_files(rendered)
    defaults, settings = _hub(request, config, artifacts, lead.directory)
    if hooks:
        hooks = _hooks(request, config, artifacts)
    handoff = write_handoff(request, config, backend, store, artifacts, resolved, hooks, lead.directory)
    resolution = Resolution(
        artifacts=tuple(artifacts),
        configs=resolved,
        handoff=handoff,
        store=store,
        backend=backend,
        variables={**wandb_variables(wandb_of(config)), **defaults},
        settings=settings,
        outputs=bool(config.run.get("outputs")),
        on_checkpoint=tuple(hooks),
    )
    more = {
        "files": digests_of(config.files),
        "save_directory": save_directory,
        "changes": portable_changes(request.command, rendered),
        "handoff_value": handoff_value(request, handoff),
    }
    return {**resolution.to_json(), **more}


def _hooks(request: Request, config: Config, artifacts: Sequence[Artifact] | None) -> list[dict[str, Any]]:
    """The hooks of `run.on_checkpoint`, checked before any look-up, and again with `${art:…}` filled in."""
    if not any("checkpoint" in key.lower() for key in config.run):
        return []
    from nemotron_exec.resolution import on_checkpoint

    if artifacts is None:
        on_checkpoint.near_miss(config.run, request.messages)
    known = None if artifacts is None else {artifact.key: artifact for artifact in artifacts}
    return on_checkpoint.hooks_of(config, known, request.environ)


def _choose_where(request: Request, config: Config) -> str:
    """The backend for references. One line tells the user if a configured W&B project is not used."""
    from nemotron_exec.stores.backend import choose_backend
    from nemotron_exec.stores.wandb.credentials import find_credentials

    project = wandb_of(config).get("project")
    key = find_credentials(request.environ) is not None
    backend, reason = choose_backend(request.chosen.backend, request.environ, project, key=key)
    if (
        any(item.store is None for item in config.references)
        and backend == "manifest"
        and request.chosen.backend == "auto"
    ):
        (request.messages.info if project else request.messages.debug)(reason)
    return backend


def _look_up(
    request: Request,
    config: Config,
    save_directory: str | None,
    versions: Mapping[str, str],
    backend: str,
    store: str,
    lead: Lead,
) -> Sequence[Artifact]:
    """Every reference with its version: from node 0, else from the pin of an earlier start, else from the store."""
    references = config.references
    if not references:
        return ()
    from nemotron_exec.backends import backend_named
    from nemotron_exec.stores.protocol import StoreContext
    from nemotron_exec.stores.table import open_store

    if versions:
        found: list[Artifact] = []
        missing = [
            replace(item, alias=versions.get(item.key, item.alias))
            for item in references
            if item.key in versions or not item.optional
        ]
    else:
        pinned = pins_of(request, save_directory).apply(references)
        found, missing = list(pinned.artifacts), list(pinned.open)
    context = StoreContext(
        root=store,
        environ=request.environ,
        messages=request.messages,
        localise=functools.partial(_localise, request),
        project=wandb_of(config).get("project"),
        entity=wandb_of(config).get("entity"),
        cache_dir=request.chosen.cache_dir,
        # Give up a silent connection, and try again, before the leader counts as stalled.
        stall=min(30.0, request.chosen.stall / 3) if request.chosen.stall > 0 else 30.0,
        flush_first=functools.partial(_flush_first, request, store),
    )
    for name in dict.fromkeys(item.store or backend for item in missing):
        asked = [item for item in missing if (item.store or backend) == name]
        where = backend_named(name).title or f"the store {store}"
        lead(f"asking {where} for {', '.join(item.text for item in asked)}"[:300])
        opened = open_store(name, context)
        certain = [item for item in asked if not item.optional]
        found += opened.resolve(certain, progress=lead, timeout=request.chosen.timeout) if certain else []
        for item in asked:
            if item.optional:
                found += _look_up_optional(request, opened, item, lead)
    artifacts = {artifact.key: artifact for artifact in found}
    return [artifacts[reference.key] for reference in references if reference.key in artifacts]


def _localise(request: Request, path: str) -> str:
    """The path here of the data that another job has recorded at `path`."""
    if os.path.lexists(path):
        return path
    from nemotron_exec.sitecustomize.payload.paths import host

    return str(host.localise(path, request.environ))


def _flush_first(request: Request, store: str, references: Sequence[Reference]) -> None:
    from nemotron_exec.outbox.behind import flush_first

    flush_first(store, request.environ, request.messages)(references)


def _look_up_optional(request: Request, store: ArtifactStore, reference: Reference, lead: Lead) -> Sequence[Artifact]:
    """A reference that no `${art:…}` uses and that may be no artifact: empty if the store does not have it."""
    try:
        return store.resolve([reference], progress=lead, timeout=request.chosen.timeout)
    except TemporaryError:
        raise
    except LaunchError as error:
        request.messages.warning(
            f"run.{reference.key} ({reference.origin}): {reference.text} is taken for no artifact, since nothing "
            f"uses it and {error.found}"
        )
        return ()


def _hub(
    request: Request, config: Config, artifacts: Sequence[Artifact], directory: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The job's variables for the Hugging Face hub; empty if no reference names the hub."""
    if not any(artifact.store == "huggingface" for artifact in artifacts):
        return {}, {}
    from nemotron_exec.resolution.hub import hub_variables

    return hub_variables(config, artifacts, directory, request.chosen, request.environ, request.messages)


def replay(
    request: Request,
    save_directory: str | None,
    store: str | None,
    progress: Callable[[str], object] | None = None,
) -> None:
    """Send and run what earlier starts of the job have left: the outbox, and the hooks of `run.on_checkpoint`.

    They lie in the save directory, or in the store.

    Args:
        request: The request.
        save_directory: The directory where the config saves checkpoints.
        store: Root of the manifest store.
        progress: Called while hooks run. None does not run hooks, which the leading launcher does.
    """
    if request.chosen.dry_run:
        return
    if any(_may_have("outbox", root) for root in (save_directory, store)):
        from nemotron_exec.outbox import flush

        request.messages.debug(f"sending what earlier starts have left in the outbox of {save_directory}")
        job = request.identity.id
        flush.before_start(save_directory, store, messages=request.messages, environ=request.environ, job=job)
    if progress is not None and save_directory and any(_may_have("hooks", root) for root in (save_directory, store)):
        from nemotron_exec.outbox import hooks

        hooks.catch_up(
            save_directory if "://" in save_directory else absolute(save_directory),
            store,
            messages=request.messages,
            environ=request.environ,
            seconds=request.chosen.timeout / 2,
            progress=progress,
        )


def _may_have(what: str, root: str | None) -> bool:
    """Whether `flush` or `hooks` has files to look at. Importing them costs more than most starts need."""
    if root is None:
        return False
    try:
        names = os.listdir(os.path.join(root, ".nemotron-exec", what))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return any(name.startswith(("hook-", "checkpoint-", "run-")) for name in names)
