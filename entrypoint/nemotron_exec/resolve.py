"""Steps 3 and 4, resolve and write: from the configs of the command to the answer that all launchers of the job apply.

One launcher runs `_Question.answer`; rendezvous.py decides which, and carries its result or its error to the others.
"""

from __future__ import annotations

import functools
import hashlib
import os

from nemotron_exec.artifact import Artifact
from nemotron_exec.environment import default_cache, default_store
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass, replace
from nemotron_exec.resolution import Resolution, ResolvedConfig

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from nemotron_exec.command import Command
    from nemotron_exec.config import Config, Rendered
    from nemotron_exec.env_toml import EnvToml
    from nemotron_exec.job import JobIdentity
    from nemotron_exec.message import Messages
    from nemotron_exec.options import Options
    from nemotron_exec.pin import Pins
    from nemotron_exec.rank import Place
    from nemotron_exec.rendezvous import Agreement, Lead
    from nemotron_exec.state import StateDirectory

__all__ = ["nemo_run_target", "resolve", "store_root", "translation"]

# A restart may find that a file which the answer was made from has changed, and asks anew; a file that changes while
# we look is not followed for ever.
_MAX_REPEATS = 4


def resolve(
    command: Command,
    place: Place,
    identity: JobIdentity,
    chosen: Options,
    environ: Mapping[str, str],
    messages: Messages,
) -> Resolution:
    """The answer for this job, made here or by the launcher that leads.

    Raises:
        LaunchError: Bad input, here or at the leader; nothing half-written is left.
    """
    for contradiction in place.contradictions:
        messages.warning(contradiction)
    if not command.configs:
        return _without_config(command, chosen, environ)
    if (outer := _resolved_by_outer_launcher(command, environ)) is not None:
        messages.debug(f"resolved by the launcher around this one: {environ['NEMOTRON_EXEC_HANDOFF']}")
        return outer
    from nemotron_exec import rendezvous
    from nemotron_exec.state import state_directory

    state = state_directory(chosen.state_dir, environ, place, messages=messages, rendezvous=chosen.rendezvous)
    question = _Question(command, place, identity, state, chosen, environ, messages)
    agree: Callable[..., Agreement] = rendezvous.agree
    over_network = chosen.rendezvous == "c10d" and place.several_nodes
    if over_network:
        from nemotron_exec import c10d

        agree = functools.partial(c10d.agree, follow=question.follow, command=command, environ=environ)
    key = question.key()
    for _ in range(_MAX_REPEATS):
        agreement = agree(
            place,
            identity,
            state,
            key=key,
            produce=question.answer,
            timeout=chosen.timeout,
            stall=chosen.stall,
            refresh=chosen.refresh,
            messages=messages,
        )
        if not agreement.reused or (found := _digest_of_files(agreement.answer["files"])) == agreement.answer["digest"]:
            break
        key = hashlib.sha256(f"{key} {found}".encode()).hexdigest()[:24]
    resolution = Resolution.from_json(agreement.answer)
    if place.node == 0 if over_network else agreement.led or (agreement.reused and place.index in (0, None)):
        # Only what was published is pinned: a leader that was overtaken has resolved for nobody.
        question.pins(agreement.answer["save_directory"]).write(resolution.artifacts)
    if agreement.reused and not place.index:
        # Nobody asked anew, but the attempt before this one may have died with checkpoints in its outbox.
        question.replay(agreement.answer["save_directory"], resolution.store)
    if agreement.reused:
        messages.info(f"versions as at the first start of {identity.id} ({identity.source}); --refresh asks again")
    if agreement.led or agreement.reused:
        for artifact in resolution.artifacts:
            messages.info(_line(artifact), key=artifact.key, version=artifact.version, path=artifact.path)
    return resolution


def nemo_run_target() -> str | None:
    """What `/nemo_run` is a mount of or a link to, as the host names it; None where it is neither.

    Where the host's name is not known, the name within the file system: of two jobs it is never the same.
    """
    if not os.path.lexists("/nemo_run"):
        return None
    from nemotron_exec.sitecustomize.payload import mountinfo

    found = mountinfo.nemo_run()
    return None if found is None else str(found.path if found.certain else found.inside or found.path)


def translation(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """What becomes of `/nemo_run` in arguments and configs, outside the container that has it; None where it stays."""
    if "NEMO_RUN_DIR" not in environ:
        return None
    from nemotron_exec.sitecustomize.payload import nemo_run

    target = nemo_run.directory(environ)
    return None if target is None else lambda text: str(nemo_run.translate(text, target))


@dataclass(frozen=True)
class _Question:
    """What is asked: the command, and the options that bear on the answer."""

    command: Command
    place: Place
    identity: JobIdentity
    state: StateDirectory
    chosen: Options
    environ: Mapping[str, str]
    messages: Messages

    def key(self) -> str:
        """Digest of the question, the same on every node: torchrun's own arguments are left out.

        Raises:
            LaunchError: A config that was named is not there.
        """
        chosen, command = self.chosen, self.command
        digest = hashlib.sha256()
        relevant = (chosen.backend, chosen.store, chosen.resolve, chosen.run, chosen.env_file, chosen.config)
        for part in (*command.relative, repr(relevant)):
            digest.update(os.fsencode(part) + b"\0")
        for config in command.configs:
            digest.update(_read(config.path))
        return digest.hexdigest()[:24]

    def answer(self, lead: Lead) -> Mapping[str, Any]:
        """Resolve and write, in the launcher that leads.

        Raises:
            LaunchError: Whatever the user has to mend.
        """
        return self._answer(lead, {})

    def follow(self, lead: Lead, leaders: Mapping[str, Any]) -> Mapping[str, Any]:
        """Resolve and write here what node 0 has resolved there: the same versions, at this node's paths.

        Raises:
            LaunchError: They cannot be had here.
        """
        return self._answer(lead, {item["key"]: item["version"] for item in leaders["artifacts"]})

    def _answer(self, lead: Lead, versions: Mapping[str, str]) -> Mapping[str, Any]:
        from nemotron_exec import config as configs

        env_toml = _env_toml(self.chosen, self.environ)
        wandb_defaults = _wandb_defaults(env_toml, self.environ)
        overrides = {index: self.command.argv[index] for index in self.command.overrides}
        config = configs.read(
            self.command.configs,
            overrides,
            environ=self.environ,
            run_wandb=configs.Injected(wandb_defaults.get("project"), wandb_defaults.get("entity"), env_toml.profile),
            resolve="all" if self.chosen.resolve == "all" else "artifacts",
        )
        store = _store(self.chosen, self.environ, env_toml, config)
        backend = self.backend(config)
        save_directory = self.here(config.save_directory)
        # Before anything is looked up: what an earlier start has saved may be what this one asks for.
        self.replay(save_directory, store)
        artifacts = self.artifacts(config, save_directory, versions, backend, store, lead)
        rendered = config.render(
            {artifact.key: artifact for artifact in artifacts},
            directory=os.path.join(lead.directory, "config"),
            header=configs.Header(created_at=_now()),
            translate=translation(self.environ),
        )
        resolved = _write(rendered)
        handoff = self.hand_off(config, backend, store, artifacts, resolved, lead.directory)
        resolution = Resolution(
            artifacts=tuple(artifacts),
            arguments={index - self.command.program: word for index, word in rendered.arguments.items()},
            dropped=frozenset(index - self.command.program for index in rendered.dropped),
            configs=resolved,
            handoff=handoff,
            store=store,
            backend=backend,
            variables=_wandb_variables(_wandb(config)),
        )
        files = list(config.files)
        more = {"files": files, "digest": _digest_of_files(files), "save_directory": save_directory}
        return {**resolution.to_json(), **more}

    def replay(self, save_directory: str | None, store: str | None) -> None:
        """Send what earlier starts of the job have left in the outbox of the save directory, or in the store for it."""
        if save_directory is None or self.chosen.dry_run:
            return
        if not any(_may_have_outbox(root) for root in (save_directory, store)):
            return
        from nemotron_exec import flush

        flush.before_start(save_directory, store, messages=self.messages, environ=self.environ)

    def backend(self, config: Config) -> str:
        """Where references are looked up; one line where a configured project is passed over."""
        from nemotron_exec.stores.backend import choose_backend, find_credentials

        project = _wandb(config).get("project")
        key = find_credentials(self.environ) is not None
        backend, reason = choose_backend(self.chosen.backend, self.environ, project, key=key)
        if config.references and backend == "manifest" and self.chosen.backend == "auto":
            (self.messages.info if project else self.messages.debug)(reason)
        return backend

    def artifacts(
        self,
        config: Config,
        save_directory: str | None,
        versions: Mapping[str, str],
        backend: str,
        store: str,
        lead: Lead,
    ) -> Sequence[Artifact]:
        """Every reference with its version: node 0's, else an earlier start's that is pinned, else the store's."""
        references = config.references
        if not references:
            return ()
        from nemotron_exec.sitecustomize.payload import mountinfo
        from nemotron_exec.stores import open_store
        from nemotron_exec.stores.behind import flush_first

        if versions:
            found: list[Artifact] = []
            missing = [replace(item, alias=versions.get(item.key, item.alias)) for item in references]
        else:
            pinned = self.pins(save_directory).apply(references)
            found, missing = list(pinned.artifacts), list(pinned.open)
        if missing:
            wandb = {name: _wandb(config).get(name) for name in ("project", "entity")}
            cache = self.chosen.cache_dir or default_cache(self.environ)
            opened = open_store(
                backend,
                root=store,
                messages=self.messages,
                localise=lambda path: str(mountinfo.localise(path, self.environ)),
                wandb={
                    **wandb,
                    "cache_directory": os.path.abspath(cache),
                    "environ": self.environ,
                    # A connection without a byte is given up, and tried again, before the leader is for silence.
                    **({"stall": min(30.0, self.chosen.stall / 3)} if self.chosen.stall > 0 else {}),
                    "flush_first": flush_first(store, self.environ, self.messages),
                },
            )
            found += opened.resolve(missing, progress=lead, timeout=self.chosen.timeout)
        artifacts = {artifact.key: artifact for artifact in found}
        return [artifacts[reference.key] for reference in references]

    def resume(self, config: Config) -> dict[str, str] | None:
        """The W&B run that this job continues: only where `run.wandb.resume: auto` asks for it."""
        section = config.run.get("wandb")
        chosen = section.get("resume") if isinstance(section, dict) else None
        if chosen in (None, False):
            return None
        if chosen != "auto":
            raise LaunchError(f"run.wandb.resume of {config.files[0]}", f"{chosen!r}", "Write auto, or leave it out")
        return {"id": self.pins(self.here(config.save_directory)).run_identity()}

    def pins(self, save_directory: str | None) -> Pins:
        """What earlier jobs have pinned for this one."""
        from nemotron_exec.pin import Pins

        return Pins(
            self.state,
            self.identity,
            self.place,
            save_directory=save_directory,
            file=self.chosen.pin,
            refresh=self.chosen.refresh,
            messages=self.messages,
        )

    def here(self, path: str | None) -> str | None:
        """A path of the config, as it is named in this container."""
        translate = translation(self.environ)
        path = translate(path) if path and translate else path
        if path and (path + "/").startswith("/nemo_run/") and not os.path.lexists("/nemo_run"):
            # There is no such directory here, and nobody wants it made: the command will say so itself.
            return None
        return path

    def hand_off(
        self,
        config: Config,
        backend: str,
        store: str,
        artifacts: Sequence[Artifact],
        configs: Sequence[ResolvedConfig],
        directory: str,
    ) -> str:
        """Write the hand-off beside the resolved configs; returns its path."""
        from nemotron_exec import handoff, private

        document = handoff.handoff_document(
            job={
                "id": self.identity.id,
                "source": self.identity.source,
                "environment": dict(self.identity.environment),
            },
            backend=backend,
            store=store,
            wandb={"project": None, "entity": None, **_wandb(config), "resume": self.resume(config)},
            artifacts=artifacts,
            publish=_text_or_none(config.run.get("publish")),
            checkpoints=_checkpoints(config),
            configs=configs,
            run_record=self.run_record(directory),
        )
        path = os.path.join(directory, "handoff.json")
        private.replace(path, handoff.encode(document), durable=True)
        return path

    def run_record(self, directory: str) -> str:
        """Write the launcher's part of the run record; the job's first checkpoint adds the rest (run_record.py)."""
        import json

        from nemotron_exec import private
        from nemotron_exec.sitecustomize.payload.notice import redact_command

        path = os.path.join(directory, "run.json")
        record = {"command": redact_command(self.command.argv), "cwd": os.getcwd()}
        private.replace(path, json.dumps(record, indent=1).encode(), durable=False)
        return path


def _resolved_by_outer_launcher(command: Command, environ: Mapping[str, str]) -> Resolution | None:
    """The outer launcher's answer, where every config of the command is a file that it has written.

    An image's ENTRYPOINT and a prefix in the job script may both be there; what the first has pinned stays pinned.
    """
    if "NEMOTRON_EXEC_HANDOFF" not in environ:
        return None
    from nemotron_exec.sitecustomize.payload import handoff

    known = handoff.read(environ)
    written = {os.path.realpath(config["resolved"]) for config in known.get("config") or ()}
    if not written.issuperset(os.path.realpath(config.path) for config in command.configs):
        return None
    return Resolution(
        artifacts=tuple(Artifact.from_json(artifact) for artifact in known["artifacts"]),
        handoff=environ["NEMOTRON_EXEC_HANDOFF"],
        store=known["store"],
        backend=known["backend"],
    )


def _without_config(command: Command, chosen: Options, environ: Mapping[str, str]) -> Resolution:
    """Nothing names a config: what is left is where checkpoints are registered."""
    if overrides := [word for word in command.relative if word.lstrip("+~").startswith("run.")]:
        raise LaunchError(
            f"apply {overrides[0]}",
            "no argument of the command names a config with a `run` section",
            "Name the config on the command line, or to nemotron-exec with -c FILE",
        )
    env_toml = _env_toml(chosen, environ)
    return Resolution(
        store=_store(chosen, environ, env_toml, None), variables=_wandb_variables(_wandb_defaults(env_toml, environ))
    )


def _env_toml(chosen: Options, environ: Mapping[str, str]) -> EnvToml:
    """The team's env.toml, empty if there is none."""
    from nemotron_exec.env_toml import find_env_toml, read_env_toml

    return read_env_toml(chosen.env_file or find_env_toml(os.getcwd(), environ), chosen.run)


def _store(chosen: Options, environ: Mapping[str, str], env_toml: EnvToml, config: Config | None) -> str:
    """Root of the manifest store: option, config, env.toml, environment, embedded default."""
    root = (
        chosen.store or (config.artifacts_root if config else None) or env_toml.artifacts_root or default_store(environ)
    )
    return root if "://" in root else os.path.abspath(os.path.expanduser(root))


def store_root(chosen: Options, environ: Mapping[str, str]) -> str:
    """Root of the manifest store, as far as no config names another."""
    return _store(chosen, environ, _env_toml(chosen, environ), None)


def _line(artifact: Artifact) -> str:
    return f"{artifact.key}: {artifact.name}:{artifact.version} -> {artifact.path}"


def _write(rendered: Rendered) -> tuple[ResolvedConfig, ...]:
    """Write the resolved files, 0600, and the links to the originals' siblings."""
    from nemotron_exec import private

    for file in rendered.files:
        os.makedirs(os.path.dirname(file.path), mode=0o700, exist_ok=True)
        private.replace(file.path, file.text, durable=True)
    for link, target in rendered.links:
        os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
        os.symlink(target, link)
    return tuple(ResolvedConfig(os.path.abspath(file.original), file.path) for file in rendered.files)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise LaunchError(
            f"read the config {path}",
            error.strerror or str(error),
            "Check the path; it counts from the working directory",
        ) from None


def _digest_of_files(paths: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path) + b"\0")
        try:
            with open(path, "rb") as file:
                digest.update(file.read())
        except OSError:
            digest.update(b"missing")
    return digest.hexdigest()


_WANDB = ("project", "entity")


def _wandb_defaults(env_toml: EnvToml, environ: Mapping[str, str]) -> dict[str, str]:
    """What `run.wandb` is filled with where the config does not say it: env.toml, then the environment."""
    values = {name: env_toml.wandb.get(name) or environ.get(f"WANDB_{name.upper()}") for name in _WANDB}
    return {name: value for name, value in values.items() if isinstance(value, str) and value}


def _wandb(config: Config) -> dict[str, str]:
    """`run.wandb` of the config, as far as it is plain text."""
    section = config.run.get("wandb")
    values = section if isinstance(section, dict) else {}
    return {name: values[name] for name in _WANDB if isinstance(values.get(name), str) and "${" not in values[name]}


def _wandb_variables(wandb: Mapping[str, str]) -> dict[str, str]:
    return {f"WANDB_{name.upper()}": value for name, value in wandb.items()}


def _may_have_outbox(root: str | None) -> bool:
    """Whether `flush` has something to look at; importing it costs more than most starts have to do."""
    from nemotron_exec.sitecustomize.payload import outbox

    try:
        return root is not None and bool(os.listdir(outbox.directory_of(root)))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _now() -> str:
    import datetime

    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


_CHECKPOINTS = ("all", "periodic", "best", "last", "none")


def _checkpoints(config: Config) -> str:
    chosen = config.run.get("checkpoints", "all")
    if chosen in (None, False):  # YAML 1.1 reads `off` and `no` as false
        return "none"
    if chosen not in _CHECKPOINTS:
        raise LaunchError(
            f"run.checkpoints of {config.files[0]}", f"{chosen!r}", "Write one of " + ", ".join(_CHECKPOINTS)
        )
    return str(chosen)
