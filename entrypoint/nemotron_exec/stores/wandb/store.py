"""W&B as a store: a child process pins the references, and ends before the job begins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.environment import default_cache, homeless
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute
from nemotron_exec.stores.child_process import ChildProcess
from nemotron_exec.stores.wandb.credentials import LOGIN, find_credentials
from nemotron_exec.stores.wandb.display import TransferDisplay
from nemotron_exec.stores.wandb.settings import find_setting, wandb_base_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
    from nemotron_exec.stores.protocol import Progress, StoreContext

__all__ = ["WandbStore"]

_MARGIN = 2.0  # seconds that the child ends before the bound, because it knows the reason better

# Variables that would make the client more than a reader, or that belong to a run.
_DROPPED = (
    "WANDB_SERVICE", "WANDB_MODE", "WANDB_DISABLED", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_PROJECT", "WANDB_ENTITY",
)  # fmt: skip


class WandbStore:
    """Pins references to versions in W&B. Their data is used where it lies, or downloaded to the cache.

    Args:
        project: Project of the config or env.toml; None for the client's settings.
        entity: Entity of the config or env.toml; None for the client's settings, else the key's default entity.
        cache_directory: Directory for downloads; created if it is missing.
        environ: The launcher's environment.
        messages: For progress.
        localise: Translates a path recorded on the host into the path of the same data here.
        flush_first: Called with the references before they are looked up. It sends the outbox entries of their
            artifacts (ruling 18), or raises a TemporaryError that names both versions.
        stall: Seconds without a byte after which a connection is closed and another one tried.
    """

    def __init__(
        self,
        *,
        project: str | None,
        entity: str | None,
        cache_directory: str,
        environ: Mapping[str, str],
        messages: Messages | None = None,
        localise: Callable[[str], str] | None = None,
        flush_first: Callable[[Sequence[Reference]], None] | None = None,
        stall: float = 30.0,
    ) -> None:
        self._project = project or _value(environ, "project")
        self._entity = entity or _value(environ, "entity")
        self._cache_directory = cache_directory
        self._environ = environ
        self._messages = messages
        self._localise = localise or (lambda path: path)
        self._flush_first = flush_first
        self._stall = stall

    def resolve(self, references: Sequence[Reference], *, progress: Progress, timeout: float) -> list[Artifact]:
        """Pin every reference to a version whose `path` exists here, in the order given.

        Args:
            references: All references of the job; they are looked up and downloaded at the same time.
            progress: Called for every download, also while it waits for another launcher.
            timeout: Seconds for the whole call. After that the child process is ended.

        Raises:
            LaunchError: The key is missing or wrong or has no access, a name or version is unknown, or the cache is
                another user's.
            TemporaryError: Server or network is down, the time is over, the disk is full, or bytes stay wrong.
        """
        if not references:
            return []
        deadline = time.monotonic() + timeout
        credentials = find_credentials(self._environ)
        base_url = wandb_base_url(self._environ)
        if credentials is None:
            texts = ", ".join(f"run.{r.key}: {r.text} ({r.origin})" for r in references)
            raise LaunchError(f"to look up {texts} in W&B ({base_url})", "there is no W&B API key", LOGIN)
        if self._flush_first is not None:
            self._flush_first(references)
        request = {
            "references": [
                {"key": r.key, "text": r.text, "parts": r.parts, "alias": r.alias, "origin": str(r.origin)}
                for r in references
            ],
            "project": self._project,
            "entity": self._entity,
            "cache": self._cache_directory,
            "base_url": base_url,
            "stall": self._stall,
            "timeout": max(1.0, deadline - time.monotonic() - min(_MARGIN, timeout / 5)),
        }
        display = TransferDisplay(self._messages)
        debug = self._messages.debug if self._messages is not None and self._messages.verbose else None
        with ChildProcess(
            "nemotron_exec.stores.wandb.child",
            server="W&B",
            environ=_child_environ(self._environ, debug is None),
            secrets=[credentials.key or ""],
            # The client's files are not kept, and the home directory may be read-only.
            scratch=("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"),
            debug=debug,
        ) as child:
            try:
                return self._converse(child, request, references, progress, display, deadline)
            finally:
                display.close()

    def _converse(
        self,
        child: ChildProcess,
        request: Mapping[str, Any],
        references: Sequence[Reference],
        progress: Progress,
        display: TransferDisplay,
        deadline: float,
    ) -> list[Artifact]:
        child.send(request)
        found: dict[int, Artifact] = {}
        error: LaunchError | None = None
        told: set[str] = set()
        while True:
            message = child.receive(deadline, display.tick)
            kind = message.pop("say", None)
            if kind == "progress":
                display.update(message["what"], message["done"], message["total"])
                progress(message["what"], message["done"], message["total"])
            elif kind == "waiting":
                progress(f"{message['what']}, which another launcher downloads")
            elif kind == "busy":
                progress(message["what"])
            elif kind == "retry":
                # Count a new attempt as progress, like bytes: the child bounds the number of attempts.
                progress(f"W&B: {message['found']}")
                what = message.get("what", "")
                if self._messages is not None and what not in told:
                    self._messages.info(f"{message['found']}: trying again")
                told.add(what)
            elif kind == "note":
                if self._messages is not None:
                    self._messages.info(message["what"])
            elif kind == "localise":
                child.send({"id": message["id"], "path": self._localise(message["path"])})
            elif kind == "artifact":
                artifact = Artifact.from_json(message["artifact"])
                found[message["index"]] = artifact
                progress(artifact.qualified_name)
            elif kind == "error":
                error = _error(message)
            elif kind == "done" and error is None and len(found) == len(references):
                return [found[index] for index in range(len(references))]
            else:  # a crash, an early end, or silence until the bound
                left = [f"run.{r.key}: {r.text}" for i, r in enumerate(references) if i not in found]
                raise error or child.failure(kind, message, f"to resolve {', '.join(left)} in W&B")


def _error(message: Mapping[str, Any]) -> LaunchError:
    kind = TemporaryError if message["exit_code"] == TemporaryError.exit_code else LaunchError
    return kind(message["wanted"], message["found"], message["remedy"], exit_code=message["exit_code"])


def _value(environ: Mapping[str, str], name: str) -> str | None:
    found = find_setting(environ, name)
    return found.value if found else None


def _child_environ(environ: Mapping[str, str], silent: bool) -> dict[str, str]:
    child = {name: value for name, value in environ.items() if name not in _DROPPED}
    # A reader needs the server, whatever mode the settings files give to runs.
    child["WANDB_MODE"] = "online"
    child.update({"WANDB_SILENT": "true" if silent else "false", "WANDB_CONSOLE": "off"})
    # The service process tries long enough for a restart of the server. Then its error names the cause.
    child.setdefault("WANDB__GRAPHQL_RETRY_WAIT_MIN_SECONDS", "1")
    child.setdefault("WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS", "15")
    return child


def open_store(context: StoreContext) -> WandbStore:
    """W&B's store, with a cache for downloads.

    Raises:
        LaunchError: No cache directory is given and there is no home directory.
    """
    cache = context.cache_dir or default_cache(context.environ)
    if cache is None:
        raise homeless("to find the cache for downloads")
    localise = context.localise
    if localise is None:
        from nemotron_exec.sitecustomize.payload.paths.host import localise
    return WandbStore(
        project=context.project,
        entity=context.entity,
        cache_directory=absolute(cache),
        environ=context.environ,
        messages=context.messages,
        localise=localise,
        flush_first=context.flush_first,
        stall=context.stall,
    )
