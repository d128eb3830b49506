"""The Hugging Face hub as a store: complete files in the cache need no request, a child process fetches the others."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.artifacts.hub import HUB, hub_name
from nemotron_exec.errors import TemporaryError
from nemotron_exec.stores.huggingface.cache import OUTER, HubCache, Record, cache_directory, is_commit, is_on, selected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
    from nemotron_exec.stores.protocol import Progress, StoreContext

__all__ = ["HuggingFaceStore", "endpoint"]

_SMALL = 4 << 20  # bytes; a config.json has some thousand
_SHORT = 12  # digits of a commit that are its version
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # huggingface_hub/constants.py reads both
_NAMED = 5  # missing files that a message names


class HuggingFaceStore:
    """Pins references to commits, and brings their files into the standard cache of Hugging Face.

    Args:
        environ: The launcher's environment: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
        cache_dir: The value of `--cache-dir`, for use where neither `HF_HOME` nor `HF_HUB_CACHE` is set.
        messages: For progress, and for a warning where the hub was not asked.
        stall: Seconds without a byte after which Xet storage is replaced by plain HTTP.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        cache_dir: str | None = None,
        messages: Messages | None = None,
        stall: float = 30.0,
    ) -> None:
        self._environ = environ
        self.cache = HubCache(cache_directory(environ, cache_dir)[0])
        self._messages = messages
        self._stall = stall

    def resolve(self, references: Sequence[Reference], *, progress: Progress, timeout: float) -> list[Artifact]:
        """Pin every reference to a commit whose files are here, in the order given.

        A reference to a commit makes no request if all its files are here with the right sizes.

        Args:
            references: All references of the job; several are downloaded at the same time.
            progress: Called for every download, also while it waits for another launcher or for the rate limit of the
                hub.
            timeout: Seconds for the whole call.

        Raises:
            LaunchError: Repository or revision is unknown, access or token is refused, or the cache is another user's.
            TemporaryError: Hub or network is down, a rate limit or the disk is exceeded, or files stay damaged.
        """
        deadline = time.monotonic() + timeout
        found: dict[int, Artifact] = {}
        for index, reference in enumerate(references):
            if is_commit(reference.alias) and (artifact := self.present(reference, reference.alias)) is not None:
                found[index] = artifact
                progress(artifact.qualified_name)
        missing = {index: item for index, item in enumerate(references) if index not in found}
        own = {} if self._environ.get(OUTER) == "1" else self._environ
        offline = next((name for name in _OFFLINE if is_on(own.get(name, ""))), None)
        if offline:
            for index, reference in missing.items():
                found[index] = self._without_hub(reference, f"{offline} is set")
        elif missing:
            from nemotron_exec.stores.huggingface.transfer import Transfer

            transfer = Transfer(
                environ=self._environ,
                cache=self.cache.root,
                messages=self._messages,
                stall=self._stall,
                artifact=self._artifact,
                without_hub=self._without_hub,
            )
            found |= transfer.run(missing, progress, timeout, deadline)
        return [found[index] for index in range(len(references))]

    def present(self, reference: Reference, commit: str) -> Artifact | None:
        """The artifact, if the cache has all of its files. No request is made; each file is looked at once."""
        record = self.cache.record(reference.type, reference.name, commit)
        if record is None or self._lacking(reference, commit, record):
            return None
        return self._artifact(reference, commit, record)

    def _lacking(self, reference: Reference, commit: str, record: Record) -> list[str]:
        wanted = selected(record.files, reference.include, reference.exclude)
        return self.cache.lacking(reference.type, reference.name, commit, record, wanted)

    # ------------------------------------------------------------------ without the hub

    def _without_hub(self, reference: Reference, reason: str) -> Artifact:
        """The artifact from the cache, if the hub cannot be asked.

        Raises:
            TemporaryError: The cache does not have the commit, or only a part of it.
        """
        wanted = f"run.{reference.key} ({reference.origin}): to get {reference.text}"
        remedy = (
            "Fill the cache where the network is, with nemotron-exec --resolve-only, or check HF_HOME and HF_HUB_CACHE"
        )
        commit = self.cache.commit_of(reference.type, reference.name, reference.alias)
        repository = self.cache.repository(reference.type, reference.name)
        if commit is None:
            kept = _listed(os.path.join(repository, "snapshots"))
            has = f"has other commits of it: {', '.join(kept)}" if kept else "has nothing of it"
            raise TemporaryError(wanted, f"{reason}, and the cache {self.cache.root} {has}", remedy)
        record = self.cache.record(reference.type, reference.name, commit)
        snapshot = self.cache.snapshot(reference.type, reference.name, commit)
        if record is None:
            if not os.path.isdir(snapshot):
                raise TemporaryError(wanted, f"{reason}, and {snapshot} is not there", remedy)
            self._warn(
                f"{reference.text} is taken from {snapshot} as it is: {reason}, and no list of its files is here"
            )
            return self._artifact(reference, commit, Record({}))
        lacking = self._lacking(reference, commit, record)
        if lacking:
            total = len(selected(record.files, reference.include, reference.exclude))
            named = ", ".join(lacking[:_NAMED]) + (
                f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
            )
            found = f"{reason}, and the cache lacks {len(lacking)} of {total} files of commit {commit}: {named}"
            raise TemporaryError(wanted, found, remedy)
        if not is_commit(reference.alias):
            since = f", as of {record.asked_at}" if record.asked_at else ""
            self._warn(f"{reference.text} is commit {commit} by the cache{since}: {reason}, so it may have moved since")
        return self._artifact(reference, commit, record)

    def _warn(self, text: str) -> None:
        if self._messages is not None:
            self._messages.warning(text)

    # ------------------------------------------------------------------ the artifact

    def _artifact(self, reference: Reference, commit: str, record: Record) -> Artifact:
        path = self.cache.snapshot(reference.type, reference.name, commit)
        config = _read_json(os.path.join(path, "config.json"))
        name = hub_name(reference.type, reference.name)
        chosen = {
            "include": reference.include,
            "exclude": reference.exclude,
            "trust_remote_code": reference.remote_code,
        }
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items() if value}
        address = name.removeprefix("hf://")
        return Artifact(
            key=reference.key,
            reference=reference.text,
            store=HUB,
            name=reference.name,
            version=commit[:_SHORT],
            type=reference.type,
            path=path,
            qualified_name=f"{name}@{commit}",
            digest=commit,
            fields={"id": reference.name, "revision": commit, **fields},
            metadata={**record.card, **config},
            source=f"{endpoint(self._environ)}/{address}/tree/{commit}",
        )


def endpoint(environ: Mapping[str, str]) -> str:
    """The address of the hub: `HF_ENDPOINT`, or the public one, without a trailing slash and without a password."""
    from nemotron_exec.sitecustomize.payload.notice import redact

    return str(redact((environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")))


def _read_json(path: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError), open(path, "rb") as file:
        found = json.loads(file.read(_SMALL))
        return found if isinstance(found, dict) else {}
    return {}


def _listed(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if is_commit(name))[:_NAMED]
    except OSError:
        return []


def open_store(context: StoreContext) -> HuggingFaceStore:
    """The hub's store, with the standard cache."""
    return HuggingFaceStore(
        environ=context.environ, cache_dir=context.cache_dir, messages=context.messages, stall=context.stall
    )
