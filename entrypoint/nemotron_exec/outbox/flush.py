"""Replay of the outbox: sends checkpoints to the stores that a dead job did not send.

The launcher calls `replay`, which is bounded and never fails the start. It works in a child process, because wandb's
service and exit hooks must not reach the job (design.md, Artifacts). `flush` does the work, in the child and for
`nemotron-artifact flush`.

An entry counts once however often it is sent. The manifest store is searched for the entry's event before a version is
added, and W&B for the checkpoint's alias. W&B also recognises equal content, byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

from nemotron_exec.environment import OF_THE_JOBS_PYTHON
from nemotron_exec.frozen import replace
from nemotron_exec.outbox import hooks, number_in_wandb, offline_runs
from nemotron_exec.outbox.later import give_latest_back, later_saves
from nemotron_exec.outbox.report import FlushReport, parse, tell
from nemotron_exec.sitecustomize.payload.checkpoints import (
    deliver,
    delivery,
    describe,
    outbox,
    process,
    pruning,
    record,
)
from nemotron_exec.sitecustomize.payload.manifest import names
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute
from nemotron_exec.stores.manifest import open_files

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from nemotron_exec.message import Messages
    from nemotron_exec.sitecustomize.payload.documents import Entry, EntryForWandb

__all__ = ["FlushReport", "before_start", "flush", "main", "pending", "replay"]

REPLAY_SECONDS = 60.0
"""Seconds that the launcher waits for a replay before it starts the job without its end."""


def pending(directories: Iterable[str]) -> list[tuple[str, Entry]]:
    """The entries in the outboxes of some save directories, as (path, entry), without repetitions.

    Args:
        directories: Save directories, their parents, outboxes, roots of stores, or entries. URIs are left out.
    """
    found: dict[str, Entry] = {}
    for directory in directories:
        if offline_runs.is_run(directory):
            continue
        if os.path.isfile(directory):
            with contextlib.suppress(OSError, outbox.OutboxError):
                found[os.path.realpath(directory)] = outbox.read(directory)
        elif not describe.is_uri(directory):
            for box in outbox.find(absolute(directory)):
                found.update((os.path.realpath(path), entry) for path, entry in outbox.entries(box))
    return sorted(found.items(), key=lambda item: str(item[1].get("created_at", "")))


def before_start(
    save_directory: str | None,
    store: str | None,
    *,
    messages: Messages,
    environ: Mapping[str, str],
    job: str | None = None,
) -> None:
    """`replay` for a job: of the outboxes of its save directory and of the store, the entries saved to that directory.

    Outputs of any job whose command has ended well are registered, too: this job may use them.

    Args:
        save_directory: The directory of the config's checkpoints, a path or a URI; None for none.
        store: Root of the manifest store.
        messages: Gets a message for each entry that was sent or that stays.
        environ: The environment, for W&B's settings.
        job: The identity of this job. An offline run of an earlier life of the job has ended, on whatever node it ran.
    """
    save_dir = save_directory and (save_directory if describe.is_uri(save_directory) else absolute(save_directory))
    # A start with nothing to send, which is the usual one, should only cost a look into a directory.
    saved = [save_directory] if save_directory else []
    places = [*saved, *([outbox.directory_of(store)] if store and names.is_local(store) else [])]
    mine = [
        path
        for path, entry in pending(places)
        if (save_dir and entry.get("save_dir") == save_dir)
        or (entry.get("ends_with") is not None and outbox.state(path, entry) == "complete")
    ]
    mine += offline_runs.waiting(places, job, os.geteuid())
    if mine:
        replay(mine, messages=messages, environ=environ)
    if unreadable := _unreadable(saved):
        tell(FlushReport(kept=unreadable), messages)


def replay(
    directories: Sequence[str],
    *,
    timeout: float = REPLAY_SECONDS,
    messages: Messages | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FlushReport:
    """Send entries that earlier runs of the job have left. It never raises, and ends within `timeout`.

    Args:
        directories: Save directories; see `pending`.
        timeout: Seconds after which the child is killed. An entry that it has not sent stays.
        messages: Gets a message for each entry that was sent or that stays.
        environ: The environment, for W&B's settings.
    """
    entries = pending(directories)
    runs = [*offline_runs.waiting(directories), *offline_runs.of_checkpoints(entry for _, entry in entries)]
    waiting = [path for path, _ in entries] + list(dict.fromkeys(runs))
    unreadable = _unreadable(directories)
    if not waiting:
        report = FlushReport(kept=unreadable)
        if messages is not None:
            tell(report, messages)
        return report
    command = [sys.executable, "-m", "nemotron_exec.outbox.flush", "--json", "--timeout", str(timeout)]
    child = {name: value for name, value in environ.items() if name not in OF_THE_JOBS_PYTHON}
    child["NEMOTRON_EXEC_DISABLE"] = "1"
    try:
        done = subprocess.run(
            command + waiting,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout + 5,
            env=child,
            check=False,
        )
        report = parse(done.stdout) or FlushReport(kept=[(path, _last_line(done.stderr)) for path in waiting])
    except subprocess.TimeoutExpired:
        left = [path for path in waiting if os.path.exists(path)]
        report = FlushReport(kept=[(path, f"W&B did not answer within {timeout:.0f} s") for path in left])
    except OSError as error:
        report = FlushReport(kept=[(path, str(error)) for path in waiting])
    report = replace(report, kept=report.kept + unreadable)
    if messages is not None:
        tell(report, messages)
    return report


def flush(
    entries: Sequence[tuple[str, Entry]],
    *,
    to_wandb: bool = True,
    timeout: float = REPLAY_SECONDS,
    even_alive: bool = False,
) -> FlushReport:
    """Send entries to their stores, in this process.

    Args:
        entries: (path, entry), as `pending` gives them.
        to_wandb: False for the manifest store alone; an entry that W&B lacks stays then.
        timeout: Seconds for all requests to W&B.
        even_alive: Whether to send entries whose process still runs, too; it would send them itself.
    """
    deadline = time.monotonic() + timeout
    registered = sent = 0
    kept: list[tuple[str, str]] = []
    for_wandb: dict[tuple[str | None, str | None], list[tuple[str, EntryForWandb]]] = {}
    again = {_save(entry): path for path, entry in entries if outbox.state(path, entry) == "complete"}
    for path, entry in entries:
        alive = not even_alive and process.alive(entry.get("process"))
        if not alive and entry.get("renamed_from") and again.get(_save(entry), path) != path:
            # A later process has saved the same step again. Whether this process had come to its rename is unknown.
            outbox.remove(path)
            continue
        target = entry.get("wandb")
        # A process that has a W&B run sends its own checkpoints. Without one, the next start or a flush sends them.
        if alive and (target is None or target.get("run") is not None):
            kept.append((path, "its job is still running"))
            continue
        if outbox.state(path, entry) == "gone" and entry.get("ends_with") is not None:
            outbox.remove(path)  # the command has failed, so it has no output
            continue
        if not even_alive and not _complete(path, entry):
            # The framework has not completed the checkpoint. Its process may still run on another host, which cannot be
            # seen here.
            if alive or (entry.get("process") or {}).get("host") != process.here()["host"]:
                kept.append((path, "it is not complete yet"))
            else:
                outbox.remove(path)
            continue
        try:
            registered += _register(entry)
        except (names.StoreError, OSError, KeyError, TypeError) as error:
            kept.append((path, f"the manifest store did not take it: {error}"))
            continue
        if why := hooks.hand_over(path, entry):
            kept.append((path, why))
            continue
        target = entry.get("wandb")
        if target is None:
            outbox.remove(path)
        elif to_wandb:
            for_wandb.setdefault((target.get("entity"), target.get("project")), []).append((path, entry))  # type: ignore[arg-type]
    for (entity, project), group in for_wandb.items():
        done, left = _send(entity, project, group, deadline)
        sent += done
        kept.extend(left)
    return FlushReport(registered, sent, kept)


def _save(entry: Entry) -> tuple[Any, ...]:
    return entry.get("store"), entry.get("name"), entry.get("checkpoint_path"), entry.get("iteration")


def main(argv: Sequence[str] | None = None) -> int:
    """Flush named entries: `python -m nemotron_exec.outbox.flush [OPTIONS] PATH...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    timeout, as_json, to_wandb, even_alive, in_wandb = REPLAY_SECONDS, False, True, False, ""
    entries: list[tuple[str, Entry]] = []
    runs: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--no-wandb":
            to_wandb = False
        elif word == "--entry":  # the job itself asks to send it, for a store that the job cannot reach
            even_alive = True
        elif word == "--timeout":
            timeout = float(words.pop(0))
        elif word == "--in-wandb":  # the job itself has logged it to W&B, but cannot reach the manifest store
            in_wandb = words.pop(0)
        elif offline_runs.is_run(word):
            runs.append(word)
        else:
            with contextlib.suppress(FileNotFoundError):
                entries.append((word, outbox.read(word)))
    if in_wandb:
        for _, entry in entries:
            number_in_wandb.note_name(entry, in_wandb)
        return 0
    deadline = time.monotonic() + timeout
    # Send offline runs first: the runs that flush checkpoints name them.
    sent, kept, lost = offline_runs.send(runs, deadline) if runs else (0, [], [])
    left = max(0.0, deadline - time.monotonic())
    report = flush(entries, to_wandb=to_wandb, timeout=left, even_alive=even_alive)
    report = replace(report, kept=kept + report.kept, runs=sent, lost=lost)
    if as_json:
        answer = {"registered": report.registered, "sent": report.sent, "kept": report.kept, "runs": sent, "lost": lost}
        sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    # wandb's exit hooks can wait for ever for its service (failure-modes.md). The work is done, so exit without them.
    os._exit(0 if to_wandb or not report.kept else 1)


def _unreadable(directories: Iterable[str]) -> list[tuple[str, str]]:
    boxes = {
        box for directory in directories if not describe.is_uri(directory) for box in outbox.find(absolute(directory))
    }
    return [item for box in sorted(boxes) for item in outbox.unreadable(box)]


def _complete(path: str, entry: Entry) -> bool:
    """Whether the framework has completed the checkpoint. A registered checkpoint was complete, even if it is gone."""
    if outbox.state(path, entry) == "complete":
        return True
    with contextlib.suppress(names.StoreError, OSError, KeyError, TypeError):
        return record.find(entry, open_files(entry["store"])) is not None
    return False


def _register(entry: Entry) -> int:
    files = open_files(entry["store"])
    new = int(record.register(entry, files, there=number_in_wandb.find).new)
    if names.is_local(entry["store"]):
        deliver.take_inventory(entry)
    if entry.get("ends_with") is not None:
        pruning.look(entry["save_dir"])  # the version before it has the same directory
    return new


def _send(
    entity: str | None, project: str | None, group: list[tuple[str, EntryForWandb]], deadline: float
) -> tuple[int, list[tuple[str, str]]]:
    """Send entries of one W&B project through a new run. Return how many were sent, and the rest with the reasons."""
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
    except Exception as error:  # noqa: BLE001  # wandb may raise any exception; the entries stay
        why = f"W&B did not take it: {_first_line(error)}"
        told = {path for path, _ in left}
        left.extend((path, why) for path, _ in group if path not in told and os.path.exists(path))
    return sent, left


@contextlib.contextmanager
def _run(wandb: Any, entity: str | None, project: str | None, group: list[tuple[str, EntryForWandb]]) -> Iterator[Any]:
    # Use a new run: the job's own may be crashed, finished or resumed elsewhere, and must not be touched.
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


def _send_one(wandb: Any, run: Any, path: str, entry: EntryForWandb, deadline: float) -> str | None:
    """Send one entry. Return None if W&B has it then, else the reason."""
    api = wandb.Api(timeout=20)
    try:
        later = later_saves(api, run, entry)
        if later is not None:
            free = [alias for alias in entry["wandb"]["aliases"] if alias not in later]
            artifact = delivery.log_to_wandb(wandb, run, entry, free or ["latest"])
            artifact.wait(timeout=max(1, int(deadline - time.monotonic())))
            number_in_wandb.note(entry, artifact)
            if "latest" in later:
                give_latest_back(wandb, run, entry, later["latest"])
    except Exception as error:  # noqa: BLE001  # wandb may raise any exception; the entry stays
        return f"W&B did not take it: {_first_line(error)}"
    outbox.remove(path)
    return None


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "the flush ended without an answer"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    main()
