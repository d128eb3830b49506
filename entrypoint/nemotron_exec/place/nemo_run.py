"""What `/nemo_run` is here, and the translation of paths below it."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


__all__ = ["nemo_run_target", "translation"]


def nemo_run_target() -> str | None:
    """What `/nemo_run` is a mount of or a link to, as the host names it; None where it is neither.

    Where the host's name is not known, the name within the file system: of two jobs it is never the same.
    """
    if not os.path.lexists("/nemo_run"):
        return None
    from nemotron_exec.sitecustomize.payload.paths import host

    found = host.nemo_run()
    return None if found is None else str(found.path if found.certain else found.inside or found.path)


def translation(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """What becomes of `/nemo_run` in arguments and configs, outside the container that has it; None where it stays."""
    if "NEMO_RUN_DIR" not in environ:
        return None
    from nemotron_exec.sitecustomize.payload.paths import nemo_run

    target = nemo_run.directory(environ)
    return None if target is None else lambda text: str(nemo_run.translate(text, target))
