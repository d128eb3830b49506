"""`nemotron-artifact flush`: send what jobs that died have left in their outboxes."""

from __future__ import annotations

import json
import os

import click

from nemotron_exec.errors import EXIT_TEMPFAIL, LaunchError
from nemotron_exec.message import Messages

__all__ = ["flush"]


@click.command()
@click.argument("directories", metavar="[DIRECTORY]...", nargs=-1, type=click.Path())
@click.option("--timeout", metavar="S", type=click.FloatRange(min=0), default=600.0, help="Bound, seconds.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")
@click.option("--store", metavar="URI", default=None, help="Root of the manifest store.")
def flush(directories: tuple[str, ...], timeout: float, as_json: bool, store: str | None) -> None:
    """Send checkpoints that dead jobs have left unsent to the manifest store and to W&B.

    DIRECTORY is where a job saved to, or what it lies in; without one, the store's own outbox is sent. Exit code 75
    where something stays.
    """
    # Heavy, and of no use to the other commands.
    from nemotron_exec.artifact_cli import root_of_store
    from nemotron_exec.flush import replay

    missing = [directory for directory in directories if not os.path.exists(directory)]
    if missing:
        raise LaunchError(
            f"to send what was left in {missing[0]}", "it is not there", "Name the directory that the job saved to"
        )
    report = replay(directories or (root_of_store(store),), timeout=timeout)
    if as_json:
        kept = [{"entry": path, "reason": why} for path, why in report.kept]
        click.echo(json.dumps({"registered": report.registered, "sent": report.sent, "kept": kept}, indent=1))
    messages = Messages(program="nemotron-artifact")
    for path, why in report.kept:
        messages.warning(f"{path} stays: {why}")
    messages.info(
        f"{report.registered} added to the manifest store, {report.sent} sent to W&B, {len(report.kept)} kept"
    )
    if report.kept:
        raise SystemExit(EXIT_TEMPFAIL)
