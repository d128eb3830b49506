"""A job that saves with a double of NeMo-RL, all its state in a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def nemo_rl_environ(directory: Path) -> dict[str, str]:
    """The variables that the job's environment has in addition to those of the tests."""
    return {
        "NEMOTRON_EXEC_STATE_DIR": str(directory / "state"),
        "NEMOTRON_EXEC_STORE": str(directory / "store"),
        "PYTHONPATH": str(ROOT / "tests/doubles/nemo_rl_released"),
    }
