"""Names, aliases and roots of the manifest store, and the characters that they may have."""

from __future__ import annotations

import os
import re

from ..lazy import pattern
from ..paths.absolute import home_directory
from ..sha256 import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

__all__ = [
    "HIGHEST",
    "MAX_DEPTH",
    "RESERVED",
    "StoreError",
    "UnknownArtifactError",
    "bounded",
    "check_alias",
    "check_name",
    "default_root",
    "is_local",
    "is_recognizable",
    "safe_name",
    "wandb_name",
]

MAX_DEPTH = 8  # parts of a name

MAX_PART = 128  # characters; W&B's bound on a name (wandb/sdk/artifacts/_validators.py, NAME_MAXLEN)

# W&B takes no slash, and a reference no colon. A directory's name has no control character, and no dot or space at its
# ends that would hide it or get lost.
_PART = pattern(r"(?![.\s\-])[^/:\x00-\x1f\x7f]{1,%d}(?<!\s)\Z" % MAX_PART)

_ALIAS = pattern(r"[A-Za-z0-9_][A-Za-z0-9._+@\-]*\Z")

HIGHEST = 999999999  # the highest number that a version may have

_VERSION = pattern(r"v(0|[1-9][0-9]{0,8})\Z")

_NUMBER = pattern(r"v?([0-9]{1,9})\Z")

_SCHEME = pattern(r"[A-Za-z][A-Za-z0-9+.\-]*:(?://|/)|[A-Za-z][A-Za-z0-9+.\-]*::")

RESERVED = ("latest", "aliases", "pruned", "manifest.json", "metadata.json")


class StoreError(Exception):
    """A failed operation on the store.

    Args:
        wanted: The operation, naming the file.
        found: The reason why it failed.
        remedy: What the user can do about it.
        temporary: Whether a later attempt may succeed (disk full, stale file handle).
    """

    def __init__(self, wanted, found, remedy, temporary=False):
        super().__init__("{}: {}. {}".format(wanted, found, remedy))
        self.wanted = wanted
        self.found = found
        self.remedy = remedy
        self.temporary = temporary


class UnknownArtifactError(StoreError):
    """The store does not have the name, the version or the alias."""


def default_root(environ=None):
    """Root of the store that the environment selects: a path or a URI.

    `NEMOTRON_EXEC_STORE`, else `NEMO_ARTIFACT_ROOT` (Nemotron's own), else a directory under the user's data directory.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("NEMOTRON_EXEC_STORE") or environ.get("NEMO_ARTIFACT_ROOT")
    if named:
        return named
    data = environ.get("XDG_DATA_HOME") or ""
    if not os.path.isabs(data):  # the XDG specification says to ignore a relative one
        home = home_directory(environ)
        if home is None:
            raise StoreError(
                "find the manifest store",
                "HOME is not set, and user %d is not in passwd" % os.getuid(),
                "Set HOME, or name the store with NEMO_ARTIFACT_ROOT",
            )
        data = os.path.join(home, ".local", "share")
    return os.path.join(data, "nemotron-exec", "artifacts")


def is_local(root):
    """Whether a root is a path of this machine (`file://` included), not a URI that needs fsspec."""
    return str(root).startswith("file:") or not _SCHEME.match(str(root))


def check_name(name):
    """Return the name, or raise StoreError if it cannot be a directory below the root."""
    parts = name.split("/") if isinstance(name, str) else []
    bad = [part for part in parts if not _PART.match(part) or part in RESERVED or _VERSION.match(part)]
    if parts and len(parts) <= MAX_DEPTH and not bad:
        return name
    raise StoreError(
        "to name an artifact",
        "{!r}{}".format(name, ", whose part {!r} no store takes".format(bad[0]) if bad else ""),
        "Write a name without ':' and without a leading '.' or '-', at most %d characters a part, parts joined by "
        "'/'; '..', 'v7', 'latest' and 'aliases' are no parts" % MAX_PART,
    )


def safe_name(text):
    """Make a valid name out of any text, such as the name of a directory.

    A character that `check_name` refuses becomes `-`. If no character is left, bytes are no UTF-8, or a long text is
    cut, the name gets a digest of the text, so that two texts get two names.
    """
    parts = []
    for whole in str(text).split("/"):
        part = re.sub(r"[:\x00-\x1f\x7f\ud800-\udfff]+", "-", whole).strip().lstrip(".- ")
        if whole.strip(".- ") and (not part or re.search("[\ud800-\udfff]", whole)):
            part = "%s-%s" % (part or "artifact", _digest(whole))
        if part:
            parts.append(bounded(part + "-artifact" if part in RESERVED or _VERSION.match(part) else part))
    return "/".join(parts[:MAX_DEPTH]) or "artifact"


def is_recognizable(name, text):
    """Whether people recognise a text in the name that `safe_name` made of it: the name is neither cut nor a digest."""
    return not name.endswith(("-" + _digest(str(text)), "-" + _digest(name))) and len(str(text)) <= MAX_PART


def bounded(name):
    """A name within W&B's bound; a longer name is cut and ends in a digest of itself."""
    return name if len(name) <= MAX_PART else name[: MAX_PART - 9] + "-" + _digest(name)


def wandb_name(name):
    """The name under which W&B's client logs an artifact: letters, digits, `_`, `.` and `-`, 128 at most.

    W&B's look-ups take more characters, but its constructor does not (wandb/sdk/artifacts/artifact.py,
    `Artifact.__init__`). Another character becomes `-`, and a digest of the name keeps different names apart.
    """
    flat = str(name).replace("/", "-")
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", flat)
    return bounded(flat) if plain == flat else "%s-%s" % (plain[: MAX_PART - 9], _digest(flat))


def _digest(text):
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def check_alias(alias):
    """The alias, if a version may have it.

    Raises:
        StoreError: It has other characters than letters, digits, `_`, `.` and `-`, or reads as a version.
    """
    if isinstance(alias, str) and _ALIAS.match(alias) and not _NUMBER.match(alias):
        return alias
    raise StoreError(
        "to name an alias",
        "{!r}".format(alias),
        "Write one of letters, digits, '.', '_', '+', '@' and '-' that does not look like a version",
    )
