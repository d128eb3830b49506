"""The directory behind `/nemo_run`, and the translation of paths below it."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


__all__ = ["nemo_run_target", "translation"]


def nemo_run_target() -> str | None:
    """The host's name of the directory that is mounted or linked at `/nemo_run`; None where there is none.

    If the host's name is unknown, it is the name within the file system, which is never the same for two jobs.
    """
    if not os.path.lexists("/nemo_run"):
        return None
    from nemotron_exec.sitecustomize.payload.paths import host

    found = host.nemo_run()
    return None if found is None else str(found.path if found.certain else found.inside or found.path)


def translation(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """The translation of `/nemo_run` paths in arguments and configs outside the container; None where they stay."""
    if "NEMO_RUN_DIR" not in environ:
        return None
    from nemotron_exec.sitecustomize.payload.paths import nemo_run

    target = nemo_run.directory(environ)
    return None if target is None else lambda text: str(nemo_run.translate(text, target))
