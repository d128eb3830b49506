"""The meaning of an exception of huggingface_hub: it can never work, it may work later, or the hub is out of reach.

It is found by the names of classes and by the HTTP status. The classes have moved between modules, and the HTTP library
was requests, then httpx, then httpx2 (huggingface_hub 0.26, 1.0, 2.0).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload.notice import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "FullError",
    "Later",
    "Subject",
    "Unreachable",
    "classify",
    "first_line",
    "http_status",
    "is_full",
    "no_room",
    "went_through",
]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_USABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG
)  # fmt: skip
# hf_xet raises no OSError: its message ends in the form of Rust's errors.
_FULL_IN_RUST = re.compile(rf"\(os error ({'|'.join(map(str, _NO_ROOM))})\)")
_RATE_LIMIT = re.compile(r'"(\w+)"\s*;\s*r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)')
_CONNECTION = (
    "ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout", "Timeout", "TimeoutException", "ReadError",
    "RemoteProtocolError", "ProtocolError", "ChunkedEncodingError", "WriteError", "PoolTimeout", "NetworkError",
    "IncompleteRead", "ProxyError", "OfflineModeIsEnabled",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """The repository of a request, for messages.

    Attributes:
        wanted: First part of the error message.
        kind: "model" or "dataset".
        name: `org/name`.
        revision: The revision in the user's words.
        endpoint: Address of the hub.
        cache: Directory of the cache.
        token: Whether the client has a token.
    """

    wanted: str
    kind: str
    name: str
    revision: str
    endpoint: str
    cache: str
    token: bool

    @property
    def host(self) -> str:
        """The hub without scheme and password."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2] or self.endpoint

    @property
    def page(self) -> str:
        """The page of the repository for people."""
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def noun(self) -> str:
        """The kind of the repository in words."""
        return "data set" if self.kind == "dataset" else "model"


@dataclass(frozen=True)
class Later:
    """A fault after which a later attempt may succeed.

    Attributes:
        found: The fault.
        pause: Seconds that the hub asks to wait; None where it does not ask.
        limited: Whether the fault is a rate limit, which counts for all requests.
    """

    found: str
    pause: float | None = None
    limited: bool = False


class FullError(Exception):
    """The cache has no more room: disk, inodes, quota, or limit on file sizes."""


@dataclass(frozen=True)
class Unreachable:
    """No answer has come: the hub is down, or there is no network here."""

    found: str


def classify(error: BaseException, subject: Subject) -> LaunchError | Later | Unreachable | None:
    """The consequence of an exception; None where the hub does not know or show the repository or the revision."""
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    response = _response(error)
    status = http_status(error)
    if "GatedRepoError" in names:
        return _gated(subject)
    if "DisabledRepoError" in names:
        return LaunchError(subject.wanted, f"the hub has disabled {subject.name}", f"See {subject.page}")
    if "EntryNotFoundError" in names and "LocalEntryNotFoundError" not in names:
        return Later(f"{subject.host} lists a file that it does not have ({first_line(error)})")
    if isinstance(status, int):
        return _of_status(status, response, subject)
    if (local := _of_system(error, subject)) is not None:
        return local
    if names & set(_CONNECTION) or any(isinstance(one, (socket.timeout, ConnectionError)) for one in _chain(error)):
        return _unreachable(error, names, subject)
    if "HFValidationError" in names:
        return LaunchError(subject.wanted, first_line(error), "Write hf://org/name")
    if isinstance(error, OSError) and error.errno is None:
        return Later(first_line(error))  # "Consistency check failed" means that a download ended early
    found = f"huggingface_hub failed: {first_line(error)}"
    return LaunchError(subject.wanted, found, f"See {subject.page}, and the output under -v")


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an exception, in whichever of its causes."""
    status = getattr(_response(error), "status_code", None)
    return status if isinstance(status, int) else None


def is_full(error: BaseException) -> bool:
    """Whether an exception means a lack of room (disk, quota, limit on file sizes)."""
    return any(
        (isinstance(one, OSError) and one.errno in _NO_ROOM) or _FULL_IN_RUST.search(str(one)) for one in _chain(error)
    )


def went_through(function: str, error: BaseException) -> bool:
    """Whether an exception has passed through a function of that name."""
    for one in _chain(error):
        trace = one.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_name == function:
                return True
            trace = trace.tb_next
    return False


def no_room(subject: Subject, needed: int, free: int, *, refused: bool = False) -> TemporaryError:
    """The error for a full disk or quota.

    Args:
        subject: The repository of the request.
        needed: Bytes that are needed.
        free: Bytes that are free in the file system.
        refused: Whether a write has failed: free bytes show neither a quota nor a lack of inodes.
    """
    from nemotron_exec.stores.wandb.cache import format_bytes

    available = format_bytes(max(0, free))
    found = f"{format_bytes(needed)} are needed in {subject.cache}, and {available} are available there"
    if refused:
        said = "has no room left" if needed >= free else "refuses to store more (a quota, or no inodes)"
        found = f"{subject.cache} {said}: {format_bytes(needed)} are needed, and {available} are available"
    remedy = "Free some space, or give a roomier directory with HF_HOME, HF_HUB_CACHE or --cache-dir DIR"
    return TemporaryError(subject.wanted, found, remedy)


def first_line(error: BaseException) -> str:
    """The text of an error, in one line and without signatures."""
    text = " ".join(redact(str(error)).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _of_status(status: int, response: Any, subject: Subject) -> LaunchError | Later | None:
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    said = headers.get("x-error-message", "")
    if status == 401 and "credentials" in said.lower():
        remedy = "Give a valid token in HF_TOKEN, run `hf auth login`, or remove the token"
        return LaunchError(subject.wanted, f"{subject.host} does not accept the token (HTTP 401)", remedy)
    if status in (401, 404):
        return None  # the caller then asks for the nearest names
    if status == 403:
        found = f"the token has no access to {subject.name} (HTTP 403{': ' + redact(said) if said else ''})"
        return LaunchError(subject.wanted, found, f"Ask for access at {subject.page}, or use another token in HF_TOKEN")
    if status == 429:
        return Later(f"{subject.host} limits requests (HTTP 429)", _told_to_wait(headers), limited=True)
    if status == 408 or status >= 500:
        return Later(f"{subject.host} answers HTTP {status}", _seconds(headers.get("retry-after")))
    if status == 416:
        return Later(f"{subject.host} answers HTTP {status}")
    found = f"{subject.host} answers HTTP {status}{': ' + redact(said) if said else ''}"
    return LaunchError(subject.wanted, found, f"See {subject.page}, and check HF_ENDPOINT")


def _of_system(error: BaseException, subject: Subject) -> LaunchError | None:
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in _NOT_USABLE:
            return _not_usable(one, subject)
    return None


def _not_usable(error: OSError, subject: Subject) -> LaunchError:
    where = error.filename if isinstance(error.filename, str) else subject.cache
    owner = ""
    with contextlib.suppress(OSError):
        existing = where
        while not os.path.lexists(existing) and os.path.dirname(existing) != existing:
            existing = os.path.dirname(existing)
        found = os.lstat(existing)
        if found.st_uid != os.geteuid():
            owner = f"; {existing} belongs to user {found.st_uid}"
    return LaunchError(
        subject.wanted,
        f"the cache {subject.cache} cannot be written ({(error.strerror or str(error)).lower()}: {where}{owner})",
        "Give a directory of yours with HF_HOME, HF_HUB_CACHE or --cache-dir DIR",
    )


def _gated(subject: Subject) -> LaunchError:
    if subject.token:
        found = f"the {subject.noun} is gated, and the owner of the token has no access"
        remedy = f"Ask for access at {subject.page}, or use the token of an account that has it"
    else:
        found = f"the {subject.noun} is gated, and there is no token"
        remedy = f"Accept its conditions at {subject.page}, then set HF_TOKEN or run `hf auth login`"
    return LaunchError(subject.wanted, found, remedy)


def _unreachable(error: BaseException, names: set[str], subject: Subject) -> Unreachable | LaunchError:
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(one):
            remedy = "Set SSL_CERT_FILE and REQUESTS_CA_BUNDLE to your authority's certificates, or check HF_ENDPOINT"
            return LaunchError(subject.wanted, f"the TLS certificate of {subject.host} is not trusted", remedy)
    text = " ".join(str(one) for one in _chain(error))
    if "ProxyError" in names:
        return Unreachable(f"the proxy to {subject.host} does not answer")
    if re.search(r"NameResolution|[Nn]ame or service|name resolution|nodename nor servname", text):
        return Unreachable(f"the name {subject.host} is not known here (DNS)")
    if re.search(r"unreachable", text, re.IGNORECASE):
        return Unreachable(f"there is no network to {subject.host}")
    if "refused" in text:
        return Unreachable(f"{subject.host} refuses connections")
    if any("Timeout" in name or name == "timeout" for name in names):
        return Unreachable(f"{subject.host} does not answer")
    return Unreachable(f"{subject.host} closed the connection")


def _told_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers-09), else by Retry-After."""
    found = _RATE_LIMIT.search(headers.get("ratelimit", ""))
    if found and int(found.group(2)) == 0:
        return float(found.group(3)) + 1  # the hub rounds to whole seconds
    return _seconds(headers.get("retry-after"))


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


def _response(error: BaseException) -> Any:
    return next((r for one in _chain(error) if (r := getattr(one, "response", None)) is not None), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        reason = getattr(one, "reason", None)
        inner = [arg for arg in one.args if isinstance(arg, BaseException)]
        todo += [one.__cause__, one.__context__, reason if isinstance(reason, BaseException) else None, *inner]
