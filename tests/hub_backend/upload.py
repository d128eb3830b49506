"""Answers the requests of `hf upload` for small files: a repository, the way to send each file, and one commit."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub_backend.model import Model

__all__ = ["answer"]

_PATH = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)/(preupload|commit)/(.+)\Z")


def answer(model: Model, url: str, path: str, body: bytes) -> tuple[str, dict[str, Any]] | None:
    """The request's name and answer; None if the request is no upload.

    Args:
        model: The repositories.
        url: The hub's address.
        path: The request's path.
        body: The request's body.
    """
    if path == "/api/repos/create":
        asked = json.loads(body)
        name = "{}/{}".format(asked.get("organization") or "somebody", asked["name"])
        if model.find(asked.get("type") or "model", name) is None:
            model.seed(name, {}, kind=asked.get("type") or "model")
        return f"create {name}", {"url": f"{url}/{name}", "name": name, "id": name}
    found = _PATH.match(path)
    if found is None:
        return None
    kind, name, what, revision = found.groups()
    if what == "preupload":
        files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
        return f"preupload {name}", {"files": [{**one, "shouldIgnore": False, "oid": None} for one in files]}
    repository = model.find(kind, name)
    before = repository.commit(revision) if repository else None
    content = {one.path: one.content for one in before.files.values()} if before else {}
    for line in filter(None, body.split(b"\n")):
        operation = json.loads(line)
        if operation["key"] == "file":
            content[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
    sha = model.seed(name, content, kind=kind, branch=revision)
    return f"commit {name}", {"success": True, "commitOid": sha, "commitUrl": f"{url}/{name}/commit/{sha}"}
