"""The hand-off: the one place where launcher and injector meet. A 0600 JSON file (schema in ARCHITECTURE.md)."""

from __future__ import annotations

import datetime
import json

from nemotron_exec import __version__

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifact import Artifact
    from nemotron_exec.resolution import ResolvedConfig

__all__ = ["SCHEMA", "encode", "handoff_document"]

SCHEMA = 1


def handoff_document(
    *,
    job: Mapping[str, Any],
    backend: str | None,
    store: str,
    wandb: Mapping[str, Any],
    artifacts: Sequence[Artifact],
    publish: str | None,
    checkpoints: str,
    configs: Sequence[ResolvedConfig],
    run_record: str | None,
) -> dict[str, Any]:
    """The hand-off as a JSON object.

    Args:
        job: `id`, `source` and `environment` (the schedulers' variables by which a stale hand-off is recognised).
        backend: "wandb" or "manifest".
        store: Root of the manifest store.
        wandb: `project`, `entity` and `resume`.
        artifacts: Pinned inputs.
        publish: `run.publish` of the config: the name under which checkpoints are registered.
        checkpoints: `run.checkpoints`: all, periodic, best, last or none.
        configs: Config files rewritten.
        run_record: Where the job's run record stands.
    """
    return {
        "schema": SCHEMA,
        "version": __version__,
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "job": dict(job),
        "backend": backend,
        "store": store,
        "wandb": dict(wandb),
        "artifacts": [artifact.to_json() for artifact in artifacts],
        "publish": publish,
        "checkpoints": checkpoints,
        "config": [{"original": config.original, "resolved": config.resolved} for config in configs],
        "run_record": run_record,
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of a hand-off file."""
    return (json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")
