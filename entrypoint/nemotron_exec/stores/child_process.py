"""A process in the launcher's own Python that talks to a server, and has ended before the job begins.

The client of a server brings threads, exit hooks and service processes, and blocks where no signal reaches it. A
process of its own ends when the launcher ends it. They exchange JSON lines: requests on its stdin, messages on its
stdout.
"""

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

from nemotron_exec.errors import TemporaryError
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nemotron_exec.errors import LaunchError

__all__ = ["ChildProcess"]

_START = "import sys; sys.path[:] = {path!r}; from {module} import main; main()"
_GRACE = 1.5  # seconds for an interrupted child to release its lease


class ChildProcess:
    """The process, in a process group of its own. As a context manager it starts and ends the process.

    Args:
        module: The module whose `main` the process runs.
        server: The server, for messages: "W&B", "the Hugging Face hub".
        environ: Environment of the process.
        secrets: Texts that no message may show.
        scratch: Variables that are set to a private directory, which is removed with the process.
        debug: Called with each line of its stderr; None drops them.
    """

    def __init__(
        self,
        module: str,
        *,
        server: str,
        environ: Mapping[str, str],
        secrets: Sequence[str] = (),
        scratch: Sequence[str] = (),
        debug: Callable[[str], None] | None = None,
    ) -> None:
        self._module = module
        self._server = server
        # The flags `-IS` make Python ignore all other variables of the job's Python.
        self._environ = {name: value for name, value in environ.items() if name != "PYTHONEXECUTABLE"}
        self._secrets = [secret for secret in secrets if secret]
        self._scratch_variables = scratch
        self._debug = debug
        self._shown = 0
        self._buffer = b""

    def __enter__(self) -> ChildProcess:
        try:
            self._start()
        except OSError as error:
            if hasattr(self, "_scratch"):
                self._scratch.cleanup()
            where = f" ({error.filename})" if error.filename else ""
            raise TemporaryError(
                f"to start the process that talks to {self._server}",
                f"{(error.strerror or str(error)).lower()}{where}",
                "Look at memory, processes and the space in TMPDIR on this node",
            ) from None
        return self

    def _start(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="nemotron-exec-store-", ignore_cleanup_errors=True)
        self._environ |= dict.fromkeys(self._scratch_variables, self._scratch.name)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        path = [absolute(entry) for entry in sys.path if entry]
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _START.format(path=path, module=self._module)],
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
        """Send a request to the process. If it has ended, `receive` reports it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, deadline: float, tick: Callable[[], None]) -> dict[str, Any]:
        """The next message; `{"say": "end"}` if the process has ended, `{"say": "late"}` if the time is over.

        Args:
            deadline: `time.monotonic()` at which waiting ends.
            tick: Called a few times a second while waiting.
        """
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
        # Redact values only: a secret of one letter would also stand in the names of the fields.
        return {name: value if name == "say" else self._redacted(value) for name, value in message.items()}

    def failure(self, kind: str | None, message: Mapping[str, Any], wanted: str) -> LaunchError:
        """The error for a child that did not finish."""
        if kind == "late":
            remedy = (
                f"Give it more time with --timeout, or look why {self._server} is slow; "
                "downloaded files stay in the cache"
            )
            return TemporaryError(wanted, "the time limit (--timeout) has passed", remedy)
        self._stderr.seek(0)
        tail = self._redact(self._stderr.read().decode("utf-8", "replace"))[-2000:].strip()
        last = tail.splitlines()[-1] if tail else f"exit code {self._process.poll()}"
        found = f"the process that talks to {self._server} failed: {message.get('found') or last}"
        return TemporaryError(wanted, found, "Start the job again; report it if it stays so")

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._redacted(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._redacted(one) for one in value]
        return self._redact(value) if isinstance(value, str) else value

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _show(self, whole: bool = False) -> None:
        """Under `-v`, show the new lines of its stderr; with `whole` also a last line without its end."""
        # The child shares the position of the file, so it must not be moved.
        new = os.pread(self._stderr.fileno(), 1 << 20, self._shown) if self._debug is not None else b""
        new = new if whole else new[: new.rfind(b"\n") + 1]
        self._shown += len(new)
        for line in self._redact(new.decode("utf-8", "replace")).splitlines():
            if line.strip() and self._debug is not None:
                self._debug(f"{self._server}'s client: {line}")

    def _end(self) -> None:
        """End the whole process group, so that not even a zombie is left when the job begins."""
        descendants = self._descendants()
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()
        # If the launcher is process 1 of a container, orphans become its children, and it must reap them.
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
