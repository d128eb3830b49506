"""`nemotron-artifact flush`: send the entries that dead jobs have left in their outboxes."""

from __future__ import annotations

import os
import time

import click

from nemotron_exec.errors import EXIT_TEMPFAIL, LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.schemas import FLUSH

__all__ = ["flush"]


@click.command()
@click.argument("directories", metavar="[DIRECTORY]...", nargs=-1, type=click.Path())
@click.option("--timeout", metavar="S", type=click.FloatRange(min=0), default=600.0, help="Bound, seconds.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")
@click.option("--store", metavar="URI", default=None, help="Root of the manifest store.")
def flush(directories: tuple[str, ...], timeout: float, as_json: bool, store: str | None) -> None:
    """Send checkpoints and offline runs that dead jobs have left to the manifest store and to W&B, and run hooks.

    DIRECTORY is a save directory, or a parent of one. Without it the outbox of the store is sent. The exit code is 75
    if an entry stays.
    """
    # These imports are slow, and the other commands do not need them.
    from nemotron_exec.artifact_cli.store import print_json, root_of_store
    from nemotron_exec.outbox.flush import replay
    from nemotron_exec.outbox.hooks import directories_of, run_left
    from nemotron_exec.outbox.report import of_runs, tell_lost

    missing = [directory for directory in directories if not os.path.exists(directory)]
    if missing:
        raise LaunchError(
            f"to send what was left in {missing[0]}", "it is not there", "Name the directory that the job saved to"
        )
    places = directories or (root_of_store(store),)
    began = time.monotonic()
    report = replay(places, timeout=timeout)
    ran, left = run_left(directories_of(places), timeout=max(0.0, timeout - (time.monotonic() - began)))
    kept = [*report.kept, *((one.path, f"hook {one.identity}: {one.why}") for one in left)]
    if as_json:
        document = {
            "registered": report.registered,
            "sent": report.sent,
            "runs": report.runs,
            "hooks": ran,
            "kept": [{"entry": path, "reason": why} for path, why in kept],
        }
        print_json(FLUSH, document)
    messages = Messages(program="nemotron-artifact")
    tell_lost(report, messages)
    for path, why in kept:
        messages.warning(f"{path} stays: {why}")
    hooks = f", {ran} {'hook' if ran == 1 else 'hooks'} run" if ran or left else ""
    messages.info(
        f"{report.registered} added to the manifest store, {report.sent} sent to W&B{of_runs(report)}{hooks}, "
        f"{len(kept)} kept"
    )
    if kept:
        raise SystemExit(EXIT_TEMPFAIL)
