"""Steps 3 and 4, resolve and write: from the configs of the command to the answer that all launchers of the job apply.

One launcher runs `lead.answer`. rendezvous/ decides which one, and brings its result or its error to the others.
"""

from __future__ import annotations

import functools
import os

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.config.env_toml import EnvToml
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace
from nemotron_exec.resolution.asked import Request, ask, changed_since, pins_of
from nemotron_exec.resolution.defaults import choose_store, default_wandb, load_env_toml, wandb_variables
from nemotron_exec.resolution.resolution import Resolution
from nemotron_exec.resolution.words import apply_changes
from nemotron_exec.sitecustomize.payload.sha256 import sha256

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from nemotron_exec.command.words import Command
    from nemotron_exec.message import Messages
    from nemotron_exec.options import Options
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.rendezvous.answer import Agreement, Lead

__all__ = ["resolve"]

# A restart asks anew if a file of its answer has changed. This bounds the repeats for a file that changes all the time.
_MAX_REPEATS = 4


def resolve(
    command: Command,
    place: Place,
    identity: JobIdentity,
    chosen: Options,
    environ: Mapping[str, str],
    messages: Messages,
) -> Resolution:
    """The answer for this job, made here or by the leading launcher.

    Raises:
        LaunchError: The input is bad, here or at the leader. No half-written file is left.
    """
    for contradiction in place.contradictions:
        messages.warning(contradiction)
    if chosen.strict or not place.index:
        from nemotron_exec.resolution.doubts import doubts

        for doubt in doubts(command, chosen, environ):
            messages.warning(doubt)
    if not (command.configs or chosen.artifact or chosen.artifacts):
        return _without_config(command, chosen, environ, messages)
    if (outer := _resolved_by_outer_launcher(command, chosen, environ)) is not None:
        messages.debug(f"resolved by the launcher around this one: {environ['NEMOTRON_EXEC_HANDOFF']}")
        return outer
    from nemotron_exec.place.state_directory import state_directory
    from nemotron_exec.rendezvous.agree import agree as agree_in_directory
    from nemotron_exec.rendezvous.timing import Timing

    state = state_directory(chosen.state_dir, environ, place, messages=messages, rendezvous=chosen.rendezvous)
    request = Request(command, place, identity, state, chosen, environ, messages)
    agree: Callable[..., Agreement] = agree_in_directory
    over_network = chosen.rendezvous == "c10d" and place.several_nodes
    if over_network:
        from nemotron_exec.rendezvous import c10d
        from nemotron_exec.resolution import lead

        agree = functools.partial(
            c10d.agree, follow=functools.partial(lead.follow, request), command=command, environ=environ
        )
    asked, timing = ask(command, chosen), Timing.of(environ)
    for _ in range(_MAX_REPEATS):
        agreement = agree(
            place,
            identity,
            state,
            question=asked,
            produce=functools.partial(_lead, request),
            timeout=chosen.timeout,
            stall=chosen.stall,
            refresh=chosen.refresh,
            messages=messages,
            timing=timing,
        )
        if not agreement.reused or (found := changed_since(agreement.answer["files"])) is None:
            break
        asked = replace(asked, key=sha256(f"{asked.key} {found}".encode()).hexdigest()[:24])
    arguments, dropped = apply_changes(command, agreement.answer["changes"])
    resolution = replace(
        Resolution.from_json(agreement.answer),
        arguments=arguments,
        dropped=dropped,
        handoff_value=agreement.answer.get("handoff_value"),
    )
    if place.node == 0 if over_network else agreement.led or (agreement.reused and place.index in (0, None)):
        pins = pins_of(request, agreement.answer["save_directory"])
        if (sentence := pins.other_inputs(resolution.artifacts)) is not None:
            messages.warning(sentence)
        # Pin the published answer only: no launcher uses the answer of a leader that lost its lease.
        pins.write(resolution.artifacts)
    if (agreement.reused or not agreement.led) and any(one.store == "huggingface" for one in resolution.artifacts):
        from nemotron_exec.resolution.hub import bring

        bring(resolution.artifacts, chosen, environ, messages)
    first_of_a_restart = agreement.reused and not place.index
    if first_of_a_restart:
        from nemotron_exec.resolution import lead

        # This start resolved nothing, but the attempt before it may have died with unsent checkpoints in its outbox.
        lead.replay(request, agreement.answer["save_directory"], resolution.store, messages.debug)
        messages.info(
            f"using the versions of the first start of {identity.id} ({identity.source}); --refresh asks again"
        )
    if agreement.led or first_of_a_restart:  # a single launcher prints it
        for artifact in resolution.artifacts:
            messages.info(_line(artifact), key=artifact.key, version=artifact.version, path=artifact.path)
        for hook in resolution.on_checkpoint:
            from nemotron_exec.resolution.on_checkpoint import describe
            from nemotron_exec.sitecustomize.payload.notice import redact_text

            messages.info(redact_text(f"on_checkpoint: {describe(hook)}"))
    directory = agreement.answer["save_directory"]
    unseen = any(os.path.isabs(one.path) and not os.path.exists(one.path) for one in resolution.artifacts)
    if not place.local_index and (directory or unseen):
        from nemotron_exec.resolution.look import concerns

        first = not place.index
        for sentence in concerns(resolution.artifacts, directory, first=first, deep=chosen.doctor):
            messages.warning(sentence)
    return resolution


def _lead(request: Request, given: Lead) -> Mapping[str, Any]:
    """Resolve and write. Only the leader imports what reads and renders configs: 63 of 64 launchers need none of it."""
    from nemotron_exec.resolution import lead

    return lead.answer(request, given)


def _resolved_by_outer_launcher(command: Command, chosen: Options, environ: Mapping[str, str]) -> Resolution | None:
    """The outer launcher's answer, if every config of the command is a file that it has written; else None.

    Without a config it is the outer answer if that has all artifacts of the options. An image's ENTRYPOINT and a prefix
    in the job script may both start a launcher. The versions of the outer one stay pinned.
    """
    if "NEMOTRON_EXEC_HANDOFF" not in environ:
        return None
    from nemotron_exec.sitecustomize.payload import handoff
    from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

    known = handoff.read(environ)
    written = {os.path.realpath(config["resolved"]) for config in known.get("config") or ()}
    if not written.issuperset(os.path.realpath(absolute(config.path)) for config in command.configs):
        return None
    if not command.configs:
        has = {artifact["key"]: artifact["reference"] for artifact in known.get("artifacts") or ()}
        if chosen.artifacts or not all(
            has.get(pair.partition("=")[0]) == pair.partition("=")[2] for pair in chosen.artifact
        ):
            return None
    wandb = known.get("wandb") or {}
    return Resolution(
        artifacts=tuple(Artifact.from_json(artifact) for artifact in known["artifacts"]),
        handoff=environ["NEMOTRON_EXEC_HANDOFF"],
        handoff_value=environ.get("NEMOTRON_EXEC_HANDOFF_VALUE"),
        store=known["store"],
        backend=known["backend"],
        variables=wandb_variables(
            {name: text for name in ("project", "entity") if isinstance(text := wandb.get(name), str) and text}
        ),
    )


def _without_config(command: Command, chosen: Options, environ: Mapping[str, str], messages: Messages) -> Resolution:
    """The answer for a command without a config: only the store for checkpoints is resolved."""
    if overrides := [override for override in command.overrides if override.is_about_run]:
        raise LaunchError(
            f"apply {overrides[0].word}",
            "no argument of the command names a config with a `run` section",
            "Name the config on the command line, or to nemotron-exec with -c FILE",
        )
    try:
        env_toml = load_env_toml(chosen, environ)
    except LaunchError as error:
        if chosen.run or chosen.env_file:
            raise
        messages.warning(f"{error.wanted}: {error.found}. {error.remedy}")
        env_toml = EnvToml()
    try:
        store = choose_store(chosen, environ, env_toml, None)
    except LaunchError as error:
        # The command needs no store before its first checkpoint.
        messages.warning(f"no checkpoint is registered: {error.found}. {error.remedy}")
        store = ""
    return Resolution(store=store, variables=wandb_variables(default_wandb(env_toml, environ)))


def _line(artifact: Artifact) -> str:
    mark = "@" if artifact.store == "huggingface" else ":"
    return f"{artifact.key}: {artifact.name}{mark}{artifact.version} -> {artifact.path}"
