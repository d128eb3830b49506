"""Answers GraphQL operations by name, with a fixed superset of fields: clients ignore fields that are too many."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wandb_backend.model import Collection, Model, Project, Run, Version, now, org_entity

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GraphQL", "GraphQLError", "UnknownOperationError"]

Answer = dict[str, Any]

# The fields that clients before 0.24 or so look for by introspection. Other types have no fields.
_FIELDS = {
    "Query": "serverInfo viewer project artifact entity organization",
    "Mutation": "useArtifact createArtifact",
    "ServerInfo": "cliVersionInfo",
    "Project": "id internalId name artifact artifactType artifactCollectionMembership",
    "Artifact": "aliases tags commitHash fileCount historyStep ttlDurationSeconds ttlIsInherited artifactSequence",
    "Organization": "orgEntity",
    "UseArtifactInput": "entityName projectName runName artifactID usedAs",
    "AddAliasesInput": "artifactID aliases",
    "CreateArtifactInput": "historyStep tags ttlDurationSeconds clientID sequenceClientID",
}


class GraphQLError(Exception):
    """The server's refusal: HTTP `status` with `message`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnknownOperationError(GraphQLError):
    """An operation that this backend does not know. A test should fail by it."""

    def __init__(self, name: str) -> None:
        super().__init__(400, f"the test backend does not know the operation {name!r}")


def page(nodes: list[Any], cursor: str | None = None, count: int | None = None, **extra: Any) -> Answer:
    """A relay connection, in pages of `count` if the caller wants pages."""
    start = int(cursor or 0)
    stop = len(nodes) if count is None else min(start + count, len(nodes))
    return {
        "__typename": "Connection",
        "totalCount": len(nodes),
        "pageInfo": {"__typename": "PageInfo", "endCursor": str(stop), "hasNextPage": stop < len(nodes)},
        "edges": [{"cursor": str(start + i), "node": node, **extra} for i, node in enumerate(nodes[start:stop])],
    }


def identifier(kind: str, *parts: object) -> str:
    return base64.b64encode(f"{kind}:{':'.join(map(str, parts))}".encode()).decode()


class GraphQL:
    """Answers one operation at a time.

    Args:
        model: The state.
        url: `http://127.0.0.1:PORT` of the server, for the file URLs in answers.
    """

    def __init__(self, model: Model, url: str) -> None:
        self.model = model
        self.url = url
        self._answers: dict[str, Callable[[Answer], Answer]] = {
            name[4:]: getattr(self, name) for name in dir(self) if name.startswith("_op_")
        }

    def answer(self, name: str, query: str, variables: Answer) -> Answer:
        """`data` of the answer.

        Raises:
            GraphQLError: The server refuses.
        """
        if re.search(r"__type\s*\(", query):
            return self._probe(query, variables)
        if name not in self._answers:
            raise UnknownOperationError(name)
        with self.model.lock:
            return self._answers[name](variables)

    # ------------------------------------------------------------------ who and what

    def _op_Viewer(self, _: Answer) -> Answer:
        model = self.model
        teams = [entity for entity in model.entities if entity != model.user and not entity.endswith("_org")]
        viewer = {
            "__typename": "User",
            "id": identifier("User", model.user),
            "name": model.user,
            "username": model.user,
            "entity": model.default_entity,
            "email": f"{model.user}@example.com",
            "admin": False,
            "flags": "{}",
            "apiKeys": page([]),
            "teams": page([{"name": team} for team in teams]),
        }
        return {"viewer": viewer, "serverInfo": self._server_info()}

    _op_GetDefaultEntity = _op_Viewer
    _op_GetViewer = _op_Viewer

    @staticmethod
    def _server_info() -> Answer:
        return {
            "features": [],
            "cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.0.1"},
            "latestLocalVersionInfo": None,
        }

    def _op_ServerFeaturesQuery(self, _: Answer) -> Answer:
        return {"serverInfo": self._server_info()}

    _op_ServerInfo = _op_ServerFeaturesQuery

    def _op_OrganizationCoreWeaveOrganizationID(self, _: Answer) -> Answer:
        return {"entity": None}

    def _op_OrgFeatureFlags(self, _: Answer) -> Answer:
        return {"organization": None}

    def _op_XXHashDigestsEnabled(self, _: Answer) -> Answer:
        return {"entity": None, "serverInfo": self._server_info()}

    @staticmethod
    def _probe(query: str, variables: Answer) -> Answer:
        """Older clients ask which fields a type has before they use them."""
        asked = re.findall(r'(\w+)\s*:\s*__type\(\s*name\s*:\s*(?:"(\w+)"|\$\w+)', query)
        answer: Answer = {}
        for alias, name in asked:
            kind = name or variables.get("typeName") or ""
            fields = [{"name": field, "args": []} for field in _FIELDS.get(kind, "").split()]
            answer[alias] = {"name": kind, "fields": fields, "inputFields": fields}
        return answer

    def _op_FetchOrgInfoFromEntity(self, given: Answer) -> Answer:
        entity = given.get("entity") or given.get("referenceEntity") or given.get("entityName") or ""
        name = self.model.organizations.get(entity)
        if name is None:
            return {"entity": None}
        organization = {"name": name, "orgEntity": {"name": org_entity(name)}}
        personal = entity == self.model.user
        user = {"organizations": [organization]} if personal else None
        return {"entity": {"organization": None if personal else organization, "user": user}}

    _op_FetchOrgEntityFromEntity = _op_FetchOrgInfoFromEntity

    def _op_FetchOrgEntityFromOrganization(self, given: Answer) -> Answer:
        known = given["organization"] in self.model.organizations.values()
        return {"organization": {"orgEntity": {"name": org_entity(given["organization"])}} if known else None}

    # ------------------------------------------------------------------ artifacts, read

    def _project(self, entity: str, project: Project) -> Answer:
        return {
            "__typename": "Project",
            "id": identifier("Project", entity, project.name),
            "internalId": identifier("ProjectInternalId", entity, project.name),
            "name": project.name,
            "entityName": entity,
            "createdAt": now(),
            "isBenchmark": False,
            "user": None,
            "entity": {"name": entity, "id": identifier("Entity", entity)},
        }

    def _collection(self, entity: str, project: Project, collection: Collection) -> Answer:
        kind = {"name": collection.type}
        return {
            "__typename": "ArtifactPortfolio" if collection.portfolio else "ArtifactSequence",
            "id": identifier("ArtifactCollection", entity, project.name, collection.name),
            "name": collection.name,
            "description": None,
            "createdAt": now(),
            "updatedAt": now(),
            "project": self._project(entity, project),
            "type": kind,
            "defaultArtifactType": kind,
            "tags": page([]),
            "aliases": page([{"__typename": "ArtifactAlias", "id": identifier("Alias", name), "alias": name}
                             for name in collection.aliases]),
        }  # fmt: skip

    def _version(self, version: Version) -> Answer:
        project = self.model.project(version.entity, version.project)
        collection = project.collections.get(version.collection) or Collection(version.collection, version.type)
        sequence = self._collection(version.entity, project, collection)
        latest = collection.versions[-1] if collection.versions else None
        aliases = [name for name, index in collection.aliases.items() if index == version.index >= 0]
        size = sum(entry.get("size", 0) for entry in version.manifest["contents"].values())
        manifest_url = f"{self.url}/storage/{quote(version.id)}/wandb_manifest.json"
        return {
            "__typename": "Artifact",
            "id": version.id,
            "artifactSequence": {**sequence, "latestArtifact": {"id": latest.id} if latest else None},
            "versionIndex": max(version.index, 0),
            "artifactType": {"name": version.type},
            "description": version.description,
            "metadata": None if version.metadata is None else json.dumps(version.metadata),
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": version.state,
            "size": size,
            "digest": version.digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": f"commit-{version.digest}",
            "fileCount": len(version.manifest["contents"]),
            "createdAt": now(),
            "updatedAt": now(),
            "currentManifest": {
                "id": identifier("Manifest", version.id),
                "file": {"id": identifier("File", version.id), "directUrl": manifest_url, "url": manifest_url},
            },
            "aliases": [
                {
                    "__typename": "ArtifactAlias",
                    "id": identifier("Alias", version.id, name),
                    "alias": name,
                    "artifactCollection": sequence,
                    "artifactCollectionName": version.collection,
                }
                for name in [*aliases, *([f"v{version.index}"] if version.index >= 0 else [])]
            ],
        }

    def _membership(self, entity: str, project: Project, collection: Collection, position: int) -> Answer:
        version = collection.versions[position]
        names = [name for name, index in collection.aliases.items() if index == position] + [f"v{position}"]
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": identifier("Membership", collection.name, position),
            "versionIndex": position,
            "createdAt": now(),
            "aliases": [
                {"__typename": "ArtifactAlias", "id": identifier("Alias", collection.name, name), "alias": name}
                for name in names
            ],
            "artifactCollection": self._collection(entity, project, collection),
            "artifact": self._version(version),
        }

    def _found(self, given: Answer, key: str = "name") -> tuple[str, Project, Collection | None, int | None] | None:
        entity = given.get("entity") or given.get("entityName") or self.model.default_entity or ""
        project = self.model.find_project(entity, given.get("project") or given.get("projectName") or "")
        if project is None:
            return None
        name, _, alias = str(given[key]).partition(":")
        collection = project.collections.get(name)
        position = collection.find(alias or "latest") if collection else None
        return entity, project, collection, position

    def _op_ArtifactMembershipByName(self, given: Answer) -> Answer:
        if (found := self._found(given)) is None:
            return {"project": None}
        entity, project, collection, position = found
        shown: Answer | None = None
        if collection is not None and position is not None:
            shown = self._membership(entity, project, collection, position)
        return {"project": {**self._project(entity, project), "artifactCollectionMembership": shown}}

    _op_ArtifactViaMembershipByName = _op_ArtifactMembershipByName

    def _op_ArtifactByName(self, given: Answer) -> Answer:
        answer = self._op_ArtifactMembershipByName(given)
        if answer["project"] is not None:
            member = answer["project"]["artifactCollectionMembership"]
            answer["project"]["artifact"] = member and member["artifact"]
        return answer

    _op_ArtifactType = _op_ArtifactByName

    def _op_ArtifactByID(self, given: Answer) -> Answer:
        version = self.model.versions.get(given["id"])
        return {"artifact": version and self._version(version)}

    def _op_FetchArtifactManifest(self, given: Answer) -> Answer:
        if "id" in given:
            return self._op_ArtifactByID(given)
        return self._op_ArtifactByName(given)

    def _op_ArtifactManifest(self, given: Answer) -> Answer:
        return self._op_ArtifactByID({"id": given.get("artifactID") or given.get("id")})

    def _op_FetchArtifactDigestAlgorithm(self, given: Answer) -> Answer:
        return self._op_ArtifactManifest(given)

    def _op_FetchLinkedArtifacts(self, given: Answer) -> Answer:
        version = self.model.versions.get(given["artifactID"])
        shown = version and {**self._version(version), "artifactMemberships": page([])}
        return {"artifact": shown}

    def _files(self, version: Version, given: Answer) -> Answer:
        wanted = given.get("fileNames")
        contents = version.manifest["contents"]
        nodes = []
        for name, entry in contents.items():
            if wanted and name not in wanted:
                continue
            birth = entry.get("birthArtifactID") or version.id
            url = entry.get("ref") or f"{self.url}/storage/{quote(birth)}/{quote(name)}"
            nodes.append(
                {
                    "__typename": "File",
                    "id": identifier("File", version.id, name),
                    "name": name,
                    "displayName": name,
                    "url": url,
                    "directUrl": url,
                    "sizeBytes": entry.get("size", 0),
                    "storagePath": f"{birth}/{name}",
                    "mimetype": None,
                    "updatedAt": now(),
                    "digest": entry["digest"],
                    "md5": entry["digest"],
                }
            )
        cursor = given.get("cursor") or given.get("fileCursor")
        return page(nodes, cursor, given.get("perPage") or given.get("fileLimit"))

    def _op_GetArtifactMembershipFileUrls(self, given: Answer) -> Answer:
        name = given.get("collection") or given.get("artifactName") or ""
        alias = given.get("alias") or given.get("artifactVersionIndex") or "latest"
        found = self._found({**given, "name": f"{name}:{alias}"})
        if found is None:
            return {"project": None}
        entity, project, collection, position = found
        if collection is None or position is None:
            return {"project": {**self._project(entity, project), "artifactCollection": None}}
        files = self._files(collection.versions[position], given)
        shown = {
            **self._collection(entity, project, collection),
            "artifactMembership": {"__typename": "ArtifactCollectionMembership", "files": files},
        }
        return {"project": {**self._project(entity, project), "artifactCollection": shown}}

    _op_ArtifactMembershipFiles = _op_GetArtifactMembershipFileUrls
    _op_GetArtifactMembershipFiles = _op_GetArtifactMembershipFileUrls
    _op_ArtifactCollectionMembershipFiles = _op_GetArtifactMembershipFileUrls
    _op_ArtifactCollectionMembershipFileUrls = _op_GetArtifactMembershipFileUrls

    def _op_GetArtifactFileUrls(self, given: Answer) -> Answer:
        version = self.model.versions.get(given["id"])
        return {"artifact": version and {**self._version(version), "files": self._files(version, given)}}

    _op_ArtifactFileUrls = _op_GetArtifactFileUrls

    def _op_ArtifactFileURLs(self, given: Answer) -> Answer:
        return self._op_GetArtifactFileUrls({**given, "id": given.get("id") or given.get("artifactID")})

    def _op_GetArtifactFiles(self, given: Answer) -> Answer:
        found = self._found({**given, "name": given.get("artifactName") or given.get("name")})
        if found is None or found[2] is None or found[3] is None:
            return {"project": None}
        entity, project, collection, position = found
        files = self._files(collection.versions[position], given)
        artifact = {**self._version(collection.versions[position]), "files": files}
        return {"project": {**self._project(entity, project), "artifactType": {"artifact": artifact}}}

    _op_ArtifactVersionFiles = _op_GetArtifactFiles

    # ------------------------------------------------------------------ listings, for "the nearest name that exists"

    def _op_GetProjects(self, given: Answer) -> Answer:
        entity = given.get("entity") or ""
        projects = self.model.entities.get(entity)
        if projects is None:
            return {"models": page([])}
        return {"models": page([self._project(entity, p) for p in projects.values()], given.get("cursor"))}

    _op_Projects = _op_GetProjects

    def _types(self, project: Project) -> list[Answer]:
        kinds = sorted({collection.type for collection in project.collections.values()})
        return [
            {
                "__typename": "ArtifactType",
                "id": identifier("ArtifactType", kind),
                "name": kind,
                "description": None,
                "createdAt": now(),
            }
            for kind in kinds
        ]

    def _op_ProjectArtifactTypes(self, given: Answer) -> Answer:
        found = self._found({**given, "name": ""})
        if found is None:
            return {"project": None}
        entity, project, _, _ = found
        return {"project": {**self._project(entity, project), "artifactTypes": page(self._types(project))}}

    def _op_ProjectArtifactCollections(self, given: Answer) -> Answer:
        found = self._found({**given, "name": ""})
        if found is None:
            return {"project": None}
        entity, project, _, _ = found
        wanted = given.get("type") or given.get("artifactTypeName")
        nodes = [
            self._collection(entity, project, collection)
            for collection in project.collections.values()
            if wanted in (None, collection.type)
        ]
        listed = page(nodes)
        kind = {"artifactCollections": listed}
        return {"project": {**self._project(entity, project), "artifactType": kind, "artifactCollections": listed}}

    _op_ArtifactTypeArtifactCollections = _op_ProjectArtifactCollections

    def _op_ProjectArtifacts(self, given: Answer) -> Answer:
        found = self._found({**given, "name": given["collection"]})
        if found is None or found[2] is None:
            return {"project": None}
        entity, project, collection, _ = found
        listed = page([self._version(version) for version in reversed(collection.versions)])
        for edge in listed["edges"]:
            edge["version"] = f"v{edge['node']['versionIndex']}"
        shown = {**self._collection(entity, project, collection), "artifacts": listed}
        return {
            "project": {
                **self._project(entity, project),
                "artifactType": {"artifactCollection": shown, "artifactSequence": shown},
            }
        }

    def _op_ProjectArtifactCollection(self, given: Answer) -> Answer:
        name = given.get("name") or given.get("artifactCollectionName")
        found = self._found({**given, "name": name})
        if found is None or found[2] is None:
            return {"project": None}
        entity, project, collection, _ = found
        shown = self._collection(entity, project, collection)
        return {
            "project": {
                **self._project(entity, project),
                "artifactType": {"artifactCollection": shown, "artifactSequence": shown},
            }
        }

    def _op_ArtifactCollectionAliases(self, given: Answer) -> Answer:
        for entity, projects in self.model.entities.items():
            for project in projects.values():
                for collection in project.collections.values():
                    shown = self._collection(entity, project, collection)
                    if shown["id"] == given["id"]:
                        return {"artifactCollection": shown}
        return {"artifactCollection": None}

    # ------------------------------------------------------------------ artifacts, written

    @staticmethod
    def _input(given: Answer) -> Answer:
        return {**given, **(given.get("input") or {})}

    def _op_CreateArtifact(self, given: Answer) -> Answer:
        version = self.model.create_version(self._input(given))
        return {"createArtifact": {"artifact": self._version(version)}}

    def _op_CreateArtifactManifest(self, given: Answer) -> Answer:
        given = self._input(given)
        url = f"{self.url}/storage/{quote(given['artifactID'])}/wandb_manifest.json"
        file = {
            "id": identifier("ManifestFile", given["artifactID"]),
            "name": "wandb_manifest.json",
            "displayName": "wandb_manifest.json",
            "uploadUrl": url,
            "uploadHeaders": [],
        }
        shown = {"id": identifier("Manifest", given["artifactID"]), "file": file}
        return {"createArtifactManifest": {"artifactManifest": shown}}

    def _op_UpdateArtifactManifest(self, given: Answer) -> Answer:
        given = self._input(given)
        artifact = base64.b64decode(given["artifactManifestID"]).decode().split(":", 1)[1]
        answer = self._op_CreateArtifactManifest({**given, "artifactID": artifact})
        return {"updateArtifactManifest": answer["createArtifactManifest"]}

    def _op_CreateArtifactFiles(self, given: Answer) -> Answer:
        nodes = []
        for file in self._input(given)["artifactFiles"]:
            path = f"{file['artifactID']}/{file['name']}"
            nodes.append(
                {
                    "id": identifier("File", path),
                    "name": file["name"],
                    "displayName": file["name"],
                    "storagePath": path,
                    "uploadUrl": f"{self.url}/storage/{quote(path)}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
            )
        return {"createArtifactFiles": {"files": page(nodes)}}

    def _op_CommitArtifact(self, given: Answer) -> Answer:
        version = self.model.versions[self._input(given)["artifactID"]]
        blob = self.model.blobs.get(f"{version.id}/wandb_manifest.json")
        if blob is not None:
            version.manifest = json.loads(blob.data)
        if version.state != "COMMITTED":
            self.model.commit(version)
        return {"commitArtifact": {"artifact": self._version(version)}}

    def _op_UpdateArtifact(self, given: Answer) -> Answer:
        fields = self._input(given)
        version = self.model.versions[fields["artifactID"]]
        if fields.get("metadata"):
            version.metadata = json.loads(fields["metadata"])
        if fields.get("aliases"):
            collection = self.model.find_collection(version.entity, version.project, version.collection)
            for item in fields["aliases"]:
                if collection is not None:
                    collection.aliases[item["alias"]] = version.index
        shown = self._version(version)
        return {"updateArtifact": {"artifact": shown}, "result": {"artifact": shown}}

    def _op_AddAliases(self, given: Answer) -> Answer:
        fields = self._input(given)
        version = self.model.versions[fields["artifactID"]]
        collection = self.model.find_collection(version.entity, version.project, version.collection)
        for item in fields["aliases"]:
            if collection is not None:
                collection.aliases[item["alias"]] = version.index
        return {"addAliases": {"success": True}, "result": {"success": True}}

    def _op_DeleteAliases(self, given: Answer) -> Answer:
        fields = self._input(given)
        version = self.model.versions[fields["artifactID"]]
        collection = self.model.find_collection(version.entity, version.project, version.collection)
        for item in fields["aliases"]:
            if collection is not None:
                collection.aliases.pop(item["alias"], None)
        return {"deleteAliases": {"success": True}, "result": {"success": True}}

    def _op_UseArtifact(self, given: Answer) -> Answer:
        fields = self._input(given)
        version = self.model.versions[fields["artifactID"]]
        run = self.model.runs.get((fields["entityName"], fields["projectName"], fields["runName"]))
        if run is None:
            raise GraphQLError(404, f"run {fields['runName']} not found")
        run.used.append(version.qualified_name)
        return {"useArtifact": {"artifact": self._version(version)}}

    def _op_ClientIDMapping(self, given: Answer) -> Answer:
        (found,) = [v for v in self.model.versions.values() if v.client_id == given["clientID"]] or [None]
        return {"clientIDMapping": found and {"serverID": found.id}}

    # ------------------------------------------------------------------ runs

    def _run(self, run: Run) -> Answer:
        project = self.model.project(run.entity, run.project)
        history = json.dumps([json.dumps(row) for row in run.history[-1:]])
        return {
            "__typename": "Run",
            "id": identifier("Run", run.entity, run.project, run.id),
            "name": run.id,
            "displayName": run.id,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "projectId": 1,
            "summaryMetrics": "{}",
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": history,
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
            "state": ("failed" if run.exit_code else "finished") if run.finished else "running",
            "group": None,
            "jobType": None,
            "commit": None,
            "readOnly": False,
            "createdAt": now(),
            "heartbeatAt": now(),
            "systemMetrics": "{}",
            "user": {"name": self.model.user, "username": self.model.user},
            "historyKeys": None,
            "stopped": False,
            "project": self._project(run.entity, project),
        }

    def _op_UpsertBucket(self, given: Answer) -> Answer:
        entity = given.get("entity") or self.model.default_entity or self.model.user
        project, name = given.get("project") or "uncategorized", given.get("name") or given.get("id")
        if (entity, project, name) in self.model.deleted_runs:
            # The hosted service gives this answer (https://github.com/wandb/wandb/issues/4897). The client retries
            # until wandb.init gives up.
            message = f"run {entity}/{project}/{name} was previously created and deleted; try a new run name"
            raise GraphQLError(409, message)
        run, inserted = self.model.upsert_run(entity, project, str(name), given.get("config"))
        return {"upsertBucket": {"bucket": self._run(run), "inserted": inserted}}

    def _op_RunResumeStatus(self, given: Answer) -> Answer:
        entity = given.get("entity") or self.model.default_entity
        run = self.model.runs.get((entity or "", given.get("project") or "", given.get("name") or ""))
        shown = {"id": identifier("Entity", entity), "name": entity}
        return {
            "model": {"id": "UA==", "name": given.get("project"), "entity": shown, "bucket": run and self._run(run)}
        }

    def _known_run(self, given: Answer) -> tuple[Project, Run | None]:
        entity = given.get("entity") or self.model.default_entity or self.model.user
        name = given.get("name") or given.get("run") or given.get("runName") or ""
        project = self.model.project(entity, given["project"])
        return project, self.model.runs.get((entity, given["project"], name))

    def _op_Run(self, given: Answer) -> Answer:
        project, run = self._known_run(given)
        return {"project": {**self._project(given["entity"], project), "run": run and self._run(run)}}

    def _op_RunInputArtifacts(self, given: Answer) -> Answer:
        project, run = self._known_run(given)
        if run is None:
            return {"project": {**self._project(given["entity"], project), "run": None}}
        used = [version for version in self.model.versions.values() if version.qualified_name in run.used]
        listed = page([self._version(version) for version in used], given.get("cursor") or given.get("after"))
        return {
            "project": {
                **self._project(given["entity"], project),
                "run": {**self._run(run), "artifacts": listed, "inputArtifacts": listed},
            }
        }

    def _op_RunStoppedStatus(self, _: Answer) -> Answer:
        return {"project": {"run": {"stopped": False}}}

    def _op_RunState(self, _: Answer) -> Answer:
        return {"project": {"run": {"state": "running"}}}

    def _op_QueryRunInfo(self, given: Answer) -> Answer:
        return self._op_RunResumeStatus(given)

    def _op_MarkRunFilesUploaded(self, _: Answer) -> Answer:
        return {"markRunFilesUploaded": {"success": True}}

    def _op_CreateRunFiles(self, given: Answer) -> Answer:
        entity = given.get("entity") or given.get("entityName") or self.model.default_entity
        project, run = given.get("project") or given.get("projectName"), given.get("run") or given.get("runName")
        files = [
            {"name": name, "uploadUrl": f"{self.url}/run-files/{quote(f'{entity}/{project}/{run}/{name}')}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _op_RunUploadUrls(self, given: Answer) -> Answer:
        """`wandb sync` of clients before 0.26 or so uploads a run's files by this operation."""
        base = f"{given.get('entity') or self.model.default_entity}/{given['name']}/{given['run']}"
        files = page([{"name": name, "url": f"{self.url}/run-files/{quote(f'{base}/{name}')}", "updatedAt": now()}
                      for name in given["files"]])  # fmt: skip
        return {"model": {"bucket": {"id": identifier("Run", base), "files": {**files, "uploadHeaders": []}}}}

    def _op_NotifyScriptableRunAlert(self, _: Answer) -> Answer:
        return {"notifyScriptableRunAlert": {"success": True}}
