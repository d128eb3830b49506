"""Registers `run.outputs` after the command has ended well, as a short-lived child of the command's last process.

`python -m nemotron_exec.outbox.outputs ENTRY...`; its stdin ends with the command (payload/checkpoints/outputs.py). No
process waits for this one, so it does not send to W&B. The next start or `nemotron-artifact flush` does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from nemotron_exec.message import Messages
from nemotron_exec.outbox.flush import flush
from nemotron_exec.sitecustomize.payload.checkpoints import outbox

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(paths: Sequence[str]) -> None:
    """Wait for the command's end, then register the entries whose command has ended with exit code 0."""
    while os.read(0, 4096):
        pass
    entries = []
    for path in paths:
        with contextlib.suppress(OSError, outbox.OutboxError):
            entry = outbox.read(path)
            if outbox.state(path, entry) == "complete":
                entries.append((path, entry))
            else:
                outbox.remove(path)
    # Send the entries even if the process seems alive: it may be a zombie, and its exit code has shown its end.
    report = flush(entries, to_wandb=False, even_alive=True)
    for path, why in report.kept:
        Messages().warning(f"an output is not registered yet: {why}. The next start tries again ({path})")


if __name__ == "__main__":
    main(sys.argv[1:])
