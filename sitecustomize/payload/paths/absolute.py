"""Makes a path of a person, a config or a framework absolute, in the way in which the kernel resolves it.

`os.path.abspath` and `os.path.normpath` drop `..` by text. With the link `scratch -> /lustre/me`, they turn
`scratch/../cfg.yaml` into the file beside the link, but the kernel opens the file beside `/lustre/me`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["absolute", "home_directory", "user_path", "working_directory"]


def absolute(path: str | os.PathLike[str]) -> str:
    """`path` from the root, without `.` and `..`. Links are not resolved, except a link before a `..`.

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
    """The user's home: HOME, else the passwd entry's home; None if neither is an absolute path.

    An empty or relative HOME names no directory: `os.path.expanduser` makes `/` of an empty HOME, and another directory
    for each working directory of a relative one.
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

    Without a known home, the result begins with `~` and is not absolute, so that no directory called `~` is made.
    """
    home = (os.environ if environ is None else environ).get("HOME")
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    path = os.path.expanduser(path)
    return path if path == "~" or path.startswith("~/") else absolute(path)
