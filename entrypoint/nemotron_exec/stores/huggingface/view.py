"""A job's own view of the cache, in which an id means the pinned commit.

A library that loads `org/model` offline takes the commit that `refs/main` in the cache names. Another job that asks the
hub may change that file while this job runs. The view is a directory for `HF_HUB_CACHE`. In it the `refs` of the pinned
repositories belong to the job. Everything else is a link into the cache, and no byte is copied.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from nemotron_exec.stores.huggingface.cache import VIEW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.stores.huggingface.cache import HubCache

__all__ = ["make_view"]

_REVISION = re.compile(r"@([^\s(]+)")


def make_view(directory: str, cache: HubCache, artifacts: Iterable[Artifact]) -> str:
    """Create the view. Return its path.

    Args:
        directory: A private and new directory, or a view that exists already.
        cache: The cache that the view shows.
        artifacts: The artifacts from the hub, each with its commit as `digest`.

    Raises:
        OSError: The view cannot be written.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with open(os.path.join(directory, VIEW), "w", encoding="utf-8") as file:
        file.write(cache.root)
    pinned = {}
    for artifact in artifacts:
        repository = cache.repository(artifact.type, artifact.name)
        pinned[os.path.basename(repository)] = artifact.digest or ""
        inside = os.path.join(directory, os.path.basename(repository))
        os.makedirs(os.path.join(inside, "refs"), mode=0o700, exist_ok=True)
        _link_all(repository, inside, but=("refs",))
        asked = _REVISION.search(artifact.reference)
        for revision in {"main", unquote(asked.group(1)) if asked else "main"}:
            path = os.path.join(inside, "refs", *revision.split("/"))
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write(pinned[os.path.basename(repository)])
    _link_all(cache.root, directory, but=(*pinned, VIEW))
    return directory


def _link_all(source: str, target: str, *, but: tuple[str, ...]) -> None:
    for name in os.listdir(source):
        if name not in but:
            with contextlib.suppress(FileExistsError):
                os.symlink(os.path.join(source, name), os.path.join(target, name))
