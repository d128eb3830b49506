"""The process that talks to W&B. WandbStore starts and ends it, before the job begins.

It uses the real client, whose service process and exit hooks can hang (facts: wandb 0.31). None of them may reach the
job. It reads JSON lines on stdin: one request, and answers to its questions. It writes progress, questions, artifacts
or one error on stdout. When stdin closes, the launcher has ended, and this process ends, too.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.sitecustomize.payload.artifact import describe
from nemotron_exec.stores.wandb.connection import Connection
from nemotron_exec.stores.wandb.faults import first_line, not_here
from nemotron_exec.stores.wandb.fetch import Fetcher, read_json
from nemotron_exec.stores.wandb.link import Link, end_process
from nemotron_exec.stores.wandb.location import list_entries, local_path, page_of, recorded_path, referenced_path
from nemotron_exec.stores.wandb.nearest import REGISTRY, explain_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

__all__ = ["main"]

_PARALLEL = 16


@dataclass(frozen=True)
class _Wanted:
    """One reference of the request."""

    index: int
    key: str
    text: str
    parts: tuple[str, ...]
    alias: str
    origin: str


class _Resolver:
    """Looks up and fetches all references of one request."""

    def __init__(self, request: Mapping[str, Any], link: Link, began: float) -> None:
        self._link = link
        self._deadline = began + request["timeout"]
        self._wanted = [
            _Wanted(i, r["key"], r["text"], tuple(r["parts"]), r["alias"], r["origin"])
            for i, r in enumerate(request["references"])
        ]
        self._connection = Connection(link, request["base_url"], request["entity"], request["project"], self._deadline)
        self._fetcher = Fetcher(
            self._connection, link, request["cache"], deadline=self._deadline, stall=request["stall"]
        )

    def run(self) -> None:
        """Resolve all references, and send the artifacts through the link.

        Raises:
            LaunchError: The error of the first reference, in the order of the config, that cannot be resolved.
        """
        host = self._connection.server.host
        self._connection.open(f"to look up {', '.join(w.text for w in self._wanted)} in W&B ({host})")
        groups: dict[str, list[_Wanted]] = {}
        for wanted in self._wanted:
            groups.setdefault(self._path(wanted), []).append(wanted)
        with concurrent.futures.ThreadPoolExecutor(min(_PARALLEL, len(groups))) as pool:
            futures = [pool.submit(self._resolve, path, group) for path, group in groups.items()]
            concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
        # The pool has waited for what had begun: a look-up that was under way may have found a lasting error.
        errors = [error for future in futures if isinstance(error := future.exception(), Exception)]
        if errors:
            known = [error for error in errors if isinstance(error, LaunchError)]
            # Report a lasting error first: the user has to mend it anyway.
            known.sort(key=lambda error: isinstance(error, TemporaryError))
            raise (known or errors)[0]

    def _path(self, wanted: _Wanted) -> str:
        """The path of a reference in the form that `Api.artifact` takes."""
        name = "/".join(wanted.parts)
        here = f"run.{wanted.key}: {wanted.text} ({wanted.origin})"
        if len(wanted.parts) > 3:
            # No name in W&B has slashes. Nemotron's recipes write slashes where its data preparation writes dashes.
            name = "-".join(wanted.parts)
            self._link.say("note", what=f"run.{wanted.key}: {wanted.text} is looked up as {name}")
        if len(wanted.parts) == 1 or len(wanted.parts) > 3:
            if not self._connection.project:
                remedy = "Write project/name, or set run.wandb.project, [wandb] project in env.toml or WANDB_PROJECT"
                raise LaunchError(f"to look up {here} in W&B", "no project is known", remedy)
            name = f"{self._connection.project}/{name}"
        # For a registry the client itself finds the entity, which is the organization's.
        if len(wanted.parts) != 3 and not name.startswith(REGISTRY):
            if not self._connection.entity:
                remedy = (
                    "Write entity/project/name, or set run.wandb.entity, [wandb] entity in env.toml or WANDB_ENTITY"
                )
                raise LaunchError(f"to look up {here} in W&B", "no entity is known", remedy)
            name = f"{self._connection.entity}/{name}"
        return f"{name}:{wanted.alias}"

    def _resolve(self, path: str, group: list[_Wanted]) -> None:
        first = group[0]
        wanted = f"to resolve run.{first.key}: {first.text} ({first.origin}) in W&B as {path}"
        try:
            artifact = self._connection.api.artifact(path)
        except Exception as error:  # noqa: BLE001
            self._connection.raise_for(error, wanted)
            artifact = self._kebab(first)
            if artifact is None:
                raise explain_unknown(self._connection, path, wanted, error) from None
        located = self._locate(artifact, wanted)
        for one in group:
            self._link.say("artifact", index=one.index, artifact={**located, "key": one.key, "reference": one.text})

    def _kebab(self, wanted: _Wanted) -> Any:
        """The artifact `a-b-c`, after `a/b/c` was unknown as entity, project and name; None if it is unknown, too."""
        if len(wanted.parts) not in (2, 3) or not self._connection.project or not self._connection.entity:
            return None
        name = "-".join(wanted.parts)
        try:
            artifact = self._connection.api.artifact(
                f"{self._connection.entity}/{self._connection.project}/{name}:{wanted.alias}"
            )
        except Exception:  # noqa: BLE001  (the caller shows the error of the first look-up)
            return None
        self._link.say("note", what=f"run.{wanted.key}: W&B has no {'/'.join(wanted.parts)}; using {name}")
        return artifact

    def _locate(self, artifact: Any, wanted: str) -> dict[str, Any]:
        """Bring an artifact's data here. Return it in the form of `Artifact.to_json`, without key and reference."""
        qualified = str(artifact.source_qualified_name)
        name, _, version = qualified.rpartition("/")[2].partition(":")
        metadata = dict(artifact.metadata or {})
        entries = list_entries(self._connection, artifact, wanted, self._deadline)
        path = recorded_path(metadata, wanted, self._link.localise)
        real = [n for n, e in entries.items() if e.ref is None]
        data = [n for n in real if n != "metadata.json"]
        references = {
            n: local_path(e.ref) for n, e in entries.items() if e.ref is not None and e.ref.startswith("file://")
        }
        fields: Any = None
        if path is None and references and not data and len(references) == len(entries) - (len(real) - len(data)):
            path = referenced_path(references, wanted, self._link.localise)
        if path is None and not data and "absolute_path" in metadata:
            raise not_here(wanted, str(metadata["absolute_path"]))
        if path is None:
            path = self._fetcher.download(artifact, entries, references, wanted, f"{name}:{version}")
            fields = read_json(os.path.join(path, "metadata.json"))
        elif "metadata.json" in real:
            fields = self._fetcher.small_file(artifact, entries["metadata.json"], wanted)
        elif "metadata.json" in references:
            fields = read_json(self._link.localise(references["metadata.json"]))
        described: dict[str, Any] = describe(
            "",
            "",
            "wandb",
            name,
            version,
            path,
            qualified,
            str(artifact.type),
            fields=fields,
            metadata=metadata,
            digest=str(artifact.digest),
            source=page_of(self._connection.app_url, qualified, str(artifact.type)),
        )
        return described


def main() -> NoReturn:
    """Serve one request, and exit."""
    began = time.monotonic()
    # Redirect stdout: output of wandb and its service must not mix with the messages.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.set_inheritable(output.fileno(), False)
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: end_process(1))
    request = json.loads(sys.stdin.readline())
    link = Link(output, sys.stdin)
    threading.Thread(target=link.listen, daemon=True).start()
    try:
        _Resolver(request, link, began).run()
    except LaunchError as error:
        link.fail(error)
        end_process(0)
    except BaseException as error:  # noqa: BLE001  (the launcher must get a message about any fault)
        import traceback

        traceback.print_exc()
        link.say("crash", found=first_line(error))
    link.say("done")
    end_process(0)


if __name__ == "__main__":
    main()
