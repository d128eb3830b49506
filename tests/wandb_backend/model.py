"""The backend's state: projects, artifact versions, registries, runs, bytes. server.py has the HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Blob", "Collection", "Model", "Project", "Run", "Version", "md5_base64"]


def md5_base64(data: bytes) -> str:
    """The digest that W&B's manifests carry."""
    return base64.b64encode(hashlib.md5(data).digest()).decode()


@dataclass(frozen=True)
class Blob:
    """Bytes for a URL: stored, or `size` bytes made from a short pattern, so that big files take no memory."""

    data: bytes = b""
    size: int = 0

    @property
    def length(self) -> int:
        return self.size or len(self.data)

    def read(self, start: int, count: int) -> bytes:
        if not self.size:
            return self.data[start : start + count]
        count = min(count, self.size - start)
        pattern = self.data
        first = start % len(pattern)
        return (pattern * ((first + count) // len(pattern) + 1))[first : first + count]

    def md5_base64(self) -> str:
        digest = hashlib.md5()
        for start in range(0, self.length, 1 << 22):
            digest.update(self.read(start, 1 << 22))
        return base64.b64encode(digest.digest()).decode()


@dataclass
class Version:
    """One version of an artifact, owned by the collection that it was logged to."""

    id: str
    entity: str
    project: str
    collection: str
    index: int
    type: str
    digest: str
    metadata: dict[str, Any] | None
    manifest: dict[str, Any]
    state: str = "COMMITTED"
    description: str | None = None
    logged_by: str | None = None
    client_id: str | None = None
    aliases_wanted: list[str] = field(default_factory=list)
    manifest_file: str | None = None

    @property
    def qualified_name(self) -> str:
        return f"{self.entity}/{self.project}/{self.collection}:v{self.index}"


@dataclass
class Collection:
    """A sequence of versions, or (in a registry) a portfolio of linked ones."""

    name: str
    type: str
    portfolio: bool = False
    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)

    def find(self, alias: str) -> int | None:
        """Position of the version that `alias` names, `vN` included."""
        if alias in self.aliases:
            return self.aliases[alias]
        if alias[:1] == "v" and alias[1:].isdigit() and int(alias[1:]) < len(self.versions):
            return int(alias[1:])
        return None


@dataclass
class Project:
    name: str
    collections: dict[str, Collection] = field(default_factory=dict)


@dataclass
class Run:
    """One run, as its client described it."""

    entity: str
    project: str
    id: str
    config: dict[str, Any] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    upserts: int = 0
    starts: int = 0

    @property
    def finished(self) -> bool:
        return self.exit_code is not None


class Model:
    """All state. Every method takes the lock. Tests read plain data afterwards."""

    def __init__(self, user: str = "tester", default_entity: str | None = "team") -> None:
        self.user = user
        self.default_entity = default_entity
        self.entities: dict[str, dict[str, Project]] = {}
        self.organizations: dict[str, str] = {}  # entity -> name of its organization
        self.runs: dict[tuple[str, str, str], Run] = {}
        self.deleted_runs: set[tuple[str, str, str]] = set()
        self.versions: dict[str, Version] = {}
        self.blobs: dict[str, Blob] = {}
        self.lock = threading.RLock()
        self._next = 0
        for entity in filter(None, (user, default_entity)):
            self.entities[entity] = {}
            self.organizations[entity] = "acme"

    # ------------------------------------------------------------------ seeding

    def seed(
        self,
        path: str,
        *,
        files: dict[str, bytes | Blob] | None = None,
        references: dict[str, str | dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
        type: str = "dataset",
        aliases: tuple[str, ...] = ("latest",),
    ) -> Version:
        """Add one version to `entity/project/name`, as if a run had logged it.

        Args:
            path: `entity/project/name`.
            files: Content by name.
            references: URI by entry name (`{"iter_7": "file:///ckpt/iter_7"}`), or the manifest's whole entry.
        """
        entity, project, name = path.split("/")
        contents: dict[str, Any] = {}
        with self.lock:
            version = self._new_version(entity, project, name, type, metadata)
            for file, given in (files or {}).items():
                blob = given if isinstance(given, Blob) else Blob(given)
                digest = blob.md5_base64()
                self.blobs[f"{version.id}/{file}"] = blob
                contents[file] = {"digest": digest, "size": blob.length, "birthArtifactID": version.id}
            for entry, uri in (references or {}).items():
                whole = uri if isinstance(uri, dict) else {"ref": uri, "digest": hashlib.md5(uri.encode()).hexdigest()}
                contents[entry] = {"size": 0, **whole}
            version.manifest["contents"] = contents
            lines = "".join(f"{entry}:{contents[entry]['digest']}\n" for entry in sorted(contents))
            version.digest = hashlib.md5(("wandb-artifact-manifest-v1\n" + lines).encode()).hexdigest()
            version.state = "COMMITTED"
            self.commit(version, aliases)
        return version

    def link(self, source: Version, registry: str, collection: str, *aliases: str, organization: str = "acme") -> None:
        """Link a version into `wandb-registry-<registry>/<collection>` of an organization."""
        with self.lock:
            home = self.entities.setdefault(org_entity(organization), {})
            project = home.setdefault(f"wandb-registry-{registry}", Project(f"wandb-registry-{registry}"))
            portfolio = project.collections.setdefault(collection, Collection(collection, source.type, portfolio=True))
            portfolio.versions.append(source)
            for alias in ("latest", *aliases):
                portfolio.aliases[alias] = len(portfolio.versions) - 1

    def delete_run(self, entity: str, project: str, run: str) -> None:
        with self.lock:
            self.runs.pop((entity, project, run), None)
            self.deleted_runs.add((entity, project, run))

    # ------------------------------------------------------------------ versions

    def _new_version(
        self, entity: str, project: str, name: str, type: str, metadata: dict[str, Any] | None, digest: str = ""
    ) -> Version:
        self.project(entity, project)
        self._next += 1
        identifier = base64.b64encode(f"Artifact:{self._next}".encode()).decode()
        manifest = {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {"storageLayout": "V2"},
            "contents": {},
        }
        version = Version(identifier, entity, project, name, -1, type, digest, metadata, manifest, state="PENDING")
        self.versions[identifier] = version
        return version

    def create_version(self, fields: dict[str, Any]) -> Version:
        """CreateArtifact: a pending version, or the newest one if that has the same digest (assumed)."""
        with self.lock:
            entity, project = fields["entityName"], fields["projectName"]
            name = fields.get("artifactCollectionName") or (fields.get("artifactCollectionNames") or ["unnamed"])[0]
            aliases = [item["alias"] for item in fields.get("aliases") or []]
            collection = self.project(entity, project).collections.get(name)
            run = self.runs.get((entity, project, fields.get("runName") or ""))
            if collection and collection.versions and collection.versions[-1].digest == fields["digest"]:
                for alias in aliases:
                    collection.aliases[alias] = len(collection.versions) - 1
                return collection.versions[-1]
            metadata = json.loads(fields["metadata"]) if fields.get("metadata") else None
            version = self._new_version(entity, project, name, fields["artifactTypeName"], metadata, fields["digest"])
            version.description = fields.get("description")
            version.client_id = fields.get("clientID")
            version.aliases_wanted = aliases
            version.logged_by = run.id if run else None
            return version

    def commit(self, version: Version, aliases: tuple[str, ...] | list[str] | None = None) -> None:
        """Give the version its number and move the aliases."""
        with self.lock:
            project = self.project(version.entity, version.project)
            collection = project.collections.setdefault(
                version.collection, Collection(version.collection, version.type)
            )
            version.index = len(collection.versions)
            version.state = "COMMITTED"
            collection.versions.append(version)
            for alias in version.aliases_wanted if aliases is None else aliases:
                collection.aliases[alias] = version.index
            run = self.runs.get((version.entity, version.project, version.logged_by or ""))
            if run is not None:
                run.logged.append(version.qualified_name)

    def project(self, entity: str, name: str) -> Project:
        """The project. It is made if it is missing, as by a first run."""
        with self.lock:
            if entity not in self.organizations and not entity.endswith("_org"):
                self.organizations[entity] = "acme"
            return self.entities.setdefault(entity, {}).setdefault(name, Project(name))

    def find_project(self, entity: str, name: str) -> Project | None:
        return self.entities.get(entity, {}).get(name)

    def find_collection(self, entity: str, project: str, name: str) -> Collection | None:
        found = self.find_project(entity, project)
        return found.collections.get(name) if found else None

    # ------------------------------------------------------------------ runs

    def upsert_run(self, entity: str, project: str, name: str, config: str | None) -> tuple[Run, bool]:
        with self.lock:
            self.project(entity, project)
            key = (entity, project, name)
            inserted = key not in self.runs
            run = self.runs.setdefault(key, Run(entity, project, name))
            run.upserts += 1
            if config:
                run.config.update(json.loads(config))
            return run, inserted

    def run(self, name: str) -> Run:
        """The run with that id, in any project."""
        (found,) = [run for run in self.runs.values() if run.id == name]
        return found


def org_entity(organization: str) -> str:
    """Assumed: the entity that an organization's registries lie under."""
    return f"{organization}_org"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
