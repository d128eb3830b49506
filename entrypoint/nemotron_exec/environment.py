"""The job's environment: our directory first on PYTHONPATH, and the few variables that the injector reads."""

from __future__ import annotations

import os
import sys

from nemotron_exec import __version__

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["default_cache", "default_store", "injector_directory", "job_environment"]


def injector_directory() -> str:
    """The directory that is put on PYTHONPATH; it offers one importable name, `sitecustomize`."""
    return os.path.join(os.path.dirname(os.path.realpath(__file__)), "sitecustomize")


def default_store(environ: Mapping[str, str]) -> str:
    """Root of the manifest store where neither option nor config names one.

    `NEMO_ARTIFACT_ROOT` is the name that NVIDIA's Nemotron gives it; else an embedded store under the user's data
    directory (XDG Base Directory Specification). The same as the payload's `manifest.default_root`, whose module the
    way to exec cannot afford; a test holds the two together.
    """
    if root := environ.get("NEMO_ARTIFACT_ROOT"):
        return root
    data = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):
        data = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return os.path.join(data, "nemotron-exec", "artifacts")


def default_cache(environ: Mapping[str, str]) -> str:
    """Where downloads are kept without `--cache-dir`: the user's cache directory (XDG Base Directory Specification)."""
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "nemotron-exec")


def job_environment(
    environ: Mapping[str, str],
    *,
    store: str | None = None,
    backend: str | None = None,
    handoff: str | None = None,
    defaults: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of the wrapped command.

    Args:
        environ: The launcher's own; every entry but those named below is passed on as it is.
        store: Root of the manifest store.
        backend: "wandb" or "manifest"; None leaves the decision to what a process finds.
        handoff: Path of the hand-off file; None removes the variable, lest a job read an older job's.
        defaults: Variables to be set where the job does not set them (`WANDB_PROJECT`).
    """
    job = dict(environ)
    if job.get("NEMOTRON_EXEC_DISABLE") == "1":
        return job
    for name, value in (defaults or {}).items():
        job.setdefault(name, value)
    ours = injector_directory()
    # No empty entry: it would put the working directory on sys.path.
    others = [entry for entry in job.get("PYTHONPATH", "").split(os.pathsep) if entry != ours]
    if others == [""]:
        others = []
    job["PYTHONPATH"] = os.pathsep.join([ours, *others])
    job["NEMOTRON_EXEC_ACTIVE"] = __version__
    job["NEMOTRON_EXEC_PYTHON"] = sys.executable
    job["NEMOTRON_EXEC_STORE"] = store or job.get("NEMOTRON_EXEC_STORE") or default_store(environ)
    if backend:
        job["NEMOTRON_EXEC_BACKEND"] = backend
    if handoff is None:
        job.pop("NEMOTRON_EXEC_HANDOFF", None)
    else:
        job["NEMOTRON_EXEC_HANDOFF"] = handoff
    return job
