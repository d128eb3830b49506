"""The process that talks to W&B: started by WandbStore, ended by it, and gone before the job begins.

It has the real client with its service process, its environment variable and its exit hooks, which can hang (facts:
wandb 0.31); none of them may reach the job. JSON lines: one request and answers to questions on stdin; progress,
questions, artifacts or one error on stdout. When stdin closes, the launcher is gone, and so are we.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import difflib
import itertools
import json
import os
import posixpath
import queue
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload.notice import redact
from nemotron_exec.stores.backend import LOGIN, Credentials, find_credentials
from nemotron_exec.stores.cache import ArtifactCache
from nemotron_exec.stores.download import Downloader, RemoteFile
from nemotron_exec.stores.wandb_reference import check_driver, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import NoReturn, TextIO

__all__ = ["check_server", "main"]

_ITERATION = re.compile(r"iter_(\d+)\Z")
_SMALL = 16 << 20  # bytes; a metadata.json is some hundred
_LISTED = 200  # names fetched to say which are near
_PARALLEL = 16
_REGISTRY = "wandb-registry-"
_VIEWER = "query Viewer { viewer { id entity username teams { edges { node { name } } } } }"


@dataclass(frozen=True)
class _Wanted:
    """One reference of the request."""

    index: int
    key: str
    text: str
    parts: tuple[str, ...]
    alias: str
    origin: str


class _Link:
    """Both directions of the pipe to the launcher."""

    def __init__(self, output: TextIO, lines: Iterable[str]) -> None:
        self._output = output
        self._lines = lines
        self._lock = threading.Lock()
        self._questions: dict[int, queue.SimpleQueue[str]] = {}
        self._numbers = itertools.count()

    def say(self, kind: str, **what: Any) -> None:
        line = json.dumps({"say": kind, **what}, default=str)
        with self._lock, contextlib.suppress(OSError):
            self._output.write(line + "\n")
            self._output.flush()

    def fail(self, error: LaunchError) -> None:
        """The last thing to be said."""
        self.say("error", wanted=error.wanted, found=error.found, remedy=error.remedy, exit_code=error.exit_code)
        self.say("done")

    def localise(self, path: str) -> str:
        """Ask the launcher where a path that was recorded elsewhere lies here."""
        number = next(self._numbers)
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._questions[number] = answer
        self.say("localise", id=number, path=path)
        return answer.get()

    def listen(self) -> None:
        """Hand answers to those who wait for them; end the process when the launcher is gone."""
        for line in self._lines:
            answer = json.loads(line)
            self._questions.pop(answer["id"]).put(answer["path"])
        _end(1)


class _Progress:
    """Adds up the bytes of one artifact, and tells at most ten times a second."""

    def __init__(self, link: _Link, what: str, done: int, total: int) -> None:
        self._link = link
        self._what = what
        self._done = done
        self._total = total
        self._lock = threading.Lock()
        self._last = 0.0

    def __call__(self, more: int) -> None:
        with self._lock:
            self._done += more
            now = time.monotonic()
            if now - self._last < 0.1 and self._done < self._total:
                return
            self._last = now
            done = self._done
        self._link.say("progress", what=self._what, done=min(done, self._total), total=self._total)


class _Server:
    """The W&B server, asked directly and once: which says why it cannot be used, where the client would not."""

    def __init__(self, base_url: str, credentials: Credentials | None) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc.rpartition("@")[2]
        self.viewer: Mapping[str, Any] = {}
        self._credentials = credentials
        # What the client takes from its environment for a server behind a proxy or with a certificate of its own.
        self._headers: dict[str, str] = {}
        with contextlib.suppress(ValueError):
            self._headers = dict(json.loads(os.environ.get("WANDB_X_EXTRA_HTTP_HEADERS") or "{}"))
        self._verify = os.environ.get("WANDB_INSECURE_DISABLE_SSL", "").lower() not in ("true", "1")

    def check(self, wanted: str, patience: float, tell: Callable[[str], None] = lambda _: None) -> None:
        """Whether it answers, and takes the key. Tries again for `patience` seconds what may pass; `tell` hears of it.

        Raises:
            LaunchError: The key is wrong, or has no access.
            TemporaryError: The server cannot be reached, or is not well.
        """
        deadline = time.monotonic() + patience
        for attempt in itertools.count():
            fault, pause = self._ask(wanted, max(1.0, min(20.0, deadline - time.monotonic())))
            if fault is None:
                return
            pause = min(0.5 * 2.0**attempt, 15.0) if pause is None else min(pause, 15.0)
            if time.monotonic() + pause > deadline:
                remedy = f"Start the job again when {self.host} is back, or use --backend manifest"
                raise TemporaryError(wanted, fault, remedy)
            tell(fault)
            time.sleep(pause)
        raise AssertionError

    def _ask(self, wanted: str, timeout: float) -> tuple[str | None, float | None]:
        """None if all is well, else what may pass, and for how long the server asks us to wait."""
        import requests

        key = self._credentials.key if self._credentials else None
        try:
            answer = requests.post(
                f"{self.base_url}/graphql",
                json={"query": _VIEWER, "operationName": "Viewer"},
                auth=("api", key) if key else None,
                headers=self._headers,
                verify=self._verify,
                timeout=(min(10.0, timeout), timeout),
            )
        except requests.exceptions.SSLError:
            found = f"the TLS certificate of {self.host} is not trusted"
            remedy = "Set REQUESTS_CA_BUNDLE to your authority's certificates, or check WANDB_BASE_URL"
            raise LaunchError(wanted, found, remedy) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema):
            remedy = "Set WANDB_BASE_URL to something like https://api.wandb.ai"
            raise LaunchError(wanted, f"{self.base_url!r} is not the address of a server", remedy) from None
        except requests.exceptions.ConnectTimeout:
            return f"{self.host} does not accept connections", None
        except requests.exceptions.Timeout:
            return f"{self.host} did not answer within {timeout:.0f} s", None
        except requests.RequestException as error:
            text = str(error)
            if "NameResolution" in text or "Name or service" in text or "name resolution" in text:
                return f"the name {self.host} is not known here (DNS)", None
            refused = "Connection refused" in text
            return f"{self.host} {'refuses connections' if refused else 'closed the connection'}", None
        status = answer.status_code
        if status == 401 and key:
            raise self.bad_key(wanted)
        if status == 403:
            raise self.no_access(wanted)
        if status in (408, 429) or status >= 500:
            try:
                return f"{self.host} answers HTTP {status}", float(answer.headers.get("Retry-After", ""))
            except ValueError:
                return f"{self.host} answers HTTP {status}", None
        if status == 200:
            with contextlib.suppress(ValueError, AttributeError):
                viewer = (answer.json().get("data") or {}).get("viewer")
                if viewer is None and key:
                    raise self.bad_key(wanted)
                self.viewer = viewer or {}
        # Anything else is for the client to make sense of.
        return None, None

    def bad_key(self, wanted: str) -> LaunchError:
        source = self._credentials.source if self._credentials else "none"
        return LaunchError(wanted, f"{self.host} does not accept the API key (from {source})", LOGIN)

    def no_access(self, wanted: str) -> LaunchError:
        return LaunchError(
            wanted,
            f"{self.host} denies access with this API key (HTTP 403)",
            "Ask the owner of the entity or project for access, or use another key",
        )


def check_server(base_url: str, credentials: Credentials, wanted: str, patience: float) -> Mapping[str, Any]:
    """Who the server says the key is of: `username`, `entity`, `teams`.

    Args:
        base_url: Of the server, without a trailing slash.
        credentials: The key.
        wanted: First part of every error.
        patience: Seconds for which what may pass is tried again.

    Raises:
        LaunchError: The key is wrong, or has no access.
        TemporaryError: The server cannot be reached, or is not well.
    """
    server = _Server(base_url, credentials)
    server.check(wanted, patience)
    return server.viewer


class _Resolver:
    """Looks up and fetches all references of one request."""

    def __init__(self, request: Mapping[str, Any], link: _Link, began: float) -> None:
        self._link = link
        self._project: str | None = request["project"]
        self._entity: str | None = request["entity"]
        self._cache_directory: str = request["cache"]
        self._deadline = began + request["timeout"]
        self._stall: float = request["stall"]
        self._wanted = [
            _Wanted(i, r["key"], r["text"], tuple(r["parts"]), r["alias"], r["origin"])
            for i, r in enumerate(request["references"])
        ]
        self._server = _Server(request["base_url"], find_credentials(os.environ))
        self._api: Any = None
        self._cache: ArtifactCache | None = None
        self._downloader: Downloader | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        """Resolve everything; the artifacts are told through the link.

        Raises:
            LaunchError: The first reference, in the config's order, that cannot be resolved.
        """
        everything = f"to look up {', '.join(w.text for w in self._wanted)} in W&B ({self._server.host})"
        # A look at the server costs nothing beside `import wandb`, and its answer is clearer than the client's.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            check = pool.submit(self._check, everything)
            client = _import_wandb(everything)
            check.result()
        self._entity = self._entity or self._server.viewer.get("entity")
        if self._entity:
            os.environ["WANDB_ENTITY"] = self._entity  # else the client asks for it with every look-up
        self._api = self._open_api(client, everything)
        self._entity = self._entity or self._api.default_entity
        groups: dict[str, list[_Wanted]] = {}
        for wanted in self._wanted:
            groups.setdefault(self._path(wanted), []).append(wanted)
        with concurrent.futures.ThreadPoolExecutor(min(_PARALLEL, len(groups))) as pool:
            futures = [pool.submit(self._resolve, path, group) for path, group in groups.items()]
            concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
            # What cannot be mended by waiting first: the user will have to change it anyway.
            errors = [e for f in futures if f.done() and isinstance(e := f.exception(), Exception)]
            if errors:
                known = [error for error in errors if isinstance(error, LaunchError)]
                known.sort(key=lambda error: isinstance(error, TemporaryError))
                raise (known or errors)[0]

    def _check(self, wanted: str) -> None:
        """Look at the server; what is wrong with it is said at once, however long the import still takes."""
        try:
            self._server.check(wanted, self._patience(), self._tell)
        except LaunchError as error:
            self._link.fail(error)
            _end(0)

    def _tell(self, fault: str) -> None:
        self._link.say("retry", found=fault)

    def _patience(self) -> float:
        """How long the API may be away, seconds: the downloads need the rest."""
        left: float = self._deadline - time.monotonic()
        return max(2.0, min(90.0, 0.6 * left))

    def _open_api(self, client: Any, wanted: str) -> Any:
        overrides = {name: value for name, value in (("entity", self._entity), ("project", self._project)) if value}
        try:
            return client.Api(timeout=max(2, int(self._patience())), overrides=overrides)
        except Exception as error:  # noqa: BLE001  (the client's own classes are too many, and change)
            self._raise_for(error, wanted)
            if "40" in str(error) and "character" in str(error):
                found = "the API key is malformed"
                raise LaunchError(wanted, found, LOGIN) from None
            raise LaunchError(wanted, _first_line(error), LOGIN) from None

    def _raise_for(self, error: Exception, wanted: str) -> None:
        """Raise what an error of the client means, if it concerns the key or the server rather than a name."""
        status = _http_status(error)
        if status == 401:
            raise self._server.bad_key(wanted) from None
        if status == 403:
            raise self._server.no_access(wanted) from None
        if status is None and isinstance(getattr(error, "exc", error), ValueError):
            return
        if status is None or status in (408, 429) or status >= 500:
            self._server.check(wanted, 5.0)
            if status is not None or "respond" in str(error) or "imed out" in str(error):
                seconds = f"HTTP {status}" if status else "no answer in time"
                remedy = "Start the job again later, or give it more time with --timeout"
                raise TemporaryError(wanted, f"{self._server.host}: {seconds}", remedy) from None

    # ------------------------------------------------------------------ one reference

    def _path(self, wanted: _Wanted) -> str:
        """What `Api.artifact` takes."""
        name = "/".join(wanted.parts)
        here = f"run.{wanted.key}: {wanted.text} ({wanted.origin})"
        if len(wanted.parts) > 3:
            raise LaunchError(f"to look up {here} in W&B", "it has more than two slashes", "Write entity/project/name")
        if len(wanted.parts) == 1:
            if not self._project:
                remedy = "Write project/name, or set run.wandb.project, [wandb] project in env.toml or WANDB_PROJECT"
                raise LaunchError(f"to look up {here} in W&B", "no project is known", remedy)
            name = f"{self._project}/{name}"
        # For a registry the entity is its organization's, which the client finds.
        if len(wanted.parts) < 3 and not name.startswith(_REGISTRY):
            if not self._entity:
                remedy = (
                    "Write entity/project/name, or set run.wandb.entity, [wandb] entity in env.toml or WANDB_ENTITY"
                )
                raise LaunchError(f"to look up {here} in W&B", "no entity is known", remedy)
            name = f"{self._entity}/{name}"
        return f"{name}:{wanted.alias}"

    def _resolve(self, path: str, group: list[_Wanted]) -> None:
        first = group[0]
        wanted = f"to resolve run.{first.key}: {first.text} ({first.origin}) in W&B as {path}"
        try:
            artifact = self._api.artifact(path)
        except Exception as error:  # noqa: BLE001
            self._raise_for(error, wanted)
            raise self._unknown(path, wanted, error) from None
        located = self._locate(artifact, wanted)
        for one in group:
            self._link.say("artifact", index=one.index, artifact={**located, "key": one.key, "reference": one.text})

    def _locate(self, artifact: Any, wanted: str) -> dict[str, Any]:
        """The artifact as Artifact.to_json gives it, without key and reference; its data is here afterwards."""
        qualified = str(artifact.source_qualified_name)
        name, _, version = qualified.rpartition("/")[2].partition(":")
        metadata = dict(artifact.metadata or {})
        entries = self._entries(artifact, wanted)
        path = self._recorded_path(metadata, wanted)
        real = [n for n, e in entries.items() if e.ref is None]
        data = [n for n in real if n != "metadata.json"]
        references = {n: _local(e.ref) for n, e in entries.items() if e.ref is not None and e.ref.startswith("file://")}
        fields: Any = None
        if path is None and references and not data and len(references) == len(entries) - (len(real) - len(data)):
            path = self._referenced_path(references, wanted)
        if path is None and not data and "absolute_path" in metadata:
            raise _not_here(wanted, str(metadata["absolute_path"]))
        if path is None:
            path = self._download(artifact, entries, references, wanted, f"{name}:{version}")
            fields = _read_json(os.path.join(path, "metadata.json"))
        elif "metadata.json" in real:
            fields = self._small_file(artifact, entries["metadata.json"], wanted)
        elif "metadata.json" in references:
            fields = _read_json(self._link.localise(references["metadata.json"]))
        fields = fields if isinstance(fields, dict) else {}
        path, iteration = _split_iteration(path)
        for table in (metadata, fields):
            given = table.get("iteration")
            if isinstance(given, int) and not isinstance(given, bool):
                iteration = given
        return {
            "store": "wandb",
            "name": name,
            "version": version,
            "type": str(artifact.type),
            "path": path,
            "qualified_name": qualified,
            "iteration": iteration,
            "digest": str(artifact.digest),
            "fields": fields,
            "metadata": metadata,
            "source": self._page(qualified, str(artifact.type)),
        }

    def _page(self, qualified: str, kind: str) -> str:
        """The version's page: built, for the client asks the server three times for it."""
        location, _, version = qualified.rpartition(":")
        entity, project, name = location.split("/")
        base = os.environ.get("WANDB_APP_URL") or self._server.base_url.replace(
            "https://api.wandb.ai", "https://wandb.ai"
        )
        return f"{base.rstrip('/')}/{entity}/{project}/artifacts/{quote(kind)}/{name}/{version}"

    def _entries(self, artifact: Any, wanted: str) -> dict[str, Any]:
        """The manifest's entries by path."""
        for attempt in itertools.count():
            try:
                entries = {str(name): entry for name, entry in artifact.manifest.entries.items()}
                break
            except Exception as error:  # noqa: BLE001
                self._raise_for(error, wanted)
                pause = 0.5 * 2.0**attempt
                self._tell(_first_line(error))
                if attempt == 3 or time.monotonic() + pause > self._deadline:
                    found = f"its manifest cannot be read ({_first_line(error)})"
                    raise TemporaryError(wanted, found, "Start the job again") from None
                time.sleep(pause)
        for name in entries:
            if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
                found = f"it holds a file named {name!r}, which would leave its directory"
                raise LaunchError(wanted, found, "Log the artifact anew")
        return entries

    def _recorded_path(self, metadata: Mapping[str, Any], wanted: str) -> str | None:
        """The path that the metadata names, where it exists here."""
        recorded = metadata.get("absolute_path")
        if not isinstance(recorded, str) or not recorded:
            return None
        if "://" in recorded:
            return recorded
        path = self._link.localise(recorded)
        if not os.path.exists(path):
            return None
        checkpoint = metadata.get("checkpoint_path")
        if isinstance(checkpoint, str) and checkpoint and not os.path.exists(self._link.localise(checkpoint)):
            found = f"its data, {checkpoint}, is gone"
            raise LaunchError(wanted, found, "Name another version, or restore that directory")
        return path

    def _referenced_path(self, references: Mapping[str, str], wanted: str) -> str:
        """The directory of an artifact that consists of `file://` references which exist here."""
        here = {name: self._link.localise(path) for name, path in references.items()}
        for name, path in here.items():
            if not os.path.exists(path):
                raise _not_here(wanted, references[name])
        if len(here) == 1 and os.path.isdir(only := next(iter(here.values()))):
            return only
        roots = {p[: -len(n) - 1] for n, p in here.items() if p.endswith("/" + n)}
        if len(roots) == 1 and all(p.endswith("/" + n) for n, p in here.items()):
            return roots.pop() or "/"
        if len(here) == 1:
            return posixpath.dirname(next(iter(here.values())))
        return posixpath.commonpath(here.values())

    # ------------------------------------------------------------------ bytes

    def _download(
        self, artifact: Any, entries: Mapping[str, Any], references: Mapping[str, str], wanted: str, what: str
    ) -> str:
        """The directory with all files of the artifact, from the cache if they are there."""
        with self._lock:
            if self._cache is None:
                self._cache = ArtifactCache(self._cache_directory)
            cache = self._cache
        digest = str(artifact.digest)
        remote = [n for n, e in entries.items() if e.ref is not None and n not in references]
        files = {n: _remote_file(n, e) for n, e in entries.items() if e.ref is None}
        sizes = {n: f.size for n, f in files.items() if f.size is not None}
        links = {n: self._link.localise(p) for n, p in references.items()}
        for name, path in links.items():
            if not os.path.exists(path):
                raise _not_here(wanted, references[name])
        goal = cache.path(digest)
        unsized = [n for n in [*files, *remote, *links] if n not in sizes]

        def lacks() -> list[str]:
            return cache.missing(digest, sizes) + [n for n in unsized if not os.path.lexists(os.path.join(goal, n))]

        def wait() -> bool:
            if time.monotonic() > self._deadline:
                raise TemporaryError(wanted, "another launcher is still downloading it", "Start the job again")
            self._link.say("waiting", what=what)
            return bool(lacks())

        if not lacks():
            return goal
        for name in remote:
            check_driver(name, str(entries[name].ref), wanted)
        with cache.lease(digest, wait):
            missing = lacks()
            if not missing:
                return goal
            partial = cache.partial(digest)
            todo = [files[n] for n in missing if n in files]
            total = sum(f.size or 0 for f in todo) + sum(entries[n].size or 0 for n in missing if n in remote)
            cache.forget_abandoned(digest)
            with cache.room(max(0, total - _present(partial, todo)), wanted):
                progress = _Progress(self._link, what, 0, total)
                progress(0)
                self._fetcher().fetch(
                    todo,
                    partial,
                    wanted=wanted,
                    url=self._urls(artifact, wanted),
                    progress=progress,
                    tell=lambda fault: self._link.say("retry", what=what, found=f"{what}, {fault}"),
                )
                for name in (n for n in missing if n in links):
                    target = os.path.join(partial, name)
                    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        os.symlink(links[name], target)
                fetch(
                    {n: artifact.get_entry(n) for n in missing if n in remote},
                    partial,
                    wanted=wanted,
                    deadline=self._deadline,
                    alive=lambda uri: self._link.say("busy", what=f"{what}: {uri}"),
                    progress=progress,
                )
            return cache.publish(digest)

    def _small_file(self, artifact: Any, entry: Any, wanted: str) -> Any:
        data = self._fetcher().get(
            _remote_file("metadata.json", entry),
            wanted=wanted,
            url=self._urls(artifact, wanted, ["metadata.json"]),
            limit=_SMALL,
        )
        with contextlib.suppress(ValueError):
            return json.loads(data)
        return None

    def _fetcher(self) -> Downloader:
        with self._lock:
            if self._downloader is None:
                self._downloader = Downloader(self._deadline, stall=self._stall)
            return self._downloader

    def _urls(self, artifact: Any, wanted: str, names: list[str] | None = None) -> Callable[[str, bool], str]:
        """Where each file is: listed once, asked again for one whose URL has expired."""
        known: dict[str, str] = {}
        lock = threading.Lock()

        def url(name: str, fresh: bool) -> str:
            with lock:
                if not known:
                    known.update(self._list(artifact, wanted, names))
                elif fresh or name not in known:
                    known.update(self._list(artifact, wanted, [name]))
                if name not in known:
                    found = f"W&B's manifest names {name}, and its list of files does not"
                    raise LaunchError(wanted, found, "Log the artifact anew")
                return known[name]

        return url

    def _list(self, artifact: Any, wanted: str, names: list[str] | None) -> dict[str, str]:
        try:
            return {str(f.name): str(f.direct_url) for f in artifact.files(names=names, per_page=1000)}
        except Exception as error:  # noqa: BLE001
            self._raise_for(error, wanted)
            found = f"its files cannot be listed ({_first_line(error)})"
            raise TemporaryError(wanted, found, "Start the job again") from None

    # ------------------------------------------------------------------ names that do not exist

    def _unknown(self, path: str, wanted: str, error: Exception) -> LaunchError:
        """Which part of a path does not exist, and what there is instead."""
        api = self._api
        location, _, alias = path.rpartition(":")
        parts = location.split("/")
        try:
            if len(parts) != 3 or parts[1].startswith(_REGISTRY):
                return LaunchError(wanted, _first_line(error), "Check the names of registry, collection and alias")
            entity, project, name = parts
            projects = _names(api.projects(entity))
            if project not in projects:
                if not projects:
                    near = _near(entity, self._entities())
                    return LaunchError(wanted, f"W&B shows this key no project of the entity {entity!r}", near)
                return LaunchError(wanted, f"{entity} has no project {project!r}", _near(project, projects))
            kinds = {c.name: t.name for t in api.artifact_types(f"{entity}/{project}") for c in _some(t.collections())}
            if name not in kinds:
                found = f"the project {entity}/{project} has no artifact {name!r}"
                return LaunchError(wanted, found, _near(name, list(kinds)))
            versions = list(_some(api.artifacts(kinds[name], location)))
            aliases = {a: None for v in versions for a in (*v.aliases, v.version)}
            found = f"{location} has no version or alias {alias!r}"
            return LaunchError(wanted, found, _near(alias, [str(a) for a in aliases]))
        except Exception as second:  # noqa: BLE001
            if isinstance(second, LaunchError):
                return second
            return LaunchError(wanted, _first_line(error), "Check entity, project, name and version")

    def _entities(self) -> list[str]:
        """Entities of the key: its user, its default, its teams."""
        viewer = self._server.viewer
        edges = (viewer.get("teams") or {}).get("edges") or []
        names = [viewer.get("entity"), viewer.get("username"), *(edge["node"]["name"] for edge in edges)]
        return list(dict.fromkeys(str(name) for name in names if name))


# ---------------------------------------------------------------------- small things


def _import_wandb(wanted: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        found = f"the package wandb cannot be imported ({_first_line(error)})"
        raise LaunchError(wanted, found, f"Install it with: {sys.executable} -m pip install 'wandb>=0.22'") from None
    return wandb


def _http_status(error: BaseException) -> int | None:
    """The HTTP status behind an error of the client, whichever of its layers keeps it."""
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


def _first_line(error: BaseException) -> str:
    """What an error says, without the query of any URL: presigned ones hold a signature."""
    text = redact(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _some(things: Iterable[Any]) -> Iterable[Any]:
    return itertools.islice(iter(things), _LISTED)


def _names(things: Iterable[Any]) -> list[str]:
    return [str(thing.name) for thing in _some(things)]


def _near(name: str, known: list[str]) -> str:
    """What to write instead."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)[:8]
    if not near:
        return "Check the name, and that the key has access"
    more = len(known) - len(near)
    return f"Nearest that exist: {', '.join(near)}" + (f" ({more} more)" if more > 0 else "")


def _local(uri: str) -> str:
    """The path of a `file://` reference, as wandb reads it: nothing is unquoted."""
    url = urlsplit(uri)
    return f"{url.netloc}{url.path}"


def _not_here(wanted: str, path: str) -> LaunchError:
    return LaunchError(
        wanted,
        f"its data is recorded at {path}, which does not exist here",
        "Mount that file system into this container, or name a version whose data is here",
    )


def _split_iteration(path: str) -> tuple[str, int | None]:
    """The older form of checkpoint artifacts names `…/iter_N`: the checkpoint is its parent, N the iteration."""
    found = _ITERATION.match(posixpath.basename(path.rstrip("/")))
    return (posixpath.dirname(path.rstrip("/")), int(found.group(1))) if found else (path, None)


def _read_json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(_SMALL))
    except (OSError, ValueError):
        return None


def _remote_file(name: str, entry: Any) -> RemoteFile:
    # wandb/sdk/artifacts/artifact_manifest_entry.py, DIGEST_ALGORITHM_EXTRA_KEY; older manifests know only MD5.
    algorithm = str((getattr(entry, "extra", None) or {}).get("alg") or "md5").lower()
    return RemoteFile(name, entry.size, str(entry.digest), algorithm)


def _present(directory: str, files: Iterable[RemoteFile]) -> int:
    """Bytes of `files` that an earlier attempt has left."""
    found = 0
    for file in files:
        with contextlib.suppress(OSError):
            found += os.stat(os.path.join(directory, file.name)).st_size
    return found


# ---------------------------------------------------------------------- the process


def _end(code: int) -> NoReturn:
    """Leave without exit hooks, and take the client's service process along."""
    with contextlib.suppress(Exception):
        import psutil

        children = psutil.Process().children(recursive=True)
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=2)
    os._exit(code)


def main() -> NoReturn:
    """Serve one request and end."""
    began = time.monotonic()
    # What wandb and its service print must not run into the protocol.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.set_inheritable(output.fileno(), False)
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(1))
    request = json.loads(sys.stdin.readline())
    link = _Link(output, sys.stdin)
    threading.Thread(target=link.listen, daemon=True).start()
    try:
        _Resolver(request, link, began).run()
    except LaunchError as error:
        link.fail(error)
        _end(0)
    except BaseException as error:  # noqa: BLE001  (the launcher must hear of it, whatever it is)
        import traceback

        traceback.print_exc()
        link.say("crash", found=_first_line(error))
    link.say("done")
    _end(0)


if __name__ == "__main__":
    main()
