"""Fetches missing files by a child process. If Xet storage fails, a second one fetches them without it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.environment import user_cache
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.huggingface.cache import OFFLINE, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.message import Messages
    from nemotron_exec.stores.child_process import ChildProcess
    from nemotron_exec.stores.protocol import Progress

__all__ = ["Transfer"]

_MARGIN = 2.0  # seconds that the child ends before the bound, because it knows the better reason


class Transfer:
    """Fetches references from the hub.

    Args:
        environ: The launcher's environment.
        cache: The cache directory.
        messages: For progress.
        stall: Seconds without a byte after which Xet storage is replaced by plain HTTP.
        artifact: Makes the artifact of a reference from its commit and the commit's record.
        without_hub: Makes the artifact from the cache alone; gets the reason.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        cache: str,
        messages: Messages | None,
        stall: float,
        artifact: Callable[[Reference, str, Record], Artifact],
        without_hub: Callable[[Reference, str], Artifact],
    ) -> None:
        self._environ = environ
        self._cache = cache
        self._messages = messages
        self._stall = stall
        self._pinned = artifact
        self._without_hub = without_hub

    def run(
        self, references: Mapping[int, Reference], progress: Progress, timeout: float, deadline: float
    ) -> dict[int, Artifact]:
        """The artifact of each reference, with its files in the cache.

        Args:
            references: The references by number.
            progress: Called for every download.
            timeout: Seconds for the whole call.
            deadline: `time.monotonic()` at which the time is over.

        Raises:
            LaunchError: A reference can never be resolved.
            TemporaryError: A reference may be resolved later.
        """
        found: dict[int, Artifact] = {}
        without_xet: dict[str, str] = {}
        while True:
            left = {index: item for index, item in references.items() if index not in found}
            failed = self._converse(left, found, progress, timeout, deadline, without_xet)
            if failed is None:
                return found
            # Its threads end only with their process, so another process replaces it.
            without_xet = {"HF_HUB_DISABLE_XET": "1"}
            if self._messages is not None:
                self._messages.info(f"Xet storage of the Hugging Face hub fails ({failed}): downloading without it")

    def _request(self, references: Mapping[int, Reference], timeout: float, deadline: float) -> dict[str, Any]:
        return {
            "references": [
                {
                    "index": index,
                    "key": item.key,
                    "text": item.text,
                    "origin": str(item.origin),
                    "type": item.type,
                    "name": item.name,
                    "revision": item.alias,
                    "include": item.include,
                    "exclude": item.exclude,
                }
                for index, item in references.items()
            ],
            "cache": self._cache,
            "timeout": max(1.0, deadline - time.monotonic() - min(_MARGIN, timeout / 5)),
            "stall": self._stall,
        }

    def _child(self, without_xet: Mapping[str, str]) -> ChildProcess:
        from nemotron_exec.stores.child_process import ChildProcess

        environ = {**self._environ, **without_xet}
        for name in ("HUGGINGFACE_HUB_CACHE", *OFFLINE):
            environ.pop(name, None)
        environ |= {"HF_HUB_CACHE": self._cache, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        debug = self._messages.debug if self._messages is not None and self._messages.verbose else None
        return ChildProcess(
            "nemotron_exec.stores.huggingface.child",
            server="the Hugging Face hub",
            environ=environ,
            secrets=_tokens(self._environ),
            debug=debug,
        )

    def _converse(
        self,
        references: Mapping[int, Reference],
        found: dict[int, Artifact],
        progress: Progress,
        timeout: float,
        deadline: float,
        without_xet: Mapping[str, str],
    ) -> str | None:
        """Have a child process fetch `references` into `found`. Return why Xet storage failed, else None."""
        from nemotron_exec.stores.wandb.display import TransferDisplay

        error: LaunchError | None = None
        told: set[str] = set()
        with (
            contextlib.closing(TransferDisplay(self._messages)) as display,
            self._child(without_xet) as child,
        ):
            child.send(self._request(references, timeout, deadline))
            while True:
                message = child.receive(deadline, display.tick)
                kind = message.pop("say", None)
                if kind == "progress":
                    display.update(message["what"], message["done"], message["total"])
                    progress(message["what"], message["done"], message["total"])
                elif kind in ("busy", "line"):
                    progress(message["what"])
                    if kind == "line" and self._messages is not None and message["what"] not in told:
                        told.add(message["what"])
                        self._messages.info(message["what"])
                elif kind == "fetched":
                    record = Record.from_json(message["record"])
                    assert record is not None
                    found[message["index"]] = self._pinned(references[message["index"]], message["commit"], record)
                elif kind == "unreachable":
                    found[message["index"]] = self._without_hub(references[message["index"]], message["found"])
                elif kind == "error":
                    code = message["exit_code"]
                    error_class = TemporaryError if code == TemporaryError.exit_code else LaunchError
                    error = error_class(message["wanted"], message["found"], message["remedy"], exit_code=code)
                elif kind == "xet":
                    return str(message["found"])
                elif kind == "done" and error is None and references.keys() <= found.keys():
                    return None
                else:  # a crash, an early end, or silence until the bound
                    left = [f"run.{r.key}: {r.text}" for index, r in references.items() if index not in found]
                    raise error or child.failure(kind, message, f"to get {', '.join(left)} from the Hugging Face hub")


def _tokens(environ: Mapping[str, str]) -> list[str]:
    """Every token that the client may send (huggingface_hub/utils/_auth.py). No message may show one."""
    found = [environ.get("HF_TOKEN", ""), environ.get("HUGGING_FACE_HUB_TOKEN", "")]
    home = environ.get("HF_HOME") or os.path.join(
        user_cache(environ) or os.devnull,
        "huggingface",
    )
    path = environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
        found.append(file.read(4096).strip())
    return [token.strip() for token in found if token.strip()]
