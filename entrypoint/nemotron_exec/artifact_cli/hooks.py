"""`nemotron-artifact hooks`: list the hooks of `run.on_checkpoint` by their state, and run one again."""

from __future__ import annotations

import contextlib
import datetime
import os
from typing import TYPE_CHECKING, Any

import click

from nemotron_exec.artifact_cli.store import json_option, messages_for, print_json, root_of_store, store_option
from nemotron_exec.errors import EXIT_TEMPFAIL, LaunchError
from nemotron_exec.schemas import HOOKS
from nemotron_exec.sitecustomize.payload.checkpoints import hook_entries
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nemotron_exec.outbox.hooks import Left

__all__ = ["hooks"]

_TAIL = 64 << 10  # bytes at the end of a hook's output that are searched for its last lines
_LINES = 5


@click.command()
@click.argument("directories", metavar="[DIRECTORY]...", nargs=-1, type=click.Path())
@click.option("--again", metavar="ID", help="Run the hook ID of the list once more, here and now.")
@click.option(
    "--lines",
    metavar="N",
    type=click.IntRange(min=0),
    default=_LINES,
    show_default=True,
    help="Last lines of the output, of those that have failed.",
)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0),
    default=600.0,
    help="Bound on --again, seconds.",
)
@json_option
@store_option
def hooks(
    directories: tuple[str, ...], again: str | None, lines: int, timeout: float, as_json: bool, store: str | None
) -> None:
    """List the hooks of run.on_checkpoint: done, running, waiting, held for the last checkpoint, failed.

    DIRECTORY is a save directory, or a parent of one. Without it the save directories of the store's checkpoints are
    searched. The exit code of --again is 75 if the hook has not ended well.
    """
    from nemotron_exec.outbox.hooks import directories_of

    if missing := [directory for directory in directories if not os.path.exists(directory)]:
        raise LaunchError(
            f"to look for hooks in {missing[0]}", "it is not there", "Name the directory that the job saved to"
        )
    places = directories_of(directories or _places_of(root_of_store(store)))
    found = _all_in(places)
    for directory in places:
        for path, why in hook_entries.foreign(directory):
            messages_for().warning(f"{path} does not count: {why}")
    if again is not None:
        ended_well = _run_again(_chosen(again, found, places), timeout)
        found = [one for one in _all_in(places) if hook_entries.identity(one.entry).startswith(again)]
    if as_json:
        print_json(HOOKS, {"hooks": [_document(one, lines) for one in found]})
    elif found:
        _print(found, lines)
    else:
        messages_for().info("no hook has run, and none is waiting")
    if again is not None and not ended_well:
        raise SystemExit(EXIT_TEMPFAIL)


def _places_of(root: str) -> list[str]:
    """The directories that may hold hooks: the store, and where the newest version of each artifact was saved."""
    if not manifest_names.is_local(root) or not os.path.isdir(root):
        return []
    from nemotron_exec.artifact_cli.store import open_store_files, read_inventory
    from nemotron_exec.sitecustomize.payload.paths.host import localise

    places = [root]
    for entry in read_inventory(open_store_files(root), only_latest=True).entries:
        record = entry.manifest.get("metadata", {}).get("run_record")
        if isinstance(record, str):  # SAVE_DIR/.nemotron-exec/runs/job-….json
            places.append(str(localise(os.path.dirname(os.path.dirname(os.path.dirname(record))))))
    return list(dict.fromkeys(places))


def _all_in(directories: Iterable[str]) -> list[Left]:
    from nemotron_exec.outbox.hooks import Left

    return [
        Left(path, entry)
        for directory in directories
        for path, entry in [*hook_entries.finished(directory), *hook_entries.entries(directory)]
    ]


def _chosen(again: str, found: Sequence[Left], places: Sequence[str]) -> Left:
    same = [one for one in found if hook_entries.identity(one.entry) == again]
    same = same or [one for one in found if hook_entries.identity(one.entry).startswith(again)]
    if len(same) == 1:
        return same[0]
    there = ", ".join(one.identity for one in (same or found)[-8:])
    raise LaunchError(
        f"to run the hook {again} again",
        f"{len(same) or 'none'} of that name in {', '.join(places) or 'the store'}",
        f"Name one of {there}" if there else "Name the directory that the job saved to",
    )


def _run_again(one: Left, timeout: float) -> bool:
    """Put the hook back into the queue, run it, and return whether it succeeded."""
    from nemotron_exec.outbox.hooks import run_left

    directory = os.path.dirname(one.path)
    if one.entry["state"] == hook_entries.RUNNING:
        raise LaunchError(f"to run the hook {one.identity} again", "it is running", "Wait for its end")
    one.entry.update(state=hook_entries.WAITING, attempts=0, not_before=0, why=None, told=False)
    done = os.path.basename(directory) == hook_entries.DONE
    directory = os.path.dirname(directory) if done else directory
    path = os.path.join(directory, os.path.basename(one.path))
    hook_entries.write(path, one.entry)
    if done:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one.path)
    run_left([directory], timeout=timeout, only=[one.identity])
    if not os.path.exists(path):
        return True
    messages_for().warning(f"{one.identity}: {next(left.why for left in _all_in([directory]) if left.path == path)}")
    return False


def _document(one: Left, lines: int) -> dict[str, Any]:
    entry, told = one.entry, one.entry["checkpoint"]
    return {
        "id": one.identity,
        "hook": entry["hook"]["name"],
        "command": entry["hook"]["command"],
        "state": entry["state"],
        "checkpoint": told.get("path"),
        "name": told.get("name"),
        "version": told.get("version"),
        "iteration": told.get("iteration"),
        "attempts": entry.get("attempts"),
        "exit_code": entry.get("exit_code"),
        "why": entry.get("why"),
        "created_at": entry.get("created_at"),
        "started_at": _time(entry.get("started_at")),
        "ended_at": _time(entry.get("ended_at")),
        "log": entry.get("log"),
        "last_lines": _last_lines(entry.get("log"), lines),
        "entry": one.path,
    }


def _print(found: Sequence[Left], lines: int) -> None:
    from nemotron_exec.artifact_cli.listing import print_table

    rows = []
    for one in found:
        told = one.entry["checkpoint"]
        version = f"{told.get('name')}:{told.get('version')}" if told.get("version") else str(told.get("name"))
        why = one.entry.get("why") or ""
        rows.append((one.entry["state"], one.identity, version, str(one.entry.get("attempts")), why))
    print_table(("STATE", "ID", "CHECKPOINT", "ATTEMPTS", "WHY"), rows)
    for one in found:
        if one.entry["state"] == hook_entries.FAILED:
            click.echo(f"\n{one.identity}: {one.entry['hook']['command']}")
            for line in _last_lines(one.entry.get("log"), lines):
                click.echo(f"  {line}")
            click.echo(f"  all of it: {one.entry.get('log')}; again: nemotron-artifact hooks --again {one.identity}")


def _last_lines(path: object, lines: int) -> list[str]:
    if not isinstance(path, str) or not lines:
        return []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with open(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        return file.read(_TAIL).decode("utf-8", "replace").splitlines()[-lines:]


def _time(seconds: object) -> str | None:
    if not isinstance(seconds, (int, float)):
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")
