"""The client's settings lead to its server: a private certificate authority, a proxy. Errors name missing ones."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.stores.wandb.server import trusted_bundle
from nemotron_exec.stores.wandb.store import WandbStore
from wandb_backend import API_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wandb_backend import Backend


def _resolve(environ: dict[str, str], cache: Path) -> Any:
    store = WandbStore(
        project="nemotron",
        entity="team",
        cache_directory=str(cache),
        environ=environ,
        messages=Messages(stream=io.StringIO()),
    )
    reference = parse_reference("data", "data:latest", Origin("cfg.yaml", 1))
    return store.resolve([reference], progress=lambda *_: None, timeout=90)[0]


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _listening(connected: Callable[[socket.socket], tuple[socket.socket, socket.socket] | None]) -> Iterator[int]:
    """A port. For each client, `connected` gives two sockets to join, or None to close the client."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                joined = connected(client)
            except OSError:
                joined = None
            if joined is None:
                client.close()
                continue
            for source, sink in (joined, joined[::-1]):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@contextlib.contextmanager
def _in_front_of(backend: Backend, context: ssl.SSLContext | None) -> Iterator[int]:
    """A port that forwards every connection to the backend; with a context, it ends TLS."""
    target = urlsplit(backend.url)

    def connected(client: socket.socket) -> tuple[socket.socket, socket.socket]:
        inner = context.wrap_socket(client, server_side=True) if context else client
        return inner, socket.create_connection((target.hostname, target.port))

    with _listening(connected) as port:
        yield port


@contextlib.contextmanager
def _proxy(port: int) -> Iterator[tuple[int, list[str]]]:
    """A proxy that only knows CONNECT, and connects every address to `port`; gives its port and the requests."""
    asked: list[str] = []

    def connected(client: socket.socket) -> tuple[socket.socket, socket.socket] | None:
        head = b""
        while b"\r\n\r\n" not in head and (data := client.recv(1 << 16)):
            head += data
        words = head.decode().split()
        asked.append(" ".join(words[:2]))
        if words[:1] != ["CONNECT"]:
            return None
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return client, socket.create_connection(("127.0.0.1", port))

    with _listening(connected) as own:
        yield own, asked


def _refused_certificate(environ: dict[str, str], cache: Path) -> None:
    """Look up, and check that the error names the variables that help."""
    with pytest.raises(LaunchError) as caught:
        _resolve(environ, cache)
    assert "certificate of localhost" in caught.value.found
    assert "SSL_CERT_FILE" in caught.value.remedy
    assert "REQUESTS_CA_BUNDLE" in caught.value.remedy


@pytest.fixture
def authority(tmp_path: Path) -> tuple[str, ssl.SSLContext]:
    """A self-signed certificate for localhost: its file, and a server's context with it."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,DNS:wandb.invalid", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return str(tmp_path / "cert.pem"), context


@pytest.mark.ci
def test_an_authority_of_ones_own_is_trusted_by_the_variable_that_the_client_reads(
    wandb_backend: Backend, wandb_environ: dict[str, str], authority: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    certificate, context = authority
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    with _in_front_of(wandb_backend, context) as port:
        environ = {**wandb_environ, "WANDB_BASE_URL": f"https://localhost:{port}"}
        assert _resolve({**environ, "SSL_CERT_FILE": certificate}, tmp_path / "cache").version == "v0"
        _refused_certificate(environ, tmp_path / "cache")


def test_the_proxy_of_the_clients_settings_is_used(
    wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    # The backend can act as the proxy, because it looks only at an address's path. The host name does not resolve.
    with _in_front_of(wandb_backend, None) as port:
        environ = {
            **wandb_environ,
            "WANDB_BASE_URL": "http://wandb.invalid",
            "WANDB_HTTP_PROXY": f"http://127.0.0.1:{port}",
        }
        assert _resolve(environ, tmp_path / "cache").version == "v0"


@pytest.mark.ci
def test_the_https_proxy_of_the_clients_settings_leads_to_look_ups_and_downloads(
    wandb_backend: Backend, wandb_environ: dict[str, str], authority: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    certificate, context = authority
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    with _in_front_of(wandb_backend, context) as port, _proxy(port) as (proxy, asked):
        # Only the proxy knows the host name, also that of the file's URL. So a request without the proxy fails.
        wandb_backend.graphql.url = "https://wandb.invalid"
        environ = {
            **wandb_environ,
            "WANDB_BASE_URL": "https://wandb.invalid",
            "WANDB_HTTPS_PROXY": f"http://127.0.0.1:{proxy}",
            "SSL_CERT_FILE": certificate,
        }
        assert _resolve(environ, tmp_path / "cache").version == "v0"
    assert set(asked) == {"CONNECT wandb.invalid:443"}
    assert wandb_backend.operations("GET data/a") == 1


@pytest.mark.ci
def test_a_bundle_that_lacks_the_authority_does_no_harm_beside_one_that_has_it(
    wandb_backend: Backend, wandb_environ: dict[str, str], authority: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    certificate, context = authority
    (tmp_path / "other").mkdir()
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-out", "other.pem"]
    subprocess.run([*words, "-keyout", "k.pem"], cwd=tmp_path / "other", check=True, capture_output=True)
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    with _in_front_of(wandb_backend, context) as port:
        wandb_backend.graphql.url = f"https://localhost:{port}"
        environ = {
            **wandb_environ,
            "WANDB_BASE_URL": f"https://localhost:{port}",
            "REQUESTS_CA_BUNDLE": str(tmp_path / "other" / "other.pem"),
        }
        assert _resolve({**environ, "SSL_CERT_FILE": certificate}, tmp_path / "cache").version == "v0"
        _refused_certificate(environ, tmp_path / "cache2")


def test_plain_http_behind_https_is_named(
    wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path
) -> None:
    environ = {**wandb_environ, "WANDB_BASE_URL": wandb_backend.url.replace("http://", "https://")}
    with pytest.raises(LaunchError) as caught:
        _resolve(environ, tmp_path / "cache")
    assert "speaks plain HTTP" in caught.value.found


@pytest.mark.ci
def test_the_extra_headers_of_the_client_are_in_look_ups_and_downloads(
    wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    wandb_backend.required_headers = {"X-Front": "open"}
    environ = {**wandb_environ, "WANDB_X_EXTRA_HTTP_HEADERS": '{"X-Front": "open"}'}
    assert _resolve(environ, tmp_path / "cache").version == "v0"
    assert wandb_backend.operations("GET data/a") == 1
    assert {operation.status for operation in wandb_backend.log} == {200}
    with pytest.raises(LaunchError) as caught:
        _resolve(wandb_environ, tmp_path / "cache2")
    assert "HTTP 403" in caught.value.found


@pytest.mark.ci
def test_an_identity_token_works_behind_a_front_that_refuses_who_is_not_logged_in(
    wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    wandb_backend.identity_tokens = {"header.claims.signature"}
    (tmp_path / "token").write_text("header.claims.signature")
    environ = {name: value for name, value in wandb_environ.items() if name != "WANDB_API_KEY"}
    environ |= {
        "WANDB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "WANDB_CREDENTIALS_FILE": str(tmp_path / "credentials.json"),
    }
    wandb_backend.unauthorized_status = 403
    assert _resolve(environ, tmp_path / "cache").version == "v0"
    assert "oidc/token" in {operation.name for operation in wandb_backend.log}


@pytest.mark.ci
def test_the_page_of_a_version_is_where_the_clients_settings_say(
    wandb_backend: Backend, wandb_environ: dict[str, str], tmp_path: Path
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    environ = {**wandb_environ, "WANDB_APP_URL": "https://pages.example/wandb/"}
    source = _resolve(environ, tmp_path / "cache").source
    assert source == "https://pages.example/wandb/team/nemotron/artifacts/dataset/data/v0"


@pytest.mark.ci
@pytest.mark.parametrize("server", ["https://api.wandb.ai", "https://api.corp.example", "http://10.0.0.1:8080"])
def test_the_pages_of_a_server_are_those_of_the_client(server: str, tmp_path: Path) -> None:
    # The real client gives the address of a run on this server.
    code = (
        "import wandb\n"
        "from nemotron_exec.stores.wandb.connection import _app_url\n"
        f"settings = wandb.Settings(base_url={server!r}, entity='e', project='p', run_id='r')\n"
        "print(_app_url(wandb, settings), settings.run_url)\n"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WANDB_API_KEY": API_KEY}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    pages, run = done.stdout.split()
    assert run == f"{pages}/e/p/runs/r"


def test_certificates_of_both_halves_are_trusted(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert trusted_bundle({}, str(tmp_path)) is True
    assert trusted_bundle({"SSL_CERT_FILE": one}, str(tmp_path)) == one
    assert trusted_bundle({"REQUESTS_CA_BUNDLE": two, "SSL_CERT_FILE": two}, str(tmp_path)) == two
    both = trusted_bundle({"REQUESTS_CA_BUNDLE": one, "SSL_CERT_FILE": two}, str(tmp_path))
    with open(str(both)) as file:
        assert file.read() == "one\ntwo\n"
