"""Fixtures: a W&B server for one test, and an environment for processes that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wandb_backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["wandb_backend", "wandb_environ"]


@pytest.fixture
def wandb_backend() -> Iterator[Backend]:
    """A fresh W&B server on 127.0.0.1."""
    with Backend() as backend:
        yield backend


@pytest.fixture
def wandb_environ(wandb_backend: Backend, tmp_path: Path) -> dict[str, str]:
    """Environment of a child process: the server, a key, and directories of its own; PATH as it is."""
    import os

    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **wandb_backend.environ(tmp_path / "wandb-home")}
