"""The fixture of a hub for one test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hub_backend import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["hub"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A fresh hub on 127.0.0.1."""
    with Hub() as hub:
        yield hub
