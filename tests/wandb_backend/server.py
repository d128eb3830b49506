"""The HTTP side: GraphQL, presigned-like file URLs, file stream; faults, latency and the log."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from wandb_backend.faults import Fault, Faults
from wandb_backend.graphql import GraphQL, GraphQLError, UnknownOperationError
from wandb_backend.model import Blob, Model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wandb_backend.model import Version

__all__ = ["API_KEY", "Backend", "Operation"]

API_KEY = "local-" + "a1b2c3d4e5" * 4  # has the form that the client requires, and is no real key
_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")
_CHUNK = 1 << 20


def _nameless(query: str) -> str:
    """Older clients verify a key with `query { viewer { id } }`."""
    return "Viewer" if "viewer" in query else "anonymous"


@dataclass(frozen=True)
class Operation:
    """One request that was answered.

    Attributes:
        name: GraphQL operation name, or `GET <artifact name>/<file>`, `PUT …`, `file_stream`.
        variables: GraphQL variables; for a file `{"range": …}`.
        status: HTTP status.
        at: Seconds since the backend started.
        user_agent: The client's User-Agent.
        sent: Bytes of the body that left.
    """

    name: str
    variables: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    at: float = 0.0
    user_agent: str = ""
    sent: int = 0


class Backend:
    """A W&B server on 127.0.0.1, in a thread of this process.

    Attributes:
        model: The state; see model.py for `seed` and `link`.
        log: Every request, in the order of its answer.
        unknown: Names of unknown GraphQL operations that were requested: a test may assert that there are none.
        latency: Seconds before each answer.
        commit_delay: Seconds before CommitArtifact is done.
        bandwidth: Bytes a second on each download; None for no limit.
        ranges: Whether it answers a range request with that range.
        keys: API keys that are accepted.
        required_headers: Headers that a front end requires: a request without them is answered 403.
        unauthorized_status: The status of the answer to a query without a key, if a front end gives another than 401.
        identity_tokens: Tokens that /oidc/token exchanges for a key.
    """

    def __init__(self, *, default_entity: str | None = "team", latency: float = 0.0) -> None:
        self.model = Model(default_entity=default_entity)
        self.log: list[Operation] = []
        self.unknown: list[str] = []
        self.latency = latency
        self.commit_delay = 0.0
        self.bandwidth: float | None = None
        self.ranges = True
        self.keys = {API_KEY}
        self.required_headers: dict[str, str] = {}
        self.unauthorized_status = 401
        self.identity_tokens: set[str] = set()
        self.faults = Faults()
        self.closed = threading.Event()
        self.released = threading.Event()
        self._started = time.monotonic()
        self._log_lock = threading.Lock()
        self._changed = threading.Condition(self._log_lock)
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.graphql = GraphQL(self.model, self.url)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; stalled downloads end, too."""
        self.closed.set()
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    # ------------------------------------------------------------------ for tests

    def seed(self, path: str, **what: Any) -> Version:
        """`Model.seed`."""
        return self.model.seed(path, **what)

    def fail(self, name: str, **how: Any) -> Fault:
        """Order a fault; see `faults.Fault` for what can be ordered."""
        fault = Fault(name, **how)
        self.faults.add(fault)
        return fault

    def operations(self, name: str) -> int:
        """The number of answered requests of that name (GraphQL operation, or `GET name/file`)."""
        return len(self.find(name))

    def find(self, pattern: str) -> list[Operation]:
        """The requests whose name matches the whole of a regular expression."""
        with self._log_lock:
            return [operation for operation in self.log if re.fullmatch(pattern, operation.name)]

    def wait_for(self, pattern: str, count: int = 1, timeout: float = 30.0) -> list[Operation]:
        """Wait until `count` requests match; then return them.

        Raises:
            TimeoutError: They did not come.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := [item for item in self.log if re.fullmatch(pattern, item.name)]) < count:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    names = ", ".join(operation.name for operation in self.log)
                    raise TimeoutError(
                        f"{len(found)} of {count} requests {pattern!r} in {timeout:g} s; there were: {names}"
                    )
            return found

    def environ(self, home: Path | None = None, *, key: str | None = API_KEY) -> dict[str, str]:
        """The variables with which a process uses this server, and leaves the real home alone.

        Args:
            home: Directory for everything that wandb writes.
            key: API key; None for none.
        """
        environ = {
            "WANDB_BASE_URL": self.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "off",
            "WANDB_ERROR_REPORTING": "false",
        }
        if key is not None:
            environ["WANDB_API_KEY"] = key
        if home is not None:
            for variable, name in (
                ("HOME", "home"),
                ("XDG_CACHE_HOME", "xdg-cache"),
                ("XDG_CONFIG_HOME", "xdg-config"),
                ("XDG_DATA_HOME", "xdg-data"),
                ("WANDB_CACHE_DIR", "wandb-cache"),
                ("WANDB_CONFIG_DIR", "wandb-config"),
                ("WANDB_DATA_DIR", "wandb-data"),
                ("WANDB_ARTIFACT_DIR", "wandb-artifacts"),
                ("WANDB_DIR", "wandb-dir"),
            ):
                (home / name).mkdir(parents=True, exist_ok=True)
                environ[variable] = str(home / name)
        return environ

    # ------------------------------------------------------------------ for the handler

    def record(self, name: str, variables: dict[str, Any], status: int, agent: str, sent: int = 0) -> None:
        with self._changed:
            at = time.monotonic() - self._started
            self.log.append(Operation(name, variables, status, at, agent, sent))
            self._changed.notify_all()

    def release(self) -> None:
        """Finish every commit that waits for its delay, and delay none from now on."""
        self.released.set()

    def pause(self, seconds: float) -> None:
        """Wait, but end when the server closes."""
        if seconds > 0:
            self.closed.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Many tests let a client leave in the middle: keep that out of their output."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """The log is `Backend.log`."""

    def setup(self) -> None:
        super().setup()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def backend(self) -> Backend:
        return self.server.backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path.rstrip("/").endswith("/graphql"):
            self._graphql(body)
        elif path.endswith("/file_stream"):
            self._file_stream(path, body)
        elif path == "/oidc/token":
            self._exchange(parse_qs(body.decode()))
        else:
            self._answer(path, {}, 404, b"{}")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/storage/"):
            self._download(path.removeprefix("/storage/"))
        elif path.startswith("/artifactsV2/"):
            self._answer(path, {}, 404, b"{}")
        else:
            self._answer(f"GET {path}", {}, 404, b"{}")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        name = f"PUT {self._shown(path.removeprefix('/storage/'))}"
        if self._refused(name, "PUT"):
            return
        if path.startswith("/storage/"):
            self.backend.model.blobs[path.removeprefix("/storage/")] = Blob(body)
        elif path.startswith("/run-files/"):
            entity, project, run, file = path.removeprefix("/run-files/").split("/", 3)
            found = self.backend.model.runs.get((entity, project, run))
            if found is not None:
                found.files[file] = body
        self._answer(name, {}, 200, b"")

    # ------------------------------------------------------------------

    def _authorized(self) -> bool:
        kind, _, given = (self.headers.get("Authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            return given in self.backend.keys
        with contextlib.suppress(ValueError):
            return base64.b64decode(given).decode().partition(":")[2] in self.backend.keys
        return False

    def _exchange(self, form: dict[str, list[str]]) -> None:
        """Exchange an identity token for a key, as wandb/sdk/lib/credentials.py requests it."""
        known = form.get("assertion", [""])[0] in self.backend.identity_tokens
        answer = {"access_token": API_KEY, "token_type": "bearer", "expires_in": 3600} if known else {}
        self._answer("oidc/token", {}, 200 if known else 401, json.dumps(answer).encode())

    def _let_in(self, name: str) -> bool:
        """Whether the request has the headers that the front end requires."""
        for header, value in self.backend.required_headers.items():
            given = self.headers.get(header)
            if given != value:
                self._answer(name, {"refused": header}, 403, b"<html>the front says no</html>")
                return False
        return True

    def _graphql(self, body: bytes) -> None:
        request = json.loads(body or b"{}")
        query, variables = request.get("query") or "", request.get("variables") or {}
        if isinstance(variables, str):
            variables = json.loads(variables or "{}")
        found = _OPERATION.search(query)
        name = request.get("operationName") or (found.group(1) if found else _nameless(query))
        self.backend.pause(self.backend.latency)
        if self._refused(name, "graphql", variables=variables):
            return
        if not self._authorized():
            message = {"errors": [{"message": "user is not logged in"}], "data": None}
            self._answer(name, variables, self.backend.unauthorized_status, json.dumps(message).encode())
            return
        if name == "CommitArtifact":
            self.backend.released.wait(self.backend.commit_delay)
        status, answer = 200, {}
        try:
            answer = {"data": self.backend.graphql.answer(name, query, variables)}
        except GraphQLError as error:
            if isinstance(error, UnknownOperationError):
                self.backend.unknown.append(name)
            status, answer = error.status, {"errors": [{"message": str(error)}], "data": None}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # The variables have an unknown form. Give an answer that no client retries, and note it for the test.
            self.backend.unknown.append(f"{name}: {error!r}")
            status, answer = 400, {"errors": [{"message": f"{name}: {error!r}"}], "data": None}
        self._answer(name, variables, status, json.dumps(answer).encode())

    def _file_stream(self, path: str, body: bytes) -> None:
        self.backend.pause(self.backend.latency)
        if self._refused("file_stream"):
            return
        _, _, entity, project, name, _ = path.split("/")
        data = json.loads(body or b"{}")
        run = self.backend.model.runs.get((entity, project, name))
        if run is not None:
            # Each line has a number, so a line that is sent twice is stored once.
            sent = (data.get("files") or {}).get("wandb-history.jsonl", {})
            lines = [json.loads(line) for line in sent.get("content", [])]
            start = sent.get("offset", len(run.history))
            run.history[start : start + len(lines)] = lines
            if data.get("complete"):
                run.exit_code = int(data.get("exitcode") or 0)
        self._answer("file_stream", {"run": name}, 200, b'{"exitcode": null, "limits": {}}')

    def _shown(self, path: str) -> str:
        """`artifact/file` for a storage path, which begins with the artifact's id."""
        identifier, _, file = path.partition("/")
        version = self.backend.model.versions.get(identifier)
        return f"{version.collection}/{file}" if version else path

    def _refused(self, name: str, *also: str, variables: dict[str, Any] | None = None) -> bool:
        """Whether a fault has replaced the answer. A fault of the body is applied later."""
        self._spoil = fault = self.backend.faults.take(name, *also)
        if not self._let_in(name):
            return True
        if fault is None:
            return False
        self.backend.pause(fault.delay)
        if fault.hang_up:
            self.backend.record(name, variables or {}, 0, self.headers.get("User-Agent") or "")
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return True
        if fault.null:
            self._answer(name, variables or {}, 200, b'{"data": {}}')
            return True
        if fault.status is not None:
            body = json.dumps({"errors": [{"message": fault.message}], "data": None}).encode()
            retry = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            self._answer(name, variables or {}, fault.status, body, retry)
            return True
        return False

    def _answer(
        self, name: str, variables: dict[str, Any], status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        # Record the request before the answer: a test that has the answer may read the log at once.
        self.backend.record(name, variables, status, self.headers.get("User-Agent") or "", len(body))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _download(self, path: str) -> None:
        name = f"GET {self._shown(path)}"
        self.backend.pause(self.backend.latency)
        if self._refused(name, "GET"):
            return
        fault = self._spoil
        identifier, _, file = path.partition("/")
        version = self.backend.model.versions.get(identifier)
        blob = self.backend.model.blobs.get(path)
        if blob is None and version is not None and file == "wandb_manifest.json":
            blob = Blob(json.dumps(version.manifest).encode())
        if blob is None:
            self._answer(name, {}, 404, b'{"error": "no such file"}')
            return
        start, status, length = 0, 200, blob.length
        end = length - 1 if fault and fault.short else length
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and int(asked.group(1)) < length and self.backend.ranges:
            start, status = int(asked.group(1)), 206
            end = min(end, int(asked.group(2) or end) + 1)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{length}")
        self.end_headers()
        sent = 0
        try:
            for chunk in self._body(blob, start, end, fault):
                self.wfile.write(chunk)
                sent += len(chunk)
        finally:
            variables = {"range": self.headers.get("Range")} if self.headers.get("Range") else {}
            self.backend.record(name, variables, status, self.headers.get("User-Agent") or "", sent)

    def _body(self, blob: Blob, start: int, end: int, fault: Fault | None) -> Iterator[bytes]:
        limit = end
        if fault and fault.cut is not None:
            limit = min(end, start + fault.cut)
        if fault and fault.stall is not None:
            limit = min(end, start + fault.stall)
        spoiled = (start + end) // 2 if fault and fault.corrupt else -1
        began, at = time.monotonic(), start
        while at < limit:
            chunk = blob.read(at, min(_CHUNK, limit - at))
            if at <= spoiled < at + len(chunk):
                flipped = bytearray(chunk)
                flipped[spoiled - at] ^= 0xFF
                chunk = bytes(flipped)
            if self.backend.bandwidth:
                self.backend.pause((at - start) / self.backend.bandwidth - (time.monotonic() - began))
            yield chunk
            at += len(chunk)
        if limit < end:
            self.wfile.flush()
            if fault and fault.stall is not None:
                while not self.backend.closed.wait(0.2) and not self._client_left():
                    pass
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _client_left(self) -> bool:
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
