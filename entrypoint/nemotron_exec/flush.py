"""Replay of the outbox: what a job that died has not told the stores.

`replay` is for the launcher: bounded, never fatal, in a child process, because wandb's service and its exit hooks must
not reach the job (design.md, Artifacts). `flush` does the work, in the child and for `nemotron-artifact flush`.

An entry counts once however often it is sent: the manifest store is searched for its event before anything is added,
and so is W&B, by the alias of the checkpoint; and the artifact's content is the same byte for byte, which W&B itself
recognises.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

from nemotron_exec.frozen import dataclass, field, replace
from nemotron_exec.sitecustomize.payload import checkpoint, delivery, manifest, outbox, process, same_save
from nemotron_exec.stores.manifest import open_files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from nemotron_exec.message import Messages

__all__ = ["FlushReport", "before_start", "flush", "main", "pending", "replay"]

REPLAY_SECONDS = 60.0
"""How long the launcher waits for a replay before it starts the job all the same."""


@dataclass(frozen=True)
class FlushReport:
    """What became of the entries.

    Attributes:
        registered: How many were added to a manifest store.
        sent: How many W&B has by now, of those that it lacked.
        kept: Entries that stay, each with why.
    """

    registered: int = 0
    sent: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        text = f"{self.registered} added to the manifest store, {self.sent} sent to W&B"
        return text + (f", {len(self.kept)} kept: {self.kept[0][1]}" if self.kept else "")


def pending(directories: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """The entries in the outboxes of some save directories, as (path, entry), without repetitions.

    Args:
        directories: Save directories, their parents, outboxes, roots of stores, or entries. URIs are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for directory in directories:
        if os.path.isfile(directory):
            with contextlib.suppress(OSError, outbox.OutboxError):
                found[os.path.realpath(directory)] = outbox.read(directory)
        elif not checkpoint.is_uri(directory):
            for box in outbox.find(os.path.abspath(directory)):
                found.update((os.path.realpath(path), entry) for path, entry in outbox.entries(box))
    return sorted(found.items(), key=lambda item: str(item[1].get("created_at", "")))


def before_start(save_directory: str, store: str | None, *, messages: Messages, environ: Mapping[str, str]) -> None:
    """`replay` for a job: its save directory's outbox, and in the store's only what belongs to the save directory.

    Args:
        save_directory: Where the config saves to, a path or a URI.
        store: Root of the manifest store.
        messages: Where to say what was sent and what stays.
        environ: The environment that W&B's settings come from.
    """
    save_dir = save_directory if checkpoint.is_uri(save_directory) else os.path.abspath(save_directory)
    # Most starts have nothing to send, and pay one look into a directory.
    places = [save_directory, *([outbox.directory_of(store)] if store and manifest.is_local(store) else [])]
    if mine := [path for path, entry in pending(places) if entry.get("save_dir") == save_dir]:
        replay(mine, messages=messages, environ=environ)


def replay(
    directories: Sequence[str],
    *,
    timeout: float = REPLAY_SECONDS,
    messages: Messages | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FlushReport:
    """Send what earlier runs of the job have left, before this one starts. Never raises, never longer than `timeout`.

    Args:
        directories: Where the config saves to; see `pending`.
        timeout: Seconds; the child is killed then, and what it has not sent stays.
        messages: Told of what was sent and of what stays.
        environ: The environment that W&B's settings come from.
    """
    waiting = pending(directories)
    unreadable = _unreadable(directories)
    if not waiting:
        report = FlushReport(kept=unreadable)
        if messages is not None:
            _tell(report, messages)
        return report
    command = [sys.executable, "-m", "nemotron_exec.flush", "--json", "--timeout", str(timeout)]
    child = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    child["NEMOTRON_EXEC_DISABLE"] = "1"
    try:
        done = subprocess.run(
            command + [path for path, _ in waiting],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout + 5,
            env=child,
            check=False,
        )
        report = _report(done.stdout) or FlushReport(kept=[(path, _last_line(done.stderr)) for path, _ in waiting])
    except subprocess.TimeoutExpired:
        left = dict(pending(directories))
        report = FlushReport(kept=[(path, f"W&B did not answer within {timeout:.0f} s") for path in left])
    except OSError as error:
        report = FlushReport(kept=[(path, str(error)) for path, _ in waiting])
    report = replace(report, kept=report.kept + unreadable)
    if messages is not None:
        _tell(report, messages)
    return report


def flush(
    entries: Sequence[tuple[str, dict[str, Any]]],
    *,
    to_wandb: bool = True,
    timeout: float = REPLAY_SECONDS,
    even_alive: bool = False,
) -> FlushReport:
    """Put entries into their stores, in this process.

    Args:
        entries: (path, entry), as `pending` gives them.
        to_wandb: False for the manifest store alone; entries that W&B lacks stay.
        timeout: Seconds for all of W&B.
        even_alive: Also those whose process still runs, and would send them itself.
    """
    deadline = time.monotonic() + timeout
    registered = sent = 0
    kept: list[tuple[str, str]] = []
    for_wandb: dict[tuple[str | None, str | None], list[tuple[str, dict[str, Any]]]] = {}
    for path, entry in entries:
        alive = not even_alive and process.alive(entry.get("process"))
        target = entry.get("wandb")
        # A process without a W&B run leaves W&B to whoever comes; all others send what is theirs.
        if alive and (target is None or target.get("run") is not None):
            kept.append((path, "its job is still running"))
            continue
        if not even_alive and not _complete(path, entry):
            # The framework has not come to its last step. On another host it still may: nobody can tell from here.
            if alive or (entry.get("process") or {}).get("host") != process.here()["host"]:
                kept.append((path, "it is not complete yet"))
            else:
                outbox.remove(path)
            continue
        try:
            registered += _register(entry)
        except (manifest.StoreError, OSError, KeyError, TypeError) as error:
            kept.append((path, f"the manifest store did not take it: {error}"))
            continue
        target = entry.get("wandb")
        if target is None:
            outbox.remove(path)
        elif to_wandb:
            for_wandb.setdefault((target.get("entity"), target.get("project")), []).append((path, entry))
    for (entity, project), group in for_wandb.items():
        done, left = _send(entity, project, group, deadline)
        sent += done
        kept.extend(left)
    return FlushReport(registered, sent, kept)


def main(argv: Sequence[str] | None = None) -> int:
    """Flush named entries: `python -m nemotron_exec.flush [--json] [--timeout S] [--no-wandb] [--entry] PATH...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    timeout, as_json, to_wandb, even_alive = REPLAY_SECONDS, False, True, False
    entries: list[tuple[str, dict[str, Any]]] = []
    while words:
        word = words.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--no-wandb":
            to_wandb = False
        elif word == "--entry":  # the job itself asks, for a store that it cannot reach
            even_alive = True
        elif word == "--timeout":
            timeout = float(words.pop(0))
        else:
            with contextlib.suppress(FileNotFoundError):
                entries.append((word, outbox.read(word)))
    report = flush(entries, to_wandb=to_wandb, timeout=timeout, even_alive=even_alive)
    if as_json:
        answer = {"registered": report.registered, "sent": report.sent, "kept": report.kept}
        sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    # wandb's exit hooks can wait for ever for its service (failure-modes.md): the work is done, leave at once.
    os._exit(0 if to_wandb or not report.kept else 1)


def _unreadable(directories: Iterable[str]) -> list[tuple[str, str]]:
    boxes = {
        box
        for directory in directories
        if not checkpoint.is_uri(directory)
        for box in outbox.find(os.path.abspath(directory))
    }
    return [item for box in sorted(boxes) for item in outbox.unreadable(box)]


def _complete(path: str, entry: dict[str, Any]) -> bool:
    """Whether the framework has completed the checkpoint; what has been deleted since, it had."""
    if outbox.state(path, entry) == "complete":
        return True
    with contextlib.suppress(manifest.StoreError, OSError, KeyError, TypeError):
        return checkpoint.find(entry, open_files(entry["store"])) is not None
    return False


def _register(entry: dict[str, Any]) -> int:
    files = open_files(entry["store"])
    return int(checkpoint.register(entry, files, there=_find).new)


def _find(entry: dict[str, Any], files: Any) -> int | None:
    number: int | None = checkpoint.find(entry, files)
    return same_save.find(entry, files) if number is None else number


def _send(
    entity: str | None, project: str | None, group: list[tuple[str, dict[str, Any]]], deadline: float
) -> tuple[int, list[tuple[str, str]]]:
    """Send entries of one W&B project through a run of their own; how many, and what stays with why."""
    try:
        import wandb
    except ImportError:
        return 0, [(path, "wandb is not installed beside nemotron-exec") for path, _ in group]
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return 0, [(path, f"W&B is {os.environ['WANDB_MODE']}") for path, _ in group]
    sent = 0
    left: list[tuple[str, str]] = []
    try:
        with _run(wandb, entity, project, group) as run:
            for path, entry in group:
                why = _send_one(wandb, run, path, entry, deadline)
                if why is None:
                    sent += 1
                else:
                    left.append((path, why))
    except Exception as error:  # noqa: BLE001  # wandb raises what it likes; the entries stay
        why = f"W&B did not take it: {_first_line(error)}"
        told = {path for path, _ in left}
        left.extend((path, why) for path, _ in group if path not in told and os.path.exists(path))
    return sent, left


@contextlib.contextmanager
def _run(wandb: Any, entity: str | None, project: str | None, group: list[tuple[str, dict[str, Any]]]) -> Iterator[Any]:
    # A run of its own: the job's may be crashed, finished or resumed elsewhere, and must not be touched.
    run = wandb.init(
        entity=entity,
        project=project,
        job_type="checkpoint-flush",
        name="flush " + group[0][1]["name"],
        config={"runs": sorted({str(entry["wandb"].get("run")) for _, entry in group})},
        settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
    )
    try:
        for name in sorted({name for _, entry in group for name in entry.get("used_artifacts") or ()}):
            if name.count("/") == 2:
                with contextlib.suppress(Exception):
                    run.use_artifact(name)
        yield run
    finally:
        run.finish()


def _send_one(wandb: Any, run: Any, path: str, entry: dict[str, Any], deadline: float) -> str | None:
    """Send one entry; None if W&B has it, else why not."""
    if not _has(wandb, run, entry):
        try:
            artifact = delivery.log_to_wandb(wandb, run, entry)
            artifact.wait(timeout=max(1, int(deadline - time.monotonic())))
        except Exception as error:  # noqa: BLE001  # wandb raises what it likes; the entry stays
            return f"W&B did not take it: {_first_line(error)}"
    outbox.remove(path)
    return None


def _has(wandb: Any, run: Any, entry: dict[str, Any]) -> bool:
    """Whether W&B has the checkpoint already, under one of its aliases."""
    target = entry["wandb"]
    api = wandb.Api(timeout=20)
    for alias in target["aliases"]:
        if alias == "latest":
            continue
        try:
            found = api.artifact(f"{run.entity}/{run.project}/{target['name']}:{alias}")
        except Exception:  # noqa: BLE001, S112  # not there, or not to be had: sending the same content is harmless
            continue
        if found.metadata.get("nemotron_exec_event") == entry["event"]:
            return True
    return False


def _tell(report: FlushReport, messages: Messages) -> None:
    if report.registered or report.sent:
        messages.info(
            f"checkpoints of an earlier run: {report.registered} added to the manifest store, {report.sent} sent to W&B"
        )
    paths: dict[str, list[str]] = {}
    for path, why in report.kept:
        paths.setdefault(why, []).append(path)
    for why, there in paths.items():
        if len(there) == 1:
            messages.warning(f"a checkpoint of an earlier run stays in the outbox: {why} ({there[0]})")
        else:
            count = len(there)
            messages.warning(
                f"{count} checkpoints of an earlier run stay in the outbox: {why} ({there[0]} and {count - 1} more)"
            )


def _report(output: bytes) -> FlushReport | None:
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            return FlushReport(answer["registered"], answer["sent"], [(path, why) for path, why in answer["kept"]])
    return None


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "the flush ended without an answer"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    main()
