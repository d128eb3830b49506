"""A Hugging Face store for a test, in this process or in another one."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

from nemotron_exec.artifacts.hub import parse_hub_mapping, parse_hub_text
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.stores.huggingface.store import HuggingFaceStore

__all__ = ["ANOTHER", "FILES", "Store", "content", "elsewhere"]

CONFIG = {"model_type": "llama", "hidden_size": 64, "license": "from config"}
FILES = {
    "README.md": b"# A model",
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer/vocab.txt": b"a\nb\n",
    "model-1.safetensors": bytes(range(256)) * 2000,
    "model-2.safetensors": b"\1" * 300_000,
}
ORIGIN = Origin("cfg.yaml", 2)


class Store:
    """A store with its messages and reports."""

    def __init__(self, hub, home: Path, *, token=None, stall=30.0, **environ):
        self.home = home
        self.stream = io.StringIO()
        self.progress: list[str] = []
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            **hub.environ(home / "hf", token=token),
            **environ,
        }
        self.store = HuggingFaceStore(environ=self.environ, messages=Messages("debug", stream=self.stream), stall=stall)

    def __call__(self, *values, timeout=60):
        references = [
            parse_hub_mapping(f"key{n}", value, ORIGIN)
            if isinstance(value, dict)
            else parse_hub_text(f"key{n}", value, ORIGIN)
            for n, value in enumerate(values)
        ]
        return self.store.resolve(
            references, progress=lambda what, done=0, total=None: self.progress.append(what), timeout=timeout
        )

    @property
    def said(self):
        return self.stream.getvalue()


def content(directory):
    root = Path(directory)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


ANOTHER = (
    f"import sys; sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}; "
    "import hub_store; hub_store.elsewhere(*sys.argv[1:])"
)
"""Program of a process that gets a model as `elsewhere` does."""


def elsewhere(url, home, timeout="60"):
    """Get a model in another process, which prints its messages."""

    class Hub:
        @staticmethod
        def environ(where, token=None):
            return {"HF_ENDPOINT": url, "HF_HOME": str(where), "NO_PROXY": "127.0.0.1,localhost"}

    store = Store(Hub, Path(home))
    try:
        store("hf://org/model", timeout=float(timeout))
    except LaunchError as error:
        print(store.said, error)
