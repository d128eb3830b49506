"""Sends W&B runs that were started offline because W&B did not answer (payload/checkpoints/offline_run.py).

The client's own `wandb sync` sends a run, but reports success even if it failed. So W&B is asked afterwards whether it
has the run and its end. Only then are the inputs recorded, and the entry removed. A process that dies in between leaves
the entry, and the run is sent again. Its id and the positions of its lines are the same, so W&B has it once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time

from nemotron_exec.sitecustomize.payload import disk
from nemotron_exec.sitecustomize.payload.checkpoints import outbox, process
from nemotron_exec.sitecustomize.payload.checkpoints.offline_run import BEAT, PREFIX
from nemotron_exec.sitecustomize.payload.paths import host
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

__all__ = ["is_run", "of_checkpoints", "send", "waiting"]

_SILENT = 5 * BEAT
"""Seconds without a sign of life after which a run on another node counts as ended."""
# Variables of the job that describe its own run; `wandb sync` must not see them.
_OF_A_RUN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_MODE", "WANDB_DISABLED", "WANDB_SERVICE", "WANDB_NAME")
_HEADER = 7  # bytes; the client's file has these and no record if its service was killed before its first write
_SETTLED = 20.0  # seconds in which W&B may still report an ended run as running


def is_run(path: str) -> bool:
    """Whether a path is an entry of an offline run."""
    return os.path.basename(path).startswith(PREFIX)


def waiting(directories: Iterable[str], job: str | None = None, owner: int | None = None) -> list[str]:
    """The entries of runs that have ended, oldest first.

    Args:
        directories: Directories, see `flush.pending`.
        job: The identity of the job that starts now. Its earlier lives have ended, on whatever node they ran.
        owner: Leave out entries of other users in a team's store; None takes all entries.
    """
    found: dict[str, str] = {}
    for directory in directories:
        if os.path.isfile(directory):
            with contextlib.suppress(OSError, outbox.OutboxError):
                if is_run(directory):
                    found[os.path.realpath(directory)] = str(outbox.read(directory).get("created_at"))
        elif "://" not in directory:
            for box in outbox.find(absolute(directory)):
                for path, entry in outbox.entries(box, PREFIX):
                    if _is_of(path, owner) and not _goes_on(path, entry, job):
                        found[os.path.realpath(path)] = str(entry.get("created_at"))
    return sorted(found, key=lambda path: (found[path], path))


def of_checkpoints(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of the waiting runs in the store's outbox, those whose processes saved the checkpoints of these entries."""
    runs: dict[str, set[str]] = {}
    for entry in entries:
        run = (entry.get("wandb") or {}).get("run")
        if run and "://" not in str(entry.get("store")):
            runs.setdefault(str(entry["store"]), set()).add(run)
    return [
        path
        for store, names in runs.items()
        for path in waiting([outbox.directory_of(store)])
        if outbox.read(path).get("run") in names
    ]


def send(paths: Sequence[str], deadline: float) -> tuple[int, list[tuple[str, str]], list[tuple[str, str]]]:
    """Send runs to W&B.

    Args:
        paths: Paths of entries.
        deadline: Time of the monotonic clock.

    Returns:
        How many were sent, (entry, reason) of those that stay, and (run, file) of those that nobody can send.
    """
    sent = 0
    kept: list[tuple[str, str]] = []
    lost: list[tuple[str, str]] = []
    for path in paths:
        try:
            with _alone(path):
                entry: Mapping[str, Any] = outbox.read(path)
                if (file := _file(entry)) is not None and os.path.getsize(file) <= _HEADER:
                    lost.append((str(entry["run"]), file))
                    _remove(path)
                    continue
                why = _send(path, entry, file, deadline)
        except FileNotFoundError:
            continue  # another process has sent it meanwhile
        except (OSError, outbox.OutboxError) as error:
            why = str(error)
        sent += why is None
        kept += [(path, why)] if why is not None else []
    return sent, kept, lost


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Hold the lock of an entry while it is sent. Without locks two senders do no harm.

    Raises:
        OutboxError: Another process is sending the entry.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise outbox.OutboxError("another process sends it now") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def _is_of(path: str, owner: int | None) -> bool:
    try:
        return owner is None or os.stat(path).st_uid == owner
    except OSError:
        return False


def _goes_on(path: str, entry: Mapping[str, Any], job: str | None) -> bool:
    if entry.get("ended") or (job and entry.get("job") == job):
        return False
    written = entry.get("process") or {}
    if written.get("host") == process.here()["host"]:
        return bool(process.alive(written))
    with contextlib.suppress(OSError):
        return _now(os.path.dirname(path)) - os.stat(path).st_mtime < _SILENT
    return True


def _now(directory: str) -> float:
    """The current time by the file server's clock."""
    probe = os.path.join(directory, f".clock-{os.getpid()}-{os.urandom(4).hex()}.tmp")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        os.unlink(probe)


def _file(entry: Mapping[str, Any]) -> str | None:
    """The client's file of a run; None where it is not to be seen here."""
    for name in ("local_file", "file"):
        file: str = host.localise(str(entry.get(name)))
        if re.fullmatch(r"run-[\w-]+\.wandb", os.path.basename(file)) and os.path.isfile(file):
            return file
    return None


def _remove(path: str) -> None:
    os.unlink(path)
    disk.sync_directory(os.path.dirname(path))


def _send(path: str, entry: Mapping[str, Any], file: str | None, deadline: float) -> str | None:
    """Send one run. Return None if W&B has it and its inputs, else the reason."""
    if file is None:
        node = (entry.get("process") or {}).get("host")
        return f"{entry.get('file')} is not to be seen here; the run was made on {node}"
    try:
        import wandb
    except ImportError:
        return f"wandb is not installed beside nemotron-exec; the client that made it: {entry.get('python')} -m wandb"
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return f"W&B is {os.environ['WANDB_MODE']}"
    url = str(wandb.setup().settings.base_url).rstrip("/")
    if entry.get("url") not in (None, url):
        return f"it is for {entry['url']}, and W&B is {url} here: set WANDB_BASE_URL"
    try:
        # Ask W&B first: without an answer the client would try for an hour, and then report that it has synced.
        api = wandb.Api(timeout=20)
        problem = _sync(file, deadline)
        if problem is not None:
            return problem
        where = f"{entry.get('entity') or api.default_entity}/{entry.get('project') or 'uncategorized'}/{entry['run']}"
        run = _arrived(api, where, deadline)
        if run is None:
            return f"W&B did not take the end of the run {where}"
        _use(api, run, entry.get("inputs") or ())
    except Exception as error:  # noqa: BLE001  # wandb may raise any exception; the entry stays
        return f"W&B did not take it: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    _remove(path)
    return None


def _sync(file: str, deadline: float) -> str | None:
    """Run `wandb sync FILE`. Return None if it reports success, else the reason."""
    environ = {name: value for name, value in os.environ.items() if name not in _OF_A_RUN}
    # An earlier attempt may have marked the run as synced wrongly (see the module). Older clients skip marked runs.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file + ".synced")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", file],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(1.0, deadline - time.monotonic()),
            env=environ,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "W&B did not take it in time"
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        return f"wandb sync: {lines[-1] if lines else f'exit code {done.returncode}'}"
    return None


def _arrived(api: Any, where: str, deadline: float) -> Any:
    """The run in W&B; None where W&B does not know its end."""
    until = min(deadline, time.monotonic() + _SETTLED)
    while True:
        run = api.run(where)
        if run.state != "running":
            return run
        if time.monotonic() > until:
            return None
        time.sleep(0.5)


def _use(api: Any, run: Any, inputs: Sequence[str]) -> None:
    """Record those inputs of the job that the run in W&B does not have yet."""
    if not inputs:
        return
    used = {artifact.qualified_name for artifact in run.used_artifacts()}
    for name in inputs:
        if name not in used:
            run.use_artifact(api.artifact(name))
