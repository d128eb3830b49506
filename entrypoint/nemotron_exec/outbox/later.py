"""Finds the saves in W&B that are newer than an entry of the outbox: they keep their aliases."""

from __future__ import annotations

import datetime

from nemotron_exec.outbox import number_in_wandb

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

    from nemotron_exec.sitecustomize.payload.documents import EntryForWandb

__all__ = ["give_latest_back", "later_saves"]


def later_saves(api: Any, run: Any, entry: EntryForWandb) -> dict[str, str] | None:
    """The entry's aliases that W&B has on a later save, with its version; None where W&B has the entry already."""
    target = entry["wandb"]
    later = {}
    for alias in target["aliases"]:
        try:
            found = api.artifact(f"{run.entity}/{run.project}/{target['name']}:{alias}")
        except Exception:  # noqa: BLE001, S112  # not there or not reachable: sending it again is harmless
            continue
        if found.metadata.get("nemotron_exec_event") == entry["event"]:
            number_in_wandb.note(entry, found)
            return None
        if _is_later(found, entry):
            later[alias] = found.version
    return later


def give_latest_back(wandb: Any, run: Any, entry: EntryForWandb, version: str) -> None:
    """Move `latest` back to a version, unless a job has logged a newer one meanwhile."""
    # wandb-core adds `latest` to every logged artifact, whether other aliases are given or not.
    api = wandb.Api(timeout=20)
    name = f"{run.entity}/{run.project}/{entry['wandb']['name']}"
    if api.artifact(f"{name}:latest").metadata.get("nemotron_exec_event") == entry["event"]:
        newest = api.artifact(f"{name}:{version}")
        newest.aliases.append("latest")
        newest.save()


def _is_later(artifact: Any, entry: EntryForWandb) -> bool:
    """Whether an artifact in W&B was saved after an entry. Without a recorded time, its time of logging counts."""
    times = []
    for text in (artifact.metadata.get("nemotron_exec_saved_at") or artifact.created_at, entry.get("created_at")):
        try:
            time_ = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError:
            return False
        times.append(time_ if time_.tzinfo else time_.replace(tzinfo=datetime.timezone.utc))
    return times[0] > times[1]
