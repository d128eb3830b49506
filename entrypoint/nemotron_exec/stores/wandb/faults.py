"""Turns errors of the W&B client into the launcher's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.notice import redact

if TYPE_CHECKING:
    pass

__all__ = ["first_line", "http_status", "not_here"]


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an error of the client, in whichever of its layers."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        response = getattr(one, "response", None)
        for name in ("http_status", "status_code"):
            status = getattr(response, name, None)
            if isinstance(status, int) and status:
                return status
        todo += [getattr(one, "exc", None), one.__cause__, one.__context__]
    return None


def first_line(error: BaseException) -> str:
    """The text of an error in one line, without the query of any URL: presigned ones hold a signature."""
    text = redact(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def not_here(wanted: str, path: str) -> LaunchError:
    """The error for an artifact whose recorded path does not exist on this machine."""
    return LaunchError(
        wanted,
        f"its data is recorded at {path}, which does not exist here",
        "Mount that file system into this container, or name a version whose data is here",
    )
