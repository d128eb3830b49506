"""The stores of the chaos seeds: a real manifest store whose writers are killed, or W&B.

Checked after each seed: `nemotron-artifact verify` finds no error in the store, and the store takes another version. A
finished download has exactly the bytes of its version. No process of the launchers is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_exec.artifact_cli.inventory import take_inventory
from nemotron_exec.artifact_cli.verify import verify
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import register
from nemotron_exec.stores.protocol import StoreContext
from nemotron_exec.stores.table import open_store

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["ManifestChaos", "NoStore", "WandbChaos"]


class NoStore:
    """No store: the launchers look up no artifact."""

    def prepare(self) -> contextlib.AbstractContextManager[None]:
        """A context for actions that run beside the launchers."""
        return contextlib.nullcontext()

    def resolve(self, progress: Any) -> dict[str, Any]:
        """The artifacts for the answer."""
        return {}

    def problem(self, answer: dict[str, Any]) -> str | None:
        """The problem of the store or the cache after all processes have ended, or None."""
        return None


class ManifestChaos(NoStore):
    """A manifest store. A writer adds versions until it is killed in the middle of one.

    Args:
        directory: The directory of the seed.
        chance: Decides when the writer dies.
    """

    def __init__(self, directory: str, chance: random.Random) -> None:
        self._root = os.path.join(directory, "store")
        self._data = os.path.join(directory, "data")
        self._dies = chance.uniform(0.0, 0.3)

    @contextlib.contextmanager
    def prepare(self) -> Iterator[None]:
        self._add(b"1")
        if not (pid := os.fork()):
            # A fork must not return to its parent's code.
            try:
                for number in range(2, 1000):
                    self._add(b"%d" % number)
            finally:
                os._exit(1)
        try:
            time.sleep(self._dies)
            yield
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def resolve(self, progress: Any) -> dict[str, Any]:
        return _resolve(
            open_store("manifest", StoreContext(root=self._root, environ={})),
            ["data:latest", "data:v1", "data:first"],
            progress,
        )

    def problem(self, answer: dict[str, Any]) -> str | None:
        files = manifest_files.LocalFiles(self._root)
        for moment in ("after the kill", "after one more version"):
            errors = [str(found) for found in verify(files, take_inventory(files)) if found.level == "error"]
            if errors:
                return f"the store {moment}: {errors}"
            if moment == "after the kill":
                added = self._add(b"last")
                latest = _resolve(
                    open_store("manifest", StoreContext(root=self._root, environ={})), ["data:latest"], _quiet
                )["latest"]
                if latest["version"] != f"v{added}":
                    return f"latest is {latest['version']} after v{added} was added"
        for artifact in answer.values():
            data = Path(artifact["path"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != artifact["metadata"]["sha256"]:
                return f"{artifact['qualified_name']} is not what its manifest says"
        return None

    def _add(self, content: bytes) -> int:
        sha256 = hashlib.sha256(content).hexdigest()
        path = os.path.join(self._data, sha256)
        os.makedirs(self._data, exist_ok=True)
        Path(path).write_bytes(content)
        aliases = ("first",) if content == b"1" else ()
        version = register.register(
            self._root, "data", type="dataset", path=path, metadata={"sha256": sha256}, aliases=aliases
        )
        return version.number


class WandbChaos(NoStore):
    """Two artifacts in W&B, which the real client downloads slowly into a cache that the launchers share."""

    def __init__(self, directory: str, chance: random.Random) -> None:
        self._directory = directory
        self._cache = os.path.join(directory, "cache")
        self._files = {
            "data": {"a": chance.randbytes(2_000_000), "deep/b": chance.randbytes(70_000), "empty": b""},
            "model": {"weights": chance.randbytes(1_000_000)},
        }
        self._environ: dict[str, str] = {}

    @contextlib.contextmanager
    def prepare(self) -> Iterator[None]:
        # The server runs in a process of its own, because launchers are forks, and a process with threads must not be
        # forked.
        told, tell = os.pipe()
        ending, end = os.pipe()
        if not (pid := os.fork()):
            try:
                os.close(end)
                self._serve(tell, ending)
            finally:
                os._exit(0)
        os.close(tell)
        os.close(ending)
        try:
            from wandb_backend import API_KEY

            with os.fdopen(told) as reading:
                url = reading.readline().strip()
            home = os.path.join(self._directory, "home")
            os.mkdir(home)
            self._environ = {
                "PATH": os.environ["PATH"], "HOME": home, "WANDB_BASE_URL": url, "WANDB_API_KEY": API_KEY,
                "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "WANDB_ERROR_REPORTING": "false",
            }  # fmt: skip
            yield
        finally:
            # Close this end here: a launcher that starts later would inherit it and keep the server alive.
            os.close(end)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _serve(self, tell: int, ending: int) -> None:
        from wandb_backend import Backend

        with Backend() as backend:
            backend.bandwidth = 2_000_000.0
            for name, files in self._files.items():
                backend.seed(f"team/nemotron/{name}", files=files)
            os.write(tell, (backend.url + "\n").encode())
            os.close(tell)
            # At every moment a download must be whole or absent.
            while not select.select([ending], [], [], 0.02)[0]:
                if half := self._half():
                    Path(self._directory, "half").write_text(half)

    def resolve(self, progress: Any) -> dict[str, Any]:
        context = StoreContext(root="", environ=self._environ, project="nemotron", cache_dir=self._cache)
        store = open_store("wandb", context)
        return _resolve(store, ["data:latest", "model:latest"], progress)

    def problem(self, answer: dict[str, Any]) -> str | None:
        until = time.monotonic() + 30
        while left := self._processes():
            if time.monotonic() > until:
                return f"processes are left: {left}"
            time.sleep(0.05)
        if len(answer) != 2:
            return f"the answer names {sorted(answer)}"
        seen = Path(self._directory, "half")
        if half := self._half() or (seen.exists() and seen.read_text()):
            return half
        finished = self._finished()
        for artifact in answer.values():
            if Path(artifact["path"]) not in finished:
                return f"{artifact['path']} is in no finished download"
        return None

    def _finished(self) -> list[Path]:
        root = Path(self._cache, "wandb")
        return [path for path in root.iterdir() if not path.name.startswith(".")] if root.exists() else []

    def _half(self) -> str:
        for path in self._finished():
            content = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
            if content not in self._files.values():
                return f"{path} is taken for whole, and holds { {name: len(data) for name, data in content.items()} }"
        return ""

    def _processes(self) -> list[str]:
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and f"{self._directory}/home".encode() in Path("/proc", name, "environ").read_bytes():
                    found.append(name)
        return found


def _resolve(store: Any, texts: list[str], progress: Any) -> dict[str, Any]:
    references = [
        parse_reference(text.replace("data:", "").replace(":latest", ""), text, Origin("cfg.yaml", line))
        for line, text in enumerate(texts, 1)
    ]
    return {artifact.key: artifact.to_json() for artifact in store.resolve(references, progress=progress, timeout=60)}


def _quiet(what: str, done: int = 0, total: int | None = None) -> None:
    pass
