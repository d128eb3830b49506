"""Makes the connection to a W&B server, and explains why it cannot be made."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload.notice import redact
from nemotron_exec.stores.wandb.credentials import LOGIN, Credentials
from nemotron_exec.stores.wandb.settings import find_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Server", "Transport", "check_server", "client_requests", "trusted_bundle", "untrusted"]

_VIEWER = "query Viewer { viewer { id entity username teams { edges { node { name } } } } }"


@dataclass(frozen=True)
class Transport:
    """The way from this machine to the server.

    Attributes:
        headers: Headers of every request.
        proxies: Proxies by scheme, in the form that `requests` takes.
        verify: The trusted certificates: a bundle, True for the default one, False for no check.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True

    @classmethod
    def of_client(cls, settings: Any, environ: Mapping[str, str], scratch: str) -> Transport:
        """The transport of the client's own settings object.

        Args:
            settings: `wandb.setup().settings`.
            environ: The environment. The client's service process trusts `SSL_CERT_FILE`, its Python half
                `REQUESTS_CA_BUNDLE`.
            scratch: A directory for a bundle of both files.
        """
        proxies = {"http": getattr(settings, "http_proxy", None), "https": getattr(settings, "https_proxy", None)}
        insecure = bool(getattr(settings, "insecure_disable_ssl", False))
        return cls(
            dict(getattr(settings, "x_extra_http_headers", None) or {}),
            {scheme: proxy for scheme, proxy in proxies.items() if proxy},
            False if insecure else trusted_bundle(environ, scratch),
        )

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], scratch: str) -> Transport:
        """The transport without the client, from the variables and files of its settings."""
        headers: dict[str, str] = {}
        if found := find_setting(environ, "x_extra_http_headers"):
            with contextlib.suppress(ValueError):
                headers = dict(json.loads(found.value))
        proxies = {scheme: find_setting(environ, f"{scheme}_proxy") for scheme in ("http", "https")}
        insecure = find_setting(environ, "insecure_disable_ssl")
        return cls(
            headers,
            {scheme: proxy.value for scheme, proxy in proxies.items() if proxy},
            False if insecure and insecure.value.lower() in ("true", "1") else trusted_bundle(environ, scratch),
        )


_THREAD = threading.local()


@contextlib.contextmanager
def client_requests(transport: Transport) -> Iterator[None]:
    """Make the client's own requests of this thread follow `transport`.

    The client's service process follows WANDB_HTTPS_PROXY and SSL_CERT_FILE. Its Python half, which fetches manifests,
    follows only HTTPS_PROXY and REQUESTS_CA_BUNDLE (0.31, Artifact._fetch_manifest).
    """
    import requests

    merge = requests.Session.merge_environment_settings
    if not hasattr(merge, "nemotron_exec"):

        def follow(self: Any, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
            if (mine := getattr(_THREAD, "transport", None)) is not None:
                proxies = {**mine.proxies, **(proxies or {})}
                verify = mine.verify if verify in (True, None) else verify
            return merge(self, url, proxies, stream, verify, cert)

        marked: Any = follow
        marked.nemotron_exec = True
        session: Any = requests.Session
        session.merge_environment_settings = marked
    _THREAD.transport = transport
    try:
        yield
    finally:
        _THREAD.transport = None


def trusted_bundle(environ: Mapping[str, str], scratch: str) -> bool | str:
    """A file with every certificate that the client trusts in one of its halves; True for the default bundle."""
    named = [environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"), environ.get("SSL_CERT_FILE")]
    paths = list(dict.fromkeys(path for path in named if path))
    if len(paths) < 2 or not all(os.path.isfile(path) for path in paths):
        return paths[0] if paths else True
    bundle = os.path.join(scratch, "certificates.pem")
    with open(bundle, "wb") as file:
        for path in paths:
            with open(path, "rb") as part:
                file.write(part.read().rstrip() + b"\n")
    return bundle


class Server:
    """The W&B server, asked directly. It explains the client's errors, and decides nothing."""

    def __init__(self, base_url: str, credentials: Credentials | None, transport: Transport | None = None) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc.rpartition("@")[2]
        self.viewer: Mapping[str, Any] = {}
        self.transport = transport or Transport()
        self._credentials = credentials

    def check(self, wanted: str, patience: float, tell: Callable[[str], None] = lambda _: None) -> None:
        """Check that the server answers and accepts the key. For `patience` seconds temporary faults are retried.

        Raises:
            LaunchError: The key is wrong, or has no access.
            TemporaryError: The server cannot be reached, or reports a fault.
        """
        deadline = time.monotonic() + patience
        for attempt in itertools.count():
            fault, pause = self._ask(wanted, max(1.0, min(20.0, deadline - time.monotonic())))
            if fault is None:
                return
            pause = min(0.5 * 2.0**attempt, 15.0) if pause is None else min(pause, 15.0)
            if time.monotonic() + pause > deadline:
                remedy = f"Start the job again when {self.host} is back, or use --backend manifest"
                raise TemporaryError(wanted, fault, remedy)
            tell(fault)
            time.sleep(pause)
        raise AssertionError

    def _ask(self, wanted: str, timeout: float) -> tuple[str | None, float | None]:
        """(None, …) if all is well; else a temporary fault, and the seconds that the server asks to wait."""
        import requests

        key = self._credentials.key if self._credentials else None
        try:
            answer = requests.post(
                f"{self.base_url}/graphql",
                json={"query": _VIEWER, "operationName": "Viewer"},
                auth=("api", key) if key else None,
                headers=dict(self.transport.headers),
                proxies=dict(self.transport.proxies),
                verify=self.transport.verify,
                timeout=(min(10.0, timeout), timeout),
            )
        except requests.exceptions.ProxyError:
            proxy = redact(next(iter(self.transport.proxies.values()), "") or "of HTTPS_PROXY or HTTP_PROXY")
            return f"the proxy {proxy} does not lead to {self.host}", None
        except requests.exceptions.SSLError as error:
            raise untrusted(wanted, self.host, error) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema):
            remedy = "Set WANDB_BASE_URL to something like https://api.wandb.ai"
            raise LaunchError(wanted, f"{self.base_url!r} is not the address of a server", remedy) from None
        except requests.exceptions.ConnectTimeout:
            return f"{self.host} does not accept connections", None
        except requests.exceptions.Timeout:
            return f"{self.host} did not answer within {timeout:.0f} s", None
        except requests.RequestException as error:
            text = str(error)
            if "NameResolution" in text or "Name or service" in text or "name resolution" in text:
                return f"the name {self.host} is not known here (DNS)", None
            refused = "Connection refused" in text
            return f"{self.host} {'refuses connections' if refused else 'closed the connection'}", None
        status = answer.status_code
        # A request without a key does not test the identity token that the client would send.
        if status == 401 and key:
            raise self.bad_key(wanted)
        if status == 403 and key:
            raise self.no_access(wanted)
        if status in (408, 429) or status >= 500:
            try:
                return f"{self.host} answers HTTP {status}", float(answer.headers.get("Retry-After", ""))
            except ValueError:
                return f"{self.host} answers HTTP {status}", None
        if status == 200:
            with contextlib.suppress(ValueError, AttributeError):
                viewer = (answer.json().get("data") or {}).get("viewer")
                if viewer is None and key:
                    raise self.bad_key(wanted)
                self.viewer = viewer or {}
        # The client has to judge any other answer.
        return None, None

    def bad_key(self, wanted: str) -> LaunchError:
        """The error for a key that the server does not know."""
        source = self._credentials.source if self._credentials else "none"
        return LaunchError(wanted, f"{self.host} does not accept the API key (from {source})", LOGIN)

    def no_access(self, wanted: str) -> LaunchError:
        """The error for a key without access."""
        return LaunchError(
            wanted,
            f"{self.host} denies access with this API key (HTTP 403)",
            "Ask the owner of the entity or project for access, or use another key",
        )


def check_server(
    environ: Mapping[str, str], base_url: str, credentials: Credentials, wanted: str, patience: float
) -> Mapping[str, Any]:
    """The owner of the key according to the server: `username`, `entity`, `teams`.

    Args:
        environ: The environment of the client.
        base_url: Address of the server, without a trailing slash.
        credentials: The key.
        wanted: First part of every error.
        patience: Seconds for which temporary faults are retried.

    Raises:
        LaunchError: The key is wrong, or has no access.
        TemporaryError: The server cannot be reached, or reports a fault.
    """
    with tempfile.TemporaryDirectory(prefix="nemotron-exec-") as scratch:
        server = Server(base_url, credentials, Transport.of_environment(environ, scratch))
        server.check(wanted, patience)
    return server.viewer


def untrusted(wanted: str, host: str, error: Exception) -> LaunchError:
    """The error for a failed TLS connection."""
    if any(word in str(error) for word in ("WRONG_VERSION_NUMBER", "wrong version number", "record layer failure")):
        found = f"{host} speaks plain HTTP where https:// is asked for"
        return LaunchError(wanted, found, "Write http:// in WANDB_BASE_URL, or name the port that has TLS")
    return LaunchError(
        wanted,
        f"the TLS certificate of {host} is not trusted",
        "Set SSL_CERT_FILE and REQUESTS_CA_BUNDLE to your authority's certificates (the client reads the first for "
        "look-ups, the second for files), or check WANDB_BASE_URL",
    )
