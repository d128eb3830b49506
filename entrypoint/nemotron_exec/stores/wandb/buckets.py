"""Data elsewhere that a W&B artifact refers to (`s3://`, `gs://`, `https://`), fetched by the client's own drivers.

Before it fetches, wandb compares the logged ETag or generation. The size is checked here.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.shared_directory import files
from nemotron_exec.sitecustomize.payload.notice import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["check_driver", "fetch"]

_ALIVE = 5.0  # seconds between two signs of life of a download
_AT_ONCE = 16  # downloads at the same time, like files in W&B
_TARGET = "_override_cache_path"
_giving = threading.Lock()

# By scheme: the module that wandb needs, the package with it, the source of the credentials.
_DRIVERS = {
    "s3": ("boto3", "boto3", "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "gs": ("google.cloud.storage", "google-cloud-storage", "GOOGLE_APPLICATION_CREDENTIALS"),
    "azure": ("azure.storage.blob", "azure-storage-blob azure-identity", "AZURE_STORAGE_KEY or a managed identity"),
    "http": ("", "", "what the server asks for"),
    "https": ("", "", "what the server asks for"),
    "wandb-artifact": ("", "", "WANDB_API_KEY"),
}
# Errors of botocore, google-api-core and requests that may not happen again.
_PASSING = (
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "SlowDown",
    "ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "ChunkedEncodingError", "IncompleteReadError",
    "RetriesExceededError", "ServiceUnavailable", "TooManyRequests", "RetryError", "TransportError",
)  # fmt: skip


def check_driver(name: str, uri: str, wanted: str) -> None:
    """Check before any download that the reference `uri` of the entry `name` can be fetched.

    Raises:
        LaunchError: The client cannot fetch such URIs, or its driver is not installed.
    """
    scheme = _scheme(uri)
    shown = f"its entry {name} is a reference to {redact(uri)}"
    if scheme not in _DRIVERS:
        remedy = "Log the data itself, or record where jobs find it as absolute_path in the artifact's metadata"
        raise LaunchError(wanted, f"{shown}, and W&B's client fetches no {scheme or 'such'} URIs", remedy)
    module, package, credentials = _DRIVERS[scheme]
    if module and not _importable(module):
        remedy = f"Install it beside nemotron-exec (pip install {package}), and give the launcher {credentials}"
        raise LaunchError(wanted, f"{shown}, and the package {module} is not installed", remedy)


def fetch(
    entries: Mapping[str, Any],
    directory: str,
    *,
    wanted: str,
    deadline: float,
    alive: Callable[[str], None],
    progress: Callable[[int], None],
) -> None:
    """Fetch the data of references into `directory`. Each file appears whole or not at all.

    Args:
        entries: The manifest's entries by name.
        directory: A private directory of the launcher.
        wanted: First part of every error.
        deadline: `time.monotonic()` at which waiting ends.
        alive: Called every few seconds with the URI that is being fetched.
        progress: Called with the number of bytes of each file that has arrived.

    Raises:
        LaunchError: The data does not exist, is not the logged data, or access is denied.
        TemporaryError: The network or the server failed, or the time is over.
    """
    limit = _AT_ONCE if _targets_are_of_threads(entries) else 1
    pool = concurrent.futures.ThreadPoolExecutor(limit, thread_name_prefix="reference")
    near = tempfile.TemporaryDirectory(dir=os.path.dirname(directory), prefix="reference-", ignore_cleanup_errors=True)
    waiting = list(entries.items())[::-1]
    running: dict[concurrent.futures.Future[Any], str] = {}
    at_once = 1  # the first runs alone: it opens the driver's session, which the others share
    try:
        with near as scratch:
            while waiting or running:
                while waiting and len(running) < at_once:
                    name, entry = waiting.pop()
                    running[pool.submit(entry.download, root=scratch, skip_cache=True)] = name
                done = concurrent.futures.wait(running, _ALIVE, concurrent.futures.FIRST_COMPLETED).done
                if not done:
                    uri = entries[next(iter(running.values()))].ref
                    if time.monotonic() > deadline:
                        raise _late(wanted, uri)
                    alive(redact(uri))
                for future in done:
                    name = running.pop(future)
                    path = _arrived(future, entries[name], wanted)
                    target = os.path.join(directory, name)
                    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                    files.sync_file(path)
                    os.replace(path, target)
                    progress(entries[name].size or 0)
                    at_once = limit
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _targets_are_of_threads(entries: Mapping[str, Any]) -> bool:
    """Whether downloads may run side by side.

    wandb keeps the target of a download in one attribute of its cache, so two threads would write to one file. This
    function makes the attribute a property with a value for each thread. It returns False if wandb has none.
    """
    try:
        cache = next(iter(entries.values())).parent_artifact().manifest.storage_policy._cache
        with _giving:  # the artifacts of a job share the cache
            if not isinstance(getattr(type(cache), _TARGET, None), property):
                getattr(cache, _TARGET)
                kind, targets = type(cache), threading.local()
                of_thread = property(
                    lambda _: getattr(targets, "path", None), lambda _, path: setattr(targets, "path", path)
                )
                cache.__class__ = type(kind.__name__, (kind,), {_TARGET: of_thread})
    except (AttributeError, TypeError, StopIteration):
        return False
    return True


def _arrived(future: concurrent.futures.Future[Any], entry: Any, wanted: str) -> str:
    uri = redact(entry.ref)
    try:
        path = str(future.result())
    except Exception as error:  # noqa: BLE001  (each driver has its own classes)
        text = (str(error).strip().splitlines() or [""])[0][:300]
        found = f"its reference {uri} cannot be fetched ({type(error).__name__}: {redact(text)})"
        if type(error).__name__ in _PASSING or _status(error) in (408, 429) or _status(error) >= 500:
            raise TemporaryError(wanted, found, "Start the job again when that store is back") from None
        credentials = _DRIVERS[_scheme(entry.ref)][2]
        remedy = f"Check that it still exists as it was logged, and give the launcher {credentials}"
        raise LaunchError(wanted, found, remedy) from None
    size = os.stat(path).st_size
    if entry.size and size != entry.size:
        found = f"its reference {uri} gave {size} bytes, and {entry.size} were logged"
        raise TemporaryError(wanted, found, "Start the job again; if it stays so, log the artifact anew")
    return path


def _late(wanted: str, uri: str) -> TemporaryError:
    remedy = "Give it more time with --timeout, or look why that store is slow"
    return TemporaryError(wanted, f"the time limit (--timeout) has passed while {redact(uri)} is being fetched", remedy)


def _scheme(uri: str) -> str:
    url = urlsplit(uri)
    return "azure" if (url.hostname or "").endswith(".blob.core.windows.net") else url.scheme.lower()


def _importable(module: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False


def _status(error: BaseException) -> int:
    """The HTTP status of an error; 0 if it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's response is a dictionary
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        response = getattr(response, "status_code", None) or getattr(error, "code", None)
    return response if isinstance(response, int) else 0
