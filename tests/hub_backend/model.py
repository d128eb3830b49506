"""The repositories of the hub: commits, branches, tags and files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from hub_backend.xet import xet_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Commit", "File", "Model", "Repository"]

_LFS = (".safetensors", ".bin", ".parquet", ".arrow", ".gguf", ".pt", ".model", ".zip")
_SHA = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True)
class File:
    """One file of a commit. Its name decides whether it is in LFS (`.gitattributes` of a new repository)."""

    path: str
    content: bytes

    @property
    def lfs(self) -> bool:
        return self.path.endswith(_LFS)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Git's name of the blob; for LFS, of the pointer."""
        data = self.content
        if self.lfs:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def entry(self) -> dict[str, Any]:
        """The file's entry in the tree listing."""
        entry: dict[str, Any] = {"type": "file", "oid": self.oid, "size": len(self.content), "path": self.path}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry

    def sibling(self, blobs: bool) -> dict[str, Any]:
        """The file's entry in the repository's info; with its size under `?blobs=true`."""
        sibling: dict[str, Any] = {"rfilename": self.path}
        if blobs:
            sibling |= {"blobId": self.oid, "size": len(self.content)}
            if self.lfs:
                sibling["lfs"] = {"sha256": self.sha256, "size": len(self.content), "pointerSize": 134}
        return sibling


@dataclass(frozen=True)
class Commit:
    """One state of all files."""

    sha: str
    files: Mapping[str, File]


@dataclass
class Repository:
    """One repository.

    Attributes:
        kind: "model" or "dataset".
        id: `org/name`.
        commits: Commits by full hash.
        branches: Commit hash by name.
        tags: Commit hash by name.
        card: The card, in place of the YAML block of README.md.
        private: Invisible without an accepted token.
        gated: False, "auto" or "manual": the info is public, the files only for the tokens in `admitted`.
        admitted: Tokens whose owner has accepted the conditions.
        xet: Whether its LFS files are also in Xet storage.
    """

    kind: str
    id: str
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    private: bool = False
    gated: str | bool = False
    admitted: set[str] = field(default_factory=set)
    xet: bool = False

    def commit(self, revision: str) -> Commit | None:
        """The commit that a branch, tag or full hash names. The hub knows no short hash as a revision."""
        sha = self.branches.get(revision) or self.tags.get(revision) or (revision if _SHA.match(revision) else "")
        return self.commits.get(sha)

    def info(self, commit: Commit, *, blobs: bool) -> dict[str, Any]:
        """Answer of `/api/models/{id}/revision/{revision}`."""
        info: dict[str, Any] = {
            "_id": hashlib.sha1(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "author": self.id.partition("/")[0],
            "sha": commit.sha,
            "lastModified": "2026-01-02T03:04:05.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": self.card or _card_of(commit),
            "siblings": [file.sibling(blobs) for file in commit.files.values()],
        }
        if self.kind == "model":
            info["modelId"] = self.id
            if config := commit.files.get("config.json"):
                known = json.loads(config.content)
                info["config"] = {key: known[key] for key in ("architectures", "model_type") if key in known}
        return info

    def tree(self, commit: Commit) -> list[dict[str, Any]]:
        """All entries below the top, directories included."""
        directories = {path.rsplit("/", depth)[0] for path in commit.files for depth in range(1, path.count("/") + 1)}
        entries = [
            {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
            for name in sorted(directories)
        ]
        return entries + [
            file.entry() | ({"xetHash": xet_hash(file.content)} if self.xet and file.lfs else {})
            for file in commit.files.values()
        ]

    def refs(self) -> dict[str, Any]:
        """Answer of `/api/models/{id}/refs`."""
        return {
            "branches": [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in self.branches.items()
            ],
            "converts": [],
            "tags": [
                {"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha} for name, sha in self.tags.items()
            ],
        }


def _card_of(commit: Commit) -> dict[str, Any]:
    """The YAML block at the top of README.md."""
    readme = commit.files.get("README.md")
    _, mark, rest = readme.content.decode().partition("---\n") if readme else ("", "", "")
    return yaml.safe_load(rest.partition("---\n")[0]) or {} if mark else {}


class Model:
    """All repositories, by kind and id."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}

    def find(self, kind: str, name: str) -> Repository | None:
        return self.repositories.get((kind, name))

    def seed(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        kind: str = "model",
        branch: str = "main",
        tag: str | None = None,
        **settings: Any,
    ) -> str:
        """Commit `files`, the whole new state, to a branch. The branch is made if it is missing.

        Args:
            name: `org/name`.
            files: Content by path.
            kind: "model" or "dataset".
            branch: The branch to commit to.
            tag: A tag for the commit.
            **settings: `card`, `private`, `gated`, `admitted`, `xet` of the repository.

        Returns:
            The commit's full hash.
        """
        repository = self.repositories.setdefault((kind, name), Repository(kind, name))
        for setting, value in settings.items():
            setattr(repository, setting, value)
        content = {path: File(path, data) for path, data in files.items()}
        state = json.dumps([name, branch, len(repository.commits), {p: f.oid for p, f in content.items()}])
        sha = hashlib.sha1(state.encode()).hexdigest()
        repository.commits[sha] = Commit(sha, content)
        repository.branches[branch] = sha
        if tag:
            repository.tags[tag] = sha
        return sha
