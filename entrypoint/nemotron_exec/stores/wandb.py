"""W&B as a store: references become pinned versions, in a child process that is gone before the job begins."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Any

from nemotron_exec.artifact import Artifact
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.backend import LOGIN, find_credentials, wandb_base_url
from nemotron_exec.stores.transfer import TransferDisplay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nemotron_exec.message import Messages
    from nemotron_exec.reference import Reference
    from nemotron_exec.stores import Progress

__all__ = ["WandbStore"]

_MARGIN = 2.0  # seconds before the bound at which the child gives up by itself, with a better reason than ours
_GRACE = 1.5  # seconds that an interrupted child has to give its lease back
_START = "import sys; sys.path[:] = {path!r}; from nemotron_exec.stores.wandb_child import main; main()"

# Of the launcher's environment, what would make the client something other than a reader, or belongs to a run.
_DROPPED = (
    "WANDB_SERVICE", "WANDB_MODE", "WANDB_DISABLED", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_PROJECT", "WANDB_ENTITY",
)  # fmt: skip


class WandbStore:
    """Pins references to versions in W&B, and has their data here: where it is, or in the download cache.

    Args:
        project: From the config or env.toml; else `WANDB_PROJECT`.
        entity: From the config or env.toml; else `WANDB_ENTITY`, else the key's default entity.
        cache_directory: For downloads; made where it is missing.
        environ: The launcher's environment.
        messages: Where progress is shown.
        localise: Translates a path as it was recorded on the host into the one that it has here.
        flush_first: Called with the references before they are looked up. It sends what an outbox beside a
            checkpoint still holds of them (ruling 18), or raises TemporaryError naming both versions.
        stall: Seconds without a byte after which a download's connection is given up and another tried.
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
        self._project = project or environ.get("WANDB_PROJECT") or None
        self._entity = entity or environ.get("WANDB_ENTITY") or None
        self._cache_directory = cache_directory
        self._environ = environ
        self._messages = messages
        self._localise = localise or (lambda path: path)
        self._flush_first = flush_first
        self._stall = stall

    def resolve(self, references: Sequence[Reference], *, progress: Progress, timeout: float) -> list[Artifact]:
        """Pin every reference to a version whose `path` exists here, in the order given.

        Args:
            references: All that the job names; looked up and downloaded at the same time.
            progress: Told of every download, also while it waits for another launcher's.
            timeout: Bound on the whole call, seconds: when it is over, the child process is ended.

        Raises:
            LaunchError: No or wrong key, no access, unknown entity, project, artifact or version, cache not ours.
            TemporaryError: Server or network down, time over, disk full, bytes that stay wrong.
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
        with _Child(_child_environ(self._environ, debug is None), credentials.key, debug) as child:
            try:
                return self._converse(child, request, references, progress, display, deadline)
            finally:
                display.close()

    def _converse(
        self,
        child: _Child,
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
                # A new attempt is life, as bytes are: the child bounds their number.
                progress(f"W&B: {message['found']}")
                what = message.get("what", "")
                if self._messages is not None and what not in told:
                    self._messages.info(f"{message['found']}: trying again")
                told.add(what)
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


def _child_environ(environ: Mapping[str, str], silent: bool) -> dict[str, str]:
    child = {name: value for name, value in environ.items() if name not in _DROPPED}
    child.update({"WANDB_SILENT": "true" if silent else "false", "WANDB_CONSOLE": "off"})
    # Of the service process: enough tries for a restart of the server, the cause in the error when they are used up.
    child.setdefault("WANDB__GRAPHQL_RETRY_WAIT_MIN_SECONDS", "1")
    child.setdefault("WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS", "15")
    return child


class _Child:
    """The process that talks to W&B, in a process group of its own.

    Args:
        environ: Its environment.
        secret: The API key, which no message may show.
        debug: Told of each line of its stderr; None for nobody.
    """

    def __init__(
        self, environ: Mapping[str, str], secret: str | None, debug: Callable[[str], None] | None = None
    ) -> None:
        self._environ = dict(environ)
        self._secret = secret
        self._debug = debug
        self._shown = 0
        self._buffer = b""
        self._known: dict[int, float] = {}

    def __enter__(self) -> _Child:
        try:
            self._start()
        except OSError as error:
            if hasattr(self, "_scratch"):
                self._scratch.cleanup()
            where = f" ({error.filename})" if error.filename else ""
            raise TemporaryError(
                "to start the process that talks to W&B",
                f"{(error.strerror or str(error)).lower()}{where}",
                "Look at memory, processes and the space in TMPDIR on this node",
            ) from None
        return self

    def _start(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="nemotron-exec-wandb-", ignore_cleanup_errors=True)
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            self._environ[name] = self._scratch.name  # nothing of the client's is kept, and home may be read-only
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START.format(path=path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=self._environ,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
            self._show(whole=True)
        finally:
            self._selector.close()
            for stream in (self._process.stdin, self._process.stdout, self._stderr):
                with contextlib.suppress(OSError):
                    assert stream is not None
                    stream.close()
            self._scratch.cleanup()

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said is read next
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, deadline: float, tick: Callable[[], None]) -> dict[str, Any]:
        """The next message; `{"say": "end"}` if it has ended, `{"say": "late"}` if the time is over."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                return {"say": "late"}
            if self._selector.select(min(left, 0.2)):
                with contextlib.suppress(BlockingIOError):
                    data = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not data:
                        return {"say": "end"}
                    self._buffer += data
            tick()
            self._show()
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line.decode("utf-8", "replace"))
        # Values only: a key that is no more than a letter would be in the names of the fields, too.
        return {name: value if name == "say" else self._redacted(value) for name, value in message.items()}

    def failure(self, kind: str | None, message: Mapping[str, Any], wanted: str) -> LaunchError:
        """The error of a child that did not finish."""
        if kind == "late":
            remedy = "Give it more time with --timeout, or look why W&B is slow; what was downloaded is kept"
            return TemporaryError(wanted, "the time is over", remedy)
        self._stderr.seek(0)
        tail = self._redact(self._stderr.read().decode("utf-8", "replace"))[-2000:].strip()
        last = tail.splitlines()[-1] if tail else f"exit code {self._process.poll()}"
        found = f"the process that talks to W&B failed: {message.get('found') or last}"
        return TemporaryError(wanted, found, "Start the job again; report it if it stays so")

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._redacted(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._redacted(one) for one in value]
        return self._redact(value) if isinstance(value, str) else value

    def _show(self, whole: bool = False) -> None:
        """Under `-v`, what is new on its stderr; `whole` also what lacks the end of its line."""
        # The position of the file is the child's, too: it must not be moved.
        new = os.pread(self._stderr.fileno(), 1 << 20, self._shown) if self._debug is not None else b""
        new = new if whole else new[: new.rfind(b"\n") + 1]
        self._shown += len(new)
        for line in self._redact(new.decode("utf-8", "replace")).splitlines():
            if line.strip() and self._debug is not None:
                self._debug(f"W&B's client: {line}")

    def _redact(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    def _end(self) -> None:
        """End the whole group; nothing of it is left, not even a zombie, when the job begins."""
        descendants = self._descendants()
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()
        # Orphans become ours where we are process 1 of a container; then they are ours to reap.
        until = time.monotonic() + 2
        while descendants and time.monotonic() < until:
            for pid in list(descendants):
                try:
                    reaped = os.waitpid(pid, os.WNOHANG)[0] == pid
                except ChildProcessError:
                    reaped = True
                if reaped:
                    descendants.remove(pid)
            if descendants:
                time.sleep(0.01)

    def _descendants(self) -> list[int]:
        import psutil

        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self._process.pid).children(recursive=True)]
        return []

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
