"""The hand-off: the only file through which launcher and injector talk. It is JSON, mode 0600 (see ARCHITECTURE.md)."""

from __future__ import annotations

import datetime
import json

from nemotron_exec import __version__
from nemotron_exec.options import OPTIONS, Options
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.notice import is_secret_variable, redact, redact_command

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.resolution.resolution import ResolvedConfig
    from nemotron_exec.sitecustomize.payload.documents import HandOff, JobSection, Launched, WandbSection

__all__ = ["MAX_VALUE", "SCHEMA", "by_value", "encode", "handoff_document", "launched"]

SCHEMA = 1
MAX_VALUE = 64 << 10
"""Largest size of a variable in the job's environment, in bytes. The kernel takes 128 KiB at most (execve(2))."""
# Options that a second start of the same job needs. Job identity, messages and other requests are left out.
_SAME = (
    "config", "backend", "store", "resolve", "env_file", "run", "state_dir", "cache_dir", "timeout", "stall",
    "rendezvous", "strict",
)  # fmt: skip
# Variables that may change the training, by the prefixes of libraries.
_BEARS = pattern(
    r"(?:CUDA|CUBLAS|FI|HF|MKL|NCCL|NEMO|NRL|NVTE|OMP|PYTORCH|RAY|TORCH|TRANSFORMERS|TRITON|UCX|VLLM|WANDB|XLA)_\w+\Z"
    r"|PYTHONPATH\Z|PYTHONHASHSEED\Z|TOKENIZERS_PARALLELISM\Z|LD_LIBRARY_PATH\Z"
)
# Variables of one process or run, and the twins of options, which the options hold already.
_NOT = pattern(
    r"NEMOTRON_EXEC_|NEMO_RUN_DIR\Z|TORCHELASTIC_|WANDB_(?:RUN_ID|RESUME|SERVICE)\Z|RAY_JOB_|NEMO_EXPERIMENT_ID"
)
_ENVIRONMENT = 16 << 10  # characters; the hand-off by value must hold them, too


def handoff_document(
    *,
    job: JobSection,
    backend: str | None,
    store: str,
    wandb: WandbSection,
    artifacts: Sequence[Artifact],
    publish: str | None,
    outputs: Mapping[str, str],
    checkpoints: str,
    on_checkpoint: Sequence[Mapping[str, Any]],
    configs: Sequence[ResolvedConfig],
    run_record: str | None,
) -> HandOff:
    """The hand-off as a JSON object.

    Args:
        job: `id`, `source` and `environment` (the schedulers' variables by which a stale hand-off is recognised).
        backend: "wandb" or "manifest".
        store: Root of the manifest store.
        wandb: `project`, `entity`, `resume`, `tags` and `required`.
        artifacts: The pinned inputs.
        publish: `run.publish` of the config: the name of the artifact for its checkpoints.
        outputs: `run.outputs`: by artifact, the directory that is registered after the command has ended well.
        checkpoints: `run.checkpoints`: all, periodic, best, last or none.
        on_checkpoint: `run.on_checkpoint`: the commands that run after a checkpoint is in the store.
        configs: The config files that were rewritten.
        run_record: Path of the job's run record.
    """
    return {
        "schema": SCHEMA,
        "version": __version__,
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "job": job,
        "backend": backend,
        "store": store,
        "wandb": wandb,
        "artifacts": [artifact.to_json() for artifact in artifacts],
        "publish": publish,
        "outputs": dict(outputs),
        "checkpoints": checkpoints,
        "on_checkpoint": [dict(hook) for hook in on_checkpoint],
        "config": [{"original": config.original, "resolved": config.resolved} for config in configs],
        "run_record": run_record,
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """The content of a hand-off file."""
    return (json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")


def by_value(path: str) -> str:
    """A hand-off and the files that it names, as the value of one variable (`payload/handoff.py` reads it).

    Args:
        path: The hand-off file.

    Returns:
        The text. It may be longer than `MAX_VALUE`, which the caller must check.
    """
    import binascii
    import zlib

    from nemotron_exec.sitecustomize.payload.sha256 import sha256

    def content(name: str) -> bytes:
        with open(name, "rb") as file:
            return file.read()

    document = json.loads(content(path).decode("utf-8", "surrogatepass"))
    # Another node does not have these files.
    document["launched"] = json.loads(content(document["run_record"]))
    for config in document["config"]:
        for key in ("original", "resolved"):
            config[f"{key}_sha256"] = sha256(content(config[key])).hexdigest()
    packed = zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9)
    return binascii.b2a_base64(packed, newline=False).decode()


def launched(argv: Sequence[str], directory: str, chosen: Options, environ: Mapping[str, str]) -> Launched:
    """The launcher's part of the run record: `command`, `cwd`, `options` and `environment`, without secrets.

    Args:
        argv: The words of the command.
        directory: The directory where the command was started.
        chosen: The launcher's options.
        environ: The launcher's environment.
    """
    environment: dict[str, str] = {}
    left = _ENVIRONMENT
    for name in sorted(environ):
        left -= len(name) + len(environ[name]) if _BEARS.match(name) else 0
        if left >= 0 and _BEARS.match(name) and not _NOT.match(name) and not is_secret_variable(name):
            environment[name] = redact(environ[name])
    return {
        "command": redact_command(argv),
        "cwd": directory,
        "options": redact_command(_words(chosen)),
        "environment": environment,
    }


def _words(chosen: Options) -> list[str]:
    words: list[str] = []
    defaults = Options()
    for option in OPTIONS:
        value = getattr(chosen, option.name)
        if option.name not in _SAME or value == getattr(defaults, option.name):
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += (
                [option.flags[-1]] if option.metavar is None and not option.choices else [option.flags[-1], _text(one)]
            )
    return words


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
