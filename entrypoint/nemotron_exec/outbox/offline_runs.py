"""W&B runs that were started offline because W&B did not answer (payload/checkpoints/offline_run.py), sent later.

A run is sent by the client's own `wandb sync`, which reports success whatever becomes of it: W&B is asked afterwards
whether it has the run and its end. Only then are the inputs recorded, and the entry removed. What dies in between sends
the same run again: its id and the positions of its lines are the same, so that W&B has it once.
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
"""Seconds without a sign of life after which a run on another node has ended."""
# What the environment of a job says of its own run.
_OF_A_RUN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_MODE", "WANDB_DISABLED", "WANDB_SERVICE", "WANDB_NAME")
_SETTLED = 20.0  # seconds in which W&B may still say that a run goes on whose end it has been told of


def is_run(path: str) -> bool:
    """Whether a path is that of such an entry."""
    return os.path.basename(path).startswith(PREFIX)


def waiting(directories: Iterable[str], job: str | None = None, owner: int | None = None) -> list[str]:
    """The entries of runs that have ended, oldest first.

    Args:
        directories: As for `flush.pending`.
        job: A start of this job: its earlier lives have ended, whatever their nodes.
        owner: Leave those of other users of a team's store to them; None takes all.
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
    """The runs in whose processes checkpoints were saved, of those that wait: they lie in the store's outbox."""
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


def send(paths: Sequence[str], deadline: float) -> tuple[int, list[tuple[str, str]]]:
    """Send runs to W&B.

    Args:
        paths: Entries.
        deadline: By the monotonic clock.

    Returns:
        How many were sent, and (entry, why) of those that stay.
    """
    sent = 0
    kept: list[tuple[str, str]] = []
    for path in paths:
        try:
            with _alone(path):
                why = _send(path, outbox.read(path), deadline)
        except FileNotFoundError:
            continue  # another process has sent it meanwhile
        except (OSError, outbox.OutboxError) as error:
            why = str(error)
        sent += why is None
        kept += [(path, why)] if why is not None else []
    return sent, kept


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """One sender at a time, where the file system has locks; two do no harm.

    Raises:
        OutboxError: Another process sends it now.
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
    """The time by the file server's clock."""
    probe = os.path.join(directory, f".clock-{os.getpid()}-{os.urandom(4).hex()}.tmp")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        os.unlink(probe)


def _send(path: str, entry: Mapping[str, Any], deadline: float) -> str | None:
    """Send one run; None if W&B has it and its inputs, else why not."""
    file = host.localise(str(entry.get("local_file")))
    if not os.path.isfile(file):
        file = host.localise(str(entry.get("file")))
    if not (re.fullmatch(r"run-[\w-]+\.wandb", os.path.basename(file)) and os.path.isfile(file)):
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
        # Before the client is asked: it tries for an hour, and says then that it has synced.
        api = wandb.Api(timeout=20)
        problem = _sync(file, deadline)
        if problem is not None:
            return problem
        where = f"{entry.get('entity') or api.default_entity}/{entry.get('project') or 'uncategorized'}/{entry['run']}"
        run = _arrived(api, where, deadline)
        if run is None:
            return f"W&B did not take the end of the run {where}"
        _use(api, run, entry.get("inputs") or ())
    except Exception as error:  # noqa: BLE001  # wandb raises what it likes; the entry stays
        return f"W&B did not take it: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    os.unlink(path)
    disk.sync_directory(os.path.dirname(path))
    return None


def _sync(file: str, deadline: float) -> str | None:
    """`wandb sync FILE`; None where it says that it is done."""
    environ = {name: value for name, value in os.environ.items() if name not in _OF_A_RUN}
    # An earlier attempt may have marked the run as synced wrongly (see above). Older clients skip marked runs.
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
    """The run as W&B has it; None where it has not been told of its end."""
    until = min(deadline, time.monotonic() + _SETTLED)
    while True:
        run = api.run(where)
        if run.state != "running":
            return run
        if time.monotonic() > until:
            return None
        time.sleep(0.5)


def _use(api: Any, run: Any, inputs: Sequence[str]) -> None:
    """Record the job's inputs, those that the run does not have."""
    if not inputs:
        return
    used = {artifact.qualified_name for artifact in run.used_artifacts()}
    for name in inputs:
        if name not in used:
            run.use_artifact(api.artifact(name))
