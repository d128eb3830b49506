"""The job's environment: the injector's directory first on PYTHONPATH, and a few variables for the injector."""

from __future__ import annotations

import os
import sys

from nemotron_exec import __version__
from nemotron_exec.errors import LaunchError

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "OF_THE_JOBS_PYTHON",
    "default_cache",
    "default_store",
    "home_directory",
    "homeless",
    "injector_directory",
    "is_disabled",
    "job_environment",
    "user_cache",
    "without_given",
]

OF_THE_JOBS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONEXECUTABLE")
"""Variables that no Python of the launcher may see."""
_GIVEN = "NEMOTRON_EXEC_GIVEN"
_BETWEEN = "\x1e"  # ASCII's record separator, which no path or project name has


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether `NEMOTRON_EXEC_DISABLE` turns everything off."""
    text = environ.get("NEMOTRON_EXEC_DISABLE")
    if not text:
        return False
    from nemotron_exec.sitecustomize.payload.flags import is_on

    return is_on(text) is True


def without_given(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment without the variables that an outer launcher has set for its job.

    A job may start jobs with configs of their own. Store, backend and W&B project of the outer job are not the user's
    choice for the inner one. A variable whose value has changed since was set by the job, and stays.
    """
    if not environ.get(_GIVEN):
        return environ
    own = dict(environ)
    for entry in own.pop(_GIVEN).split(_BETWEEN):
        name, _, value = entry.partition("=")
        if own.get(name) == value:
            del own[name]
    return own


def injector_directory() -> str:
    """The directory that is put on PYTHONPATH; it offers one importable name, `sitecustomize`."""
    return os.path.join(os.path.dirname(os.path.realpath(__file__)), "sitecustomize")


def home_directory(environ: Mapping[str, str]) -> str | None:
    """The user's home: HOME, else that of the passwd entry; None where both are missing, as in many containers."""
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    from nemotron_exec.sitecustomize.payload.paths.absolute import home_directory as of_passwd

    return of_passwd(environ)


def homeless(wanted: str) -> LaunchError:
    """The error for a directory that would lie below an unknown home directory."""
    remedy = "Set HOME, or name the directories with --store DIR and --cache-dir DIR"
    named = os.environ.get("HOME")
    home = f"HOME={named} is no absolute path" if named else "HOME is not set"
    return LaunchError(wanted, f"{home}, and user {os.getuid()} is not in passwd", remedy)


def default_store(environ: Mapping[str, str]) -> str | None:
    """Root of the manifest store if no option and no config names one; None where there is no home.

    NVIDIA's Nemotron names the root in `NEMO_ARTIFACT_ROOT`. Without it the store lies in the user's data directory
    (XDG Base Directory Specification). The payload's `manifest.default_root` computes the same, but its import would
    slow down the way to exec. A test compares the two.
    """
    if root := environ.get("NEMO_ARTIFACT_ROOT"):
        return root
    data = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):
        home = home_directory(environ)
        if home is None:
            return None
        data = os.path.join(home, ".local", "share")
    return os.path.join(data, "nemotron-exec", "artifacts")


def user_cache(environ: Mapping[str, str]) -> str | None:
    """The user's cache directory (XDG Base Directory Specification); None where there is no home."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        return cache
    home = home_directory(environ)
    return home and os.path.join(home, ".cache")


def default_cache(environ: Mapping[str, str]) -> str | None:
    """The cache for downloads without `--cache-dir`; None where there is no home."""
    cache = user_cache(environ)
    return cache and os.path.join(cache, "nemotron-exec")


def job_environment(
    environ: Mapping[str, str],
    *,
    store: str | None = None,
    backend: str | None = None,
    handoff: str | None = None,
    handoff_value: str | None = None,
    defaults: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    strict: bool = False,
) -> dict[str, str]:
    """The environment of the wrapped command.

    Args:
        environ: The launcher's own environment. Every variable that is not named below is passed on unchanged.
        store: Root of the manifest store.
        backend: "wandb" or "manifest"; None lets each process of the job choose.
        handoff: Path of the hand-off file; None removes the variable, so that no job reads an older job's.
        handoff_value: The hand-off itself, for processes that cannot read the file; None removes the variable.
        defaults: Variables for the job that the environment does not set yet (`WANDB_PROJECT`).
        settings: Variables that replace those of the environment (`HF_HUB_CACHE`, a view of the job's own).
        strict: Whether failures of the injector are fatal.
    """
    job = dict(environ)
    if is_disabled(job):
        return job
    for name, value in (defaults or {}).items():
        job.setdefault(name, value)
    job.update(settings or {})
    ours = injector_directory()
    # An empty entry would put the working directory on sys.path.
    others = [entry for entry in job.get("PYTHONPATH", "").split(os.pathsep) if entry != ours]
    if others == [""]:
        others = []
    job["PYTHONPATH"] = os.pathsep.join([ours, *others])
    job["NEMOTRON_EXEC_ACTIVE"] = __version__
    job["NEMOTRON_EXEC_PYTHON"] = sys.executable
    root = store or job.get("NEMOTRON_EXEC_STORE") or default_store(environ)
    if root:
        job["NEMOTRON_EXEC_STORE"] = root
    if backend:
        job["NEMOTRON_EXEC_BACKEND"] = backend
    if strict:
        job["NEMOTRON_EXEC_STRICT"] = "1"
    named = ("NEMOTRON_EXEC_STORE", "NEMOTRON_EXEC_BACKEND", "NEMOTRON_EXEC_STRICT", *(defaults or ()))
    set_here = [f"{name}={job[name]}" for name in named if name in job and job[name] != environ.get(name)]
    if environ.get(_GIVEN):
        set_here = [environ[_GIVEN], *set_here]
    if set_here:
        job[_GIVEN] = _BETWEEN.join(set_here)
    for name, given in (("NEMOTRON_EXEC_HANDOFF", handoff), ("NEMOTRON_EXEC_HANDOFF_VALUE", handoff_value)):
        if given is None:
            job.pop(name, None)
        else:
            job[name] = given
    return job
