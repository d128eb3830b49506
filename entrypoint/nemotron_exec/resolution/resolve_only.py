"""`--resolve-only [-o FILE]`: the answer as JSON on stdout, for init containers, prologs, CI and notebooks."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nemotron_exec.errors import LaunchError
from nemotron_exec.schemas import RESOLVE

if TYPE_CHECKING:
    from nemotron_exec.resolution.resolution import Resolution

__all__ = ["report"]


def report(resolution: Resolution, output: str | None) -> int:
    """Print the answer. With `output`, also write the resolved YAML there. Return the exit code.

    Raises:
        LaunchError: There are several configs for `-o`, or a file cannot be written.
    """
    if output is not None:
        _write(resolution, output)
    json.dump({"schema": RESOLVE, **resolution.to_json()}, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
    return 0


def _write(resolution: Resolution, output: str) -> None:
    from nemotron_exec.shared_directory import files

    if len(resolution.configs) != 1:
        raise LaunchError(
            f"write the resolved YAML to {output}",
            f"{len(resolution.configs)} configs have something to resolve",
            "Name one with -c, or take the paths from the JSON",
        )
    try:
        with open(resolution.configs[0].resolved, "rb") as file:
            files.replace(output, file.read(), durable=True)
    except OSError as error:
        raise LaunchError(
            f"write the resolved YAML to {output}", error.strerror or str(error), "Give a path in a directory of yours"
        ) from None
