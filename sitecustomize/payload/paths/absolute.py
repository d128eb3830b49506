"""A path as a person, a config or a framework gives it, absolute and as the kernel resolves it.

`os.path.abspath` and `os.path.normpath` take `..` for a matter of text: with `scratch -> /lustre/me`, they make
`scratch/../cfg.yaml` the neighbour of the link, and the kernel opens the neighbour of `/lustre/me`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["absolute", "home_directory", "user_path", "working_directory"]


def absolute(path: str | os.PathLike[str]) -> str:
    """`path` from the root, without `.` and `..`; links stay as they are named, except a link that a `..` follows.

    Args:
        path: str or os.PathLike. A relative one counts from the working directory.

    Returns:
        str.
    """
    path = os.fspath(path)
    if not path.startswith("/"):
        path = working_directory() + "/" + path
    resolved = ""
    for part in path.split("/"):
        if part == "..":
            if os.path.islink(resolved):
                resolved = os.path.realpath(resolved)
            resolved = resolved.rpartition("/")[0]
        elif part not in ("", "."):
            resolved += "/" + part
    return resolved or "/"


def working_directory() -> str:
    """The working directory; if it was deleted, the name that the kernel remembers, ending in ` (deleted)`."""
    try:
        return os.getcwd()
    except OSError:
        pass
    try:
        return os.readlink("/proc/self/cwd")
    except OSError:
        return "/"


def home_directory(environ: Mapping[str, str]) -> str | None:
    """The user's home: HOME, else that of the passwd entry; None where neither is a path from the root.

    An empty or relative HOME names no directory: `os.path.expanduser` makes `/` of the one, and of the other another
    directory for each working directory.
    """
    home = environ.get("HOME") or ""
    if not os.path.isabs(home):
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return None
    return home if os.path.isabs(home) else None


def user_path(path: str, environ: Mapping[str, str] | None = None) -> str:
    """`path` with a leading `~` replaced and made absolute.

    Where nothing says where home is, `~` stays text, and the path begins with it: never a directory of that name.
    """
    home = (os.environ if environ is None else environ).get("HOME")
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    path = os.path.expanduser(path)
    return path if path == "~" or path.startswith("~/") else absolute(path)
