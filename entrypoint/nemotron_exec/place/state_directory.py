"""Step 2, place: choose the directory where the launchers of a job meet, and where resolved configs are written.

Other users may write to the given directory. The launcher creates a private one in it: `nemotron-exec-<uid>`, mode
0700.
"""

from __future__ import annotations

import os

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.shared_directory import files
from nemotron_exec.shared_directory.file_system import LOCAL_KINDS, file_system
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nemotron_exec.message import Messages
    from nemotron_exec.place.rank import Place

__all__ = ["StateDirectory", "existing", "state_directory"]

_REMEDY = (
    "Give a directory on a file system that every node mounts (Lustre, NFS, GPFS …) with --state-dir DIR or "
    "NEMOTRON_EXEC_STATE_DIR, or use --rendezvous c10d, which needs none"
)


@dataclass(frozen=True)
class StateDirectory:
    """The directory of the launchers' state.

    Attributes:
        path: The launcher's private directory.
        source: The reason for the choice: "--state-dir", "/nemo_run", "NEMO_RUN_DIR" or "TMPDIR".
        kind: Type of its file system, as the kernel names it; empty if unknown.
        owner: User id that owns its files.
        shared: Whether launchers on other nodes may see it.
        local: A directory of this node alone, in which its launchers hand on answers; empty if there is none.
    """

    path: str
    source: str
    kind: str
    owner: int
    shared: bool
    local: str = ""


def state_directory(
    explicit: str | None,
    environ: Mapping[str, str],
    place: Place,
    *,
    messages: Messages,
    nemo_run: str = "/nemo_run",
    rendezvous: str = "auto",
) -> StateDirectory:
    """Choose, create and check the state directory.

    Args:
        explicit: `--state-dir`.
        environ: The environment, for NEMO_RUN_DIR and TMPDIR.
        place: The place of the launcher, which says whether other nodes must see the directory.
        messages: For the warning about a local file system.
        nemo_run: Where nemo-run mounts the directory of the job.
        rendezvous: `--rendezvous`; with "c10d" no other node needs to see it.

    Raises:
        LaunchError: There is no directory that every node sees, or another user has prepared the directory.
    """
    together = place.several_nodes and rendezvous != "c10d"
    base, source = _choose(explicit, environ, nemo_run)
    wanted = f"a private directory for state in {base} ({source})"
    try:
        os.makedirs(base, exist_ok=True)
    except OSError as error:
        raise LaunchError(wanted, f"{base} cannot be made ({os.strerror(error.errno or 0).lower()})", _REMEDY) from None
    kind = file_system(base)
    if together and source == "TMPDIR":
        nodes = f"{place.nodes} nodes" if place.nodes else "nodes that are not known before the start"
        raise LaunchError(
            f"a directory that all nodes of this job see, for one answer on {nodes} ({place.source})",
            f"only {base} on this node, which the other nodes cannot see",
            _REMEDY,
        )
    if together and kind in LOCAL_KINDS:
        if source != "--state-dir":
            raise LaunchError(
                f"a directory that all nodes of this job see ({source})",
                f"{base} is on {kind}, a local file system",
                _REMEDY,
            )
        messages.warning(
            f"--state-dir {base} is on {kind}, a local file system: if the other nodes do not see it, they will say so "
            "and stop"
        )
    ours = os.path.join(absolute(base), f"nemotron-exec-{os.geteuid()}")
    owner = files.make_directory(
        ours, wanted=wanted, remedy="Remove it, or give another directory with --state-dir DIR"
    )
    return StateDirectory(
        ours, source, kind, owner, shared=source != "TMPDIR" and kind not in LOCAL_KINDS, local=_temporary(environ)
    )


def existing(explicit: str | None, environ: Mapping[str, str], nemo_run: str = "/nemo_run") -> str:
    """The directory that `state_directory` would use with these settings. Nothing is created."""
    return os.path.join(absolute(_choose(explicit, environ, nemo_run)[0]), f"nemotron-exec-{os.geteuid()}")


def _choose(explicit: str | None, environ: Mapping[str, str], nemo_run: str) -> tuple[str, str]:
    if explicit:
        return absolute(explicit), "--state-dir"
    # A link (nemo-run on Kubeflow, DGX Cloud, Lepton) leads to the directory of the job, as a mount does.
    if (os.path.ismount(nemo_run) or os.path.islink(nemo_run)) and _writable(nemo_run):
        return os.path.join(os.path.realpath(nemo_run), ".nemotron-exec"), "/nemo_run"
    if (root := environ.get("NEMO_RUN_DIR")) and _writable(root):
        return os.path.join(absolute(root), ".nemotron-exec"), "NEMO_RUN_DIR"
    if temporary := _temporary(environ):
        return temporary, "TMPDIR"
    raise LaunchError(
        "a directory to write the resolved config in",
        "none of TMPDIR, /tmp, /var/tmp and the working directory can be written to",
        "Mount one (docker run --tmpfs /tmp), or name one with --state-dir DIR or NEMOTRON_EXEC_STATE_DIR",
    )


def _temporary(environ: Mapping[str, str]) -> str:
    if root := environ.get("TMPDIR"):
        return root
    if not environ.get("TEMP") and not environ.get("TMP") and os.access("/tmp", os.W_OK | os.X_OK):  # noqa: S108
        return "/tmp"  # noqa: S108  # tempfile.gettempdir() gives the same, but importing it costs 5 ms
    import tempfile

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # the root file system is read-only
        return ""


def _writable(path: str) -> bool:
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
