"""Copies Python modules of Hugging Face repositories before the ranks start (`trust_remote_code: true` under `run:`).

transformers copies them from the snapshot to `HF_MODULES_CACHE` when it loads the model. Ranks that do so at the same
time read each other's half-written files. Only the job's transformers knows the names of the copies, so the job's
Python makes them. It runs none of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

from nemotron_exec.errors import LaunchError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.message import Messages

__all__ = ["prepare_remote_code"]

_CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_COPY = """\
import json, sys
from transformers.dynamic_module_utils import get_cached_module_file
for name, revision, files in json.load(sys.stdin):
    for file in files:
        get_cached_module_file(name, file, revision=revision, local_files_only=True)
"""
_SECONDS = 300.0  # covers an import of transformers from a cold shared file system
_LEASE, _HEARTBEAT, _POLL = 15.0, 5.0, 0.5  # seconds


def prepare_remote_code(
    artifacts: Sequence[Artifact], words: Sequence[str], environ: Mapping[str, str], messages: Messages
) -> None:
    """Copy the modules of every artifact with `trust_remote_code`, once for each modules cache. A failure is a warning.

    Args:
        artifacts: All inputs of the job.
        words: The command, which names the job's interpreter.
        environ: The launcher's environment, with the job's variables for the hub.
        messages: For the warning.
    """
    wanted = [artifact for artifact in artifacts if artifact.fields.get("trust_remote_code") is True]
    for artifact in wanted:
        files = _modules_of(artifact.path)
        if not files:
            continue
        try:
            _once(artifact, files, _python_of(words, environ), environ)
        except (OSError, subprocess.SubprocessError, LaunchError) as error:
            why = getattr(error, "stderr", None) or str(error)
            messages.warning(
                f"run.{artifact.key}: the modules for trust_remote_code are not prepared, and the ranks may race for "
                f"them: {(why.strip().splitlines() or [''])[-1]}"
            )


def _once(artifact: Artifact, files: Sequence[str], python: str, environ: Mapping[str, str]) -> None:
    from nemotron_exec.shared_directory.clock import Clock
    from nemotron_exec.shared_directory.lease import Lease

    directory = os.path.join(_modules_cache(environ), ".nemotron-exec")
    os.makedirs(directory, exist_ok=True)
    marker = os.path.join(directory, f"{artifact.type}--{artifact.name.replace('/', '--')}-{artifact.digest}")
    now = Clock(f"{marker}.{os.getpid()}.tmp").now
    lease = Lease(f"{marker}.lease", now, duration=_LEASE, heartbeat=_HEARTBEAT)
    until = time.monotonic() + _SECONDS
    while not os.path.exists(marker):
        if lease.acquire():
            try:
                _copy(artifact, files, python, environ)
                with open(marker, "w", encoding="utf-8"):
                    return
            finally:
                lease.release()
        if time.monotonic() > until:
            raise subprocess.TimeoutExpired(python, _SECONDS)
        time.sleep(_POLL)


def _copy(artifact: Artifact, files: Sequence[str], python: str, environ: Mapping[str, str]) -> None:
    names = [(artifact.name, artifact.digest, files), (artifact.path, None, files)]
    subprocess.run(
        [python, "-c", _COPY],
        input=json.dumps(names),
        env={**environ, "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )


def _modules_of(snapshot: str) -> list[str]:
    """The Python files that `auto_map` in a snapshot's configs names. transformers follows their own imports."""
    found: dict[str, None] = {}
    for name in _CONFIGS:
        try:
            with open(os.path.join(snapshot, name), encoding="utf-8") as file:
                mapped = json.load(file).get("auto_map") or {}
        except (OSError, ValueError, AttributeError):
            continue
        for value in mapped.values() if isinstance(mapped, dict) else ():
            for one in value if isinstance(value, list) else [value]:
                # `org/other--module.Class` is code of another repository, which no reference pins.
                if isinstance(one, str) and "." in one and "--" not in one:
                    found[one.rpartition(".")[0].replace(".", "/") + ".py"] = None
    return [path for path in found if os.path.isfile(os.path.join(snapshot, path))]


def _python_of(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """The interpreter of the command: a word of it, else the python beside its program, else the python on PATH."""
    path = environ.get("PATH")
    for word in words:
        if os.path.basename(word).startswith("python") and (found := shutil.which(word, path=path)):
            return found
    program = shutil.which(words[0], path=path) if words else None
    beside = os.path.join(os.path.dirname(program), "python") if program else ""
    return beside if os.access(beside, os.X_OK) else shutil.which("python3", path=path) or sys.executable


def _modules_cache(environ: Mapping[str, str]) -> str:
    """`HF_MODULES_CACHE`, as transformers finds it (transformers/utils/hub.py)."""
    if named := environ.get("HF_MODULES_CACHE"):
        return named
    home = environ.get("HF_HOME") or os.path.join(
        environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache"),
        "huggingface",
    )
    return os.path.join(home, "modules")
