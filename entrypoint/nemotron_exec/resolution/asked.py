"""The question of a job's launchers, and what they ask about. Launchers with the same question get one answer."""

from __future__ import annotations

import contextlib
import os
import re

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass, replace
from nemotron_exec.place.nemo_run import translation
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute
from nemotron_exec.sitecustomize.payload.sha256 import sha256

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nemotron_exec.command.override import Override
    from nemotron_exec.command.words import Command
    from nemotron_exec.message import Messages
    from nemotron_exec.options import Options
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.place.state_directory import StateDirectory
    from nemotron_exec.resolution.pin import Pins

__all__ = ["Request", "ask", "changed_since", "digests_of", "here", "pins_of"]


@dataclass(frozen=True)
class Request:
    """The command, the place of this launcher, and everything else that is needed to answer."""

    command: Command
    place: Place
    identity: JobIdentity
    state: StateDirectory
    chosen: Options
    environ: Mapping[str, str]
    messages: Messages


def ask(command: Command, chosen: Options) -> Question:
    """The question of a command: everything that decides the answer, and is the same on every node.

    That is: the configs' bytes, `run.*`, the options that choose stores and modes, and the keys that expressions of the
    configs may read. All other words of the command may differ from node to node.

    Args:
        command: The wrapped command.
        chosen: The launcher's options.

    Raises:
        LaunchError: A named config does not exist.
    """
    parts: dict[str, str] = {}
    texts = b""
    for config in command.configs:
        data = read_bytes(config.path)
        _add(parts, os.path.basename(config.path), sha256(data).hexdigest()[:12])
        texts += data + b"\0"
    for override in command.overrides:
        if (value := _bearing(command, override, texts)) is not None:
            _add(parts, override.sign + ".".join(map(str, override.path)), value)
    for name in ("backend", "resolve", "run"):
        if (value := getattr(chosen, name)) is not None:
            parts[f"--{name}"] = str(value)
    if chosen.store is not None:
        parts["--store"] = chosen.store if "://" in chosen.store else absolute(chosen.store)
    for pair in chosen.artifact:
        _add(parts, "--artifact", pair)
    if chosen.artifacts is not None:
        parts["--artifacts"] = sha256(read_bytes(chosen.artifacts)).hexdigest()[:12]
    if chosen.env_file is not None:
        parts["--env-file"] = sha256(read_bytes(chosen.env_file)).hexdigest()[:12]
    # Two scripts, or two configs, in one step are two programs. They may ask different questions.
    script = command.argv[command.program :] or command.argv or ("",)
    program = [os.path.basename(script[0]), *(os.path.basename(config.path) for config in command.configs)]
    return Question(_digest(sorted(parts.items()))[:24], _digest(program)[:8], parts)


def _bearing(command: Command, override: Override, texts: bytes) -> str | None:
    """The part of an override that decides the answer: its value, only its presence (""), or nothing (None)."""
    text = override.text or ""
    if override.is_about_run or "${" in text or override.path == ("artifacts", "manifest", "root"):
        return text
    if any(
        config.directory and os.path.isdir(os.path.join(config.directory, override.group)) for config in command.configs
    ):
        return text  # the override chooses a file of Hydra, which may hold references
    # Only the script uses the value of another key, so an expression that depends on it is kept. But the presence of
    # the key matters where an expression stands at it or may read it. If the pattern matches too much, all nodes must
    # give the key.
    last = re.escape(str(override.path[-1]).encode())
    read = rb"\$\{[^}]*\b" + last + rb"\b|\b" + last + rb"[\"']?\s*:[^\n]*\$\{"
    return "" if re.search(read, texts) else None


def read_bytes(path: str) -> bytes:
    """The content of a file that the command or an option names.

    Raises:
        LaunchError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise LaunchError(
            f"read the config {path}",
            error.strerror or str(error),
            "Check the path; it counts from the working directory",
        ) from None


def _add(parts: dict[str, str], name: str, value: str) -> None:
    parts[name] = f"{parts[name]} {value}" if name in parts else value


def _digest(value: object) -> str:
    return sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()


def digests_of(paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the content of each file that exists."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            found[path] = sha256(file.read()).hexdigest()
    return found


def changed_since(known: Mapping[str, str]) -> str | None:
    """A digest of the files as they are now; None if no file that this node sees has changed."""
    now = digests_of(known)
    return None if all(known[path] == digest for path, digest in now.items()) else _digest(sorted(now.items()))


def pins_of(request: Request, save_directory: str | None) -> Pins:
    """The versions that earlier jobs have pinned for this one."""
    from nemotron_exec.resolution.pin import Pins

    return Pins(
        request.state,
        _pinned_for(request),
        request.place,
        save_directory=save_directory,
        file=request.chosen.pin,
        refresh=request.chosen.refresh,
        messages=request.messages,
    )


def _pinned_for(request: Request) -> JobIdentity:
    """The job whose answers in this state directory are the pin. Over c10d each node has its own pin."""
    if request.chosen.rendezvous != "c10d" or not request.place.several_nodes:
        return request.identity
    from nemotron_exec.rendezvous.c10d import within_node

    return replace(within_node(request.identity, request.place), lasting=request.identity.lasting)


def here(request: Request, path: str | None) -> str | None:
    """A path of the config as this container names it; None if it lies under a missing `/nemo_run`."""
    translate = translation(request.environ)
    path = translate(path) if path and translate else path
    if path and "://" not in path and request.command.around.directory:
        path = os.path.join(request.command.around.directory, path)
    if path and (path + "/").startswith("/nemo_run/") and not os.path.lexists("/nemo_run"):
        # The directory does not exist here, and the launcher does not create it. The command will report it.
        return None
    return path
