"""The HTTP side: API, files with redirects, rate limits, faults and the log."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_backend import upload
from hub_backend.faults import Fault, Faults
from hub_backend.model import Commit, File, Model, Repository
from hub_backend.xet import reconstruction, xet_hash, xorb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["TOKEN", "Hub", "Operation", "RateLimit"]

TOKEN = "hf_" + "LoopbackOnly" * 3  # has the form of a hub token, and is no real one
_API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|refs|tree)(?:/(.+))?)?\Z")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)\Z")
_CACHED = re.compile(r"/api/resolve-cache/(model|dataset)s/([^/]+/[^/]+)/([^/]+)/(.+)\Z")
_XET_TOKEN = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)/xet-read-token/([^/]+)\Z")
_PUBLIC = ("README.md", ".gitattributes")  # files of a gated repository that everybody may read
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Operation:
    """One request that was answered.

    Attributes:
        name: `info org/model@main`, `refs org/model`, `tree org/model@COMMIT`, `HEAD org/model/config.json`,
            `GET org/model/config.json`, `LFS org/model/model.safetensors`, `xet-token org/model`, `xet HASH`
            (which blocks), `XORB HASH`; a dataset's id begins with `datasets/`.
        status: HTTP status.
        at: Seconds since the hub started.
        user_agent: The client's User-Agent.
        token: Whether the request had a token.
        sent: Bytes of the body that left.
    """

    name: str
    status: int = 200
    at: float = 0.0
    user_agent: str = ""
    token: bool = False
    sent: int = 0


@dataclass
class RateLimit:
    """A fixed window over all requests of one bucket: "api" for the API, "resolvers" for files.

    Attributes:
        quota: Requests a window.
        window: Length of the window in seconds.
    """

    quota: int
    window: float
    _began: float = -1e9
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, bucket: str) -> tuple[bool, dict[str, str]]:
        """Whether one more request is allowed, and the headers with the remaining quota."""
        with self._lock:
            now = time.monotonic()
            if now - self._began >= self.window:
                self._began, self._used = now, 0
            allowed = self._used < self.quota
            self._used += allowed
            reset = max(0, round(self._began + self.window - now))
            return allowed, {
                "RateLimit": f'"{bucket}";r={self.quota - self._used};t={reset}',
                "RateLimit-Policy": f'"fixed window";"{bucket}";q={self.quota};w={round(self.window)}',
            }


class Hub:
    """A hub on 127.0.0.1, in a thread of this process.

    Attributes:
        model: The repositories.
        log: Every request, in the order of its answer.
        unknown: Unknown paths that were requested: a test may assert that there are none.
        limits: Rate limits by bucket; none for no limit.
        tokens: Tokens that are accepted.
        page: Entries on one page of a tree listing.
        bandwidth: Bytes a second on each download; None for no limit.
        latency: Seconds before each answer.
        xet_url: The address of Xet storage for clients.
    """

    def __init__(self) -> None:
        self.model = Model()
        self.log: list[Operation] = []
        self.unknown: list[str] = []
        self.limits: dict[str, RateLimit] = {}
        self.tokens = {TOKEN}
        self.page = 1000
        self.bandwidth: float | None = None
        self.latency = 0.0
        self.faults = Faults()
        self.closed = threading.Event()
        self._started = time.monotonic()
        self._changed = threading.Condition()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        # LFS objects come from another host than the API, to which no client may send its token.
        self.lfs_url = self.url.replace("127.0.0.1", "localhost")
        self.xet_url = f"{self.url}/xet"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; stalled downloads end, too."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    # ------------------------------------------------------------------ for tests

    def seed(self, name: str, files: dict[str, bytes], **what: Any) -> str:
        """`Model.seed`."""
        return self.model.seed(name, files, **what)

    def fail(self, name: str, **how: Any) -> Fault:
        """Order a fault; see `faults.Fault` for what can be ordered."""
        fault = Fault(name, **how)
        self.faults.add(fault)
        return fault

    def operations(self, pattern: str = ".*") -> int:
        """The number of answered requests whose name matches the whole of a regular expression."""
        return len(self.find(pattern))

    def find(self, pattern: str = ".*") -> list[Operation]:
        """The requests whose name matches the whole of a regular expression."""
        with self._changed:
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
                    raise TimeoutError(f"{len(found)} of {count} requests {pattern!r}; there were: {names}")
            return found

    def environ(self, home: Path | None = None, *, token: str | None = None) -> dict[str, str]:
        """Environment of a process that uses this hub.

        Args:
            home: `HF_HOME`.
            token: Token; None for none.
        """
        environ = {
            "HF_ENDPOINT": self.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        if home is not None:
            environ["HF_HOME"] = str(home)
        if token is not None:
            environ["HF_TOKEN"] = token
        return environ

    # ------------------------------------------------------------------ for the handler

    def record(self, operation: Operation) -> None:
        with self._changed:
            self.log.append(operation)
            self._changed.notify_all()

    def clock(self) -> float:
        return time.monotonic() - self._started

    def pause(self, seconds: float) -> None:
        """Wait, but end when the hub closes."""
        if seconds > 0:
            self.closed.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Many tests let a client leave in the middle: keep that out of the test's output."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _limit: dict[str, str]
    _fault: Fault | None

    def log_message(self, format: str, *args: Any) -> None:
        """The log is `Hub.log`."""

    def setup(self) -> None:
        super().setup()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        uploaded = upload.answer(self.hub.model, self.hub.url, unquote(urlsplit(self.path).path), body)
        if uploaded is None:
            self._route()
        else:
            self._limit, self._fault = {}, None
            self._answer(uploaded[0], 200, uploaded[1])

    def _route(self) -> None:
        self._limit, self._fault = {}, None
        self.hub.pause(self.hub.latency)
        address = urlsplit(self.path)
        path, query = address.path, parse_qs(address.query)
        if found := _API.match(path):
            self._api(*found.groups(), query)
        elif found := _FILE.match(path):
            datasets, name, revision, file = found.groups()
            self._resolve("dataset" if datasets else "model", name, unquote(revision), unquote(file))
        elif found := _CACHED.match(path):
            kind, name, revision, file = found.groups()
            self._resolve(kind, name, unquote(revision), unquote(file), cached=True)
        elif path.startswith("/lfs/"):
            self._lfs(path.removeprefix("/lfs/"))
        elif (found := _XET_TOKEN.match(path)) or path.startswith("/xet/"):
            self._xet(found, path.rpartition("/")[2])
        elif path == "/api/whoami-v2":
            known = self._token() in self.hub.tokens
            self._answer("whoami", 200 if known else 401, {"name": "somebody", "type": "user"} if known else {})
        elif path == "/api/agent-harnesses":
            # huggingface_hub from 2.0 on requests this once a day, to name its starter in the User-Agent.
            self._answer("harnesses", 200, {"standardEnvVars": [], "harnesses": {}})
        else:
            self.hub.unknown.append(f"{self.command} {path}")
            self._answer(f"{self.command} {path}", 404, {"error": "no such page"})

    # ------------------------------------------------------------------

    def _token(self) -> str | None:
        kind, _, given = (self.headers.get("Authorization") or "").partition(" ")
        return given if kind.lower() == "bearer" and given else None

    def _api(self, kind: str, name: str, what: str | None, rest: str | None, query: dict[str, list[str]]) -> None:
        shown = f"datasets/{name}" if kind == "dataset" else name
        revision = unquote(rest or "main") if what != "tree" else unquote((rest or "main").partition("/")[0])
        operation = f"refs {shown}" if what == "refs" else f"{'tree' if what == 'tree' else 'info'} {shown}@{revision}"
        if self._refused(operation, "api"):
            return
        repository = self._repository(operation, kind, name)
        if repository is None:
            return
        if what == "refs":
            self._answer(operation, 200, repository.refs())
            return
        commit = repository.commit(revision)
        if commit is None:
            self._error(operation, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif what == "tree":
            self._tree(operation, repository.tree(commit), int(query.get("cursor", ["0"])[0]))
        else:
            self._answer(operation, 200, repository.info(commit, blobs="blobs" in query))

    def _tree(self, operation: str, entries: list[dict[str, Any]], start: int) -> None:
        end = start + self.hub.page
        headers = {}
        if end < len(entries):
            address = urlsplit(self.path)
            headers["Link"] = f'<{self.hub.url}{address.path}?recursive=true&cursor={end}>; rel="next"'
        self._answer(operation, 200, entries[start:end], headers)

    def _repository(self, operation: str, kind: str, name: str) -> Repository | None:
        """The repository; None if this client may not know of it, after an answer that it does not exist."""
        token = self._token()
        if token is not None and token not in self.hub.tokens:
            self._error(operation, 401, None, "Invalid credentials in Authorization header")
            return None
        repository = self.hub.model.find(kind, name)
        if repository is None or (repository.private and token is None):
            if token is None:  # the same answer as for a private repository, so that names stay secret
                self._error(operation, 401, None, "Invalid username or password.")
            else:
                self._error(operation, 404, "RepoNotFound", "Repository not found")
            return None
        return repository

    def _resolve(self, kind: str, name: str, revision: str, path: str, *, cached: bool = False) -> None:
        shown = f"datasets/{name}" if kind == "dataset" else name
        operation = f"{self.command} {shown}/{path}"
        if self._refused(operation, "resolvers"):
            return
        repository = self._repository(operation, kind, name)
        if repository is None:
            return
        commit = repository.commit(revision)
        file = commit.files.get(path) if commit else None
        if repository.gated and path not in _PUBLIC and self._token() not in repository.admitted:
            known = self._token() is not None
            message = f"Access to {kind} {name} is restricted" + (
                " and you are not in the authorized list." if known else ". You must be authenticated to access it."
            )
            self._error(operation, 403 if known else 401, "GatedRepo", message)
        elif commit is None:
            self._error(operation, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif file is None:
            self._error(operation, 404, "EntryNotFound", "Entry not found")
        else:
            self._send_or_redirect(operation, repository, commit, file, cached)

    def _send_or_redirect(
        self, operation: str, repository: Repository, commit: Commit, file: File, cached: bool
    ) -> None:
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            shown = operation.partition(" ")[2]
            headers |= {
                "X-Linked-Size": str(len(file.content)),
                "X-Linked-ETag": f'"{file.sha256}"',
                "Location": f"{self.hub.lfs_url}/lfs/{file.sha256}/{quote(shown)}?Signature=presigned",
            }
            if repository.xet:
                token = f"{self.hub.url}/api/{repository.kind}s/{repository.id}/xet-read-token/{commit.sha}"
                headers |= {"X-Xet-Hash": xet_hash(file.content), "Link": f'<{token}>; rel="xet-auth"'}
            self._answer(operation, 302, None, headers)
        elif not cached:
            # The hub sends a client from the branch to the commit's own address, by a relative redirect.
            headers["Location"] = (
                f"/api/resolve-cache/{repository.kind}s/{repository.id}/{commit.sha}/{quote(file.path)}"
            )
            self._answer(f"redirect {operation}", 307, None, headers)
        else:
            self._send(operation, file.content, headers)

    def _lfs(self, rest: str) -> None:
        sha, _, shown = rest.partition("/")
        operation = f"LFS {unquote(shown)}"
        if self._refused(operation, None):
            return
        for file in self._all_files():
            if file.lfs and file.sha256 == sha:
                self._send(operation, file.content, {"ETag": f'"{sha}"', "Accept-Ranges": "bytes"})
                return
        self._answer(operation, 404, {})

    def _xet(self, found: re.Match[str] | None, name: str) -> None:
        """Xet storage: the token for it, the blocks of a file, one block."""
        if found:
            operation = f"xet-token {'datasets/' if found.group(1) == 'dataset' else ''}{found.group(2)}"
            if not self._refused(operation, "api"):
                given = {
                    "Access-Token": "xet",
                    "Token-Expiration": str(int(time.time()) + 3600),
                    "Cas-Url": self.hub.xet_url,
                }
                self._answer(operation, 200, {}, {f"X-Xet-{key}": value for key, value in given.items()})
            return
        block = self.path.startswith("/xet/xorbs/")
        if self._refused(f"{'XORB' if block else 'xet'} {name}", None):
            return
        content = next((file.content for file in self._all_files() if xet_hash(file.content) == name), None)
        if content is None or "/v2/" in self.path or self.command == "POST":
            self._answer(
                f"no xet {self.path}", 404, {}
            )  # the client falls back to version 1, and goes on without telemetry
        elif block:
            self._send(f"XORB {name}", xorb(content), {})
        else:
            self._answer(f"xet {name}", 200, reconstruction(content, f"{self.hub.url}/xet/xorbs/{name}"))

    def _all_files(self) -> Iterator[File]:
        for repository in self.hub.model.repositories.values():
            for commit in repository.commits.values():
                yield from commit.files.values()

    # ------------------------------------------------------------------

    def _refused(self, operation: str, bucket: str | None) -> bool:
        """Whether a rate limit or a fault has replaced the answer. A fault of the body is applied later."""
        if bucket in self.hub.limits:
            allowed, self._limit = self.hub.limits[bucket].count(bucket)
            if not allowed:
                self._error(operation, 429, None, "We had to rate limit you")
                return True
        self._fault = fault = self.hub.faults.take(operation)
        if fault is None:
            return False
        self.hub.pause(fault.delay)
        if fault.hang_up:
            self._record(operation, 0)
            self._hang_up()
            return True
        if fault.status is not None:
            self._limit = {**self._limit, **fault.headers}
            self._error(operation, fault.status, None, fault.message)
            return True
        return False

    def _error(self, operation: str, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._answer(operation, status, {"error": message}, headers)

    def _answer(self, operation: str, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self._record(operation, status, len(data))
        self._head(status, len(data), {"Content-Type": "application/json", **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in {**self._limit, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, operation: str, content: bytes, headers: dict[str, str]) -> None:
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and int(asked.group(1)) < len(content):
            start, status = int(asked.group(1)), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.command == "HEAD":
            self._record(operation, status)
            self._head(status, len(content), headers)
            return
        sent = 0
        try:
            self._head(status, len(content) - start, headers)
            for chunk in self._body(content, start):
                self.wfile.write(chunk)
                sent += len(chunk)
        finally:
            self._record(operation, status, sent)

    def _body(self, content: bytes, start: int) -> Iterator[bytes]:
        fault, end = self._fault, len(content)
        limit = end
        if fault and fault.corrupt:
            middle = (start + end) // 2
            content = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        for bound in (fault.cut, fault.stall) if fault else ():
            limit = min(limit, start + bound) if bound is not None else limit
        began, at = time.monotonic(), start
        step = _CHUNK if not self.hub.bandwidth else max(1, int(self.hub.bandwidth / 20))
        while at < limit:
            chunk = content[at : min(at + step, limit)]
            if self.hub.bandwidth:
                self.hub.pause((at - start) / self.hub.bandwidth - (time.monotonic() - began))
            yield chunk
            at += len(chunk)
        if limit < end:
            self.wfile.flush()
            if fault and fault.stall is not None:
                while not self.hub.closed.wait(0.1) and not self._client_left():
                    pass
            self._hang_up()

    def _hang_up(self) -> None:
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

    def _record(self, operation: str, status: int, sent: int = 0) -> None:
        agent = self.headers.get("User-Agent") or ""
        self.hub.record(Operation(operation, status, self.hub.clock(), agent, self._token() is not None, sent))
