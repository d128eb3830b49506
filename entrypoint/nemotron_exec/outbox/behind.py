"""Sends a newer checkpoint, which a job has not sent to W&B yet, before `latest` is looked up in W&B.

Without it a stage that starts right after a crash would train from an older checkpoint, silently (ruling 18).
"""

from __future__ import annotations

import os
import time

from nemotron_exec.errors import TemporaryError
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, names, read

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
    from nemotron_exec.sitecustomize.payload.documents import Entry

__all__ = ["flush_first"]

_BOUND = 60.0  # seconds for all references together
_PAUSE = 2.0  # seconds between two looks while the job that wrote the checkpoint still runs and sends it itself


def flush_first(
    root: str, environ: Mapping[str, str], messages: Messages | None, *, bound: float = _BOUND
) -> Callable[[Sequence[Reference]], None]:
    """The function that WandbStore calls before it looks up references.

    Args:
        root: Root of the manifest store; for any root but a local path nothing is done.
        environ: The environment, for W&B's settings.
        messages: Gets a message for each checkpoint that was sent.
        bound: Seconds after which versions that W&B still lacks are an error.
    """

    def flush(references: Sequence[Reference]) -> None:
        """Send the outbox entries of the artifacts that `references` name.

        Raises:
            TemporaryError: W&B still lacks a newer version; the message names both.
        """
        if not names.is_local(root):
            return
        deadline = time.monotonic() + bound
        for reference in references:
            while waiting := _waiting(root, reference):
                from nemotron_exec.outbox.flush import replay

                left = deadline - time.monotonic()
                if left <= 0:
                    raise _behind(root, reference, waiting)
                replay([path for path, _ in waiting], timeout=left, messages=messages, environ=environ)
                if still := _waiting(root, reference):
                    if time.monotonic() + _PAUSE > deadline:
                        raise _behind(root, reference, still)
                    time.sleep(_PAUSE)

    return flush


def _waiting(root: str, reference: Reference) -> list[tuple[str, Entry]]:
    """The outbox entries, as (path, entry), that the reference would mean once they are sent."""
    name, alias = reference.parts[-1], reference.alias
    if alias[:1] == "v" and alias[1:].isdigit():
        return []  # a reference to a fixed version never changes its meaning
    boxes = outbox.find(root)
    newest = _newest(root, name)
    if newest is not None:
        boxes += outbox.find(str(newest.manifest.get("path") or ""))
    found: dict[str, Entry] = {}
    for box in boxes:
        for path, entry in outbox.entries(box):
            target = entry.get("wandb")
            if not isinstance(target, dict) or target.get("name") != name:
                continue
            named = entry.get("latest") if alias == "latest" else alias in (target.get("aliases") or ())
            if named and not entry.get("gone") and outbox.state(path, entry) == "complete":
                found[os.path.realpath(path)] = entry
    return sorted(found.items(), key=lambda item: str(item[1].get("created_at", "")))


def _newest(root: str, name: str) -> Any:
    try:
        return read.read_version(root, name, "latest", skip_gone=False)
    except names.StoreError:
        return None


def _behind(root: str, reference: Reference, waiting: Sequence[tuple[str, Entry]]) -> TemporaryError:
    name = reference.parts[-1]
    events = {entry["event"] for _, entry in waiting}
    ours = theirs = "none"
    try:
        for number in sorted(listing.versions(root, name), reverse=True):
            version = read.read_version(root, name, number, skip_gone=False)
            label = f"v{number} (iteration {version.manifest.get('metadata', {}).get('iteration')})"
            if version.manifest.get("event") in events:
                ours = label if ours == "none" else ours
            else:
                theirs = label
                break
    except names.StoreError:
        pass
    path, entry = waiting[-1]
    ours = ours if ours != "none" else f"iteration {entry.get('iteration')}"
    return TemporaryError(
        f"to resolve run.{reference.key}: {reference.text} ({reference.origin}) in W&B",
        f"the newest {name} is {ours}, which has not reached W&B yet ({path}); W&B has only what came before, {theirs}",
        f"Send it with: nemotron-artifact flush {os.path.dirname(path)}, or start the job again later",
    )
