"""Hugging Face references: `hf://org/model@REV`, and the mapping `{hf: org/model, revision: REV, include: […]}`."""

from __future__ import annotations

import re
from urllib.parse import unquote

from nemotron_exec.artifacts.reference import Reference
from nemotron_exec.errors import LaunchError
from nemotron_exec.origin import Origin

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HUB", "SCHEME", "is_hub_id", "parse_hub_id", "parse_hub_mapping", "parse_hub_text"]

HUB = "huggingface"
"""Name of the store in `Artifact.store` and `Reference.store`."""
SCHEME = "hf://"
_KEYS = ("hf", "revision", "include", "exclude", "trust_remote_code")
# huggingface_hub/utils/_validators.py, validate_repo_id.
_ID = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?(?:/[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?)?\Z"
)
# The names that Git takes for a branch or tag, limited to file names that the cache can hold below `refs/`.
_REVISION = re.compile(r"[A-Za-z0-9_](?:[\w.+/=-]*[\w+=-])?\Z")
_WRITE = "Write hf://org/name, hf://org/name@REVISION or hf://datasets/org/name@REVISION"


def is_hub_id(text: str) -> bool:
    """Whether `text` is `org/name` as the hub takes it. A relative path may look the same."""
    return "/" in text and _is_id(text)


def parse_hub_id(key: str, text: str, origin: Origin) -> Reference:
    """Read a plain `org/name`: the model of that name on the hub, at its default branch.

    Raises:
        LaunchError: The text is no id of the hub.
    """
    return _reference(key, text, origin, text, None, said=text)


def parse_hub_text(key: str, text: str, origin: Origin) -> Reference:
    """Read `hf://[datasets/]org/name[@REVISION]` (the scheme of huggingface_hub's HfFileSystem, without a path).

    Raises:
        LaunchError: The text has no id, a path inside the repository, a space, or a revision that Git would not take.
    """
    name, at, revision = text.strip()[len(SCHEME) :].partition("@")
    return _reference(key, text, origin, name, unquote(revision) if at else None, said=text)


def parse_hub_mapping(key: str, value: Mapping[str, object], origin: Origin) -> Reference:
    """Read `{hf: [datasets/]org/name, revision: REV, include: [PATTERN, …], exclude: [PATTERN, …]}`.

    `trust_remote_code: true` has the repository's Python modules copied to `HF_MODULES_CACHE` before the ranks start.

    Args:
        key: The key under `run:`.
        value: The mapping, its interpolations replaced.
        origin: File and line, for messages.

    Raises:
        LaunchError: An unknown key, or a value of another kind.
    """
    wanted = f"run.{key} ({origin}) to name a Hugging Face repository"
    if unknown := [name for name in value if name not in _KEYS]:
        raise LaunchError(wanted, f"the key {unknown[0]!r}", f"The keys are {', '.join(_KEYS)}")
    said, revision = value["hf"], value.get("revision")
    if not isinstance(said, str):
        raise LaunchError(wanted, f"hf: {said!r}", "Write `hf: org/name` or `hf: datasets/org/name`")
    name, at, inside = said.strip().removeprefix(SCHEME).partition("@")
    if at and revision is not None:
        raise LaunchError(wanted, f"two revisions, {inside!r} and {revision!r}", "Write one of them")
    if isinstance(revision, bool) or not isinstance(revision, (str, int, type(None))):
        raise LaunchError(wanted, f"revision: {revision!r}", "Write the name of a branch or tag, or a commit, as text")
    include, exclude = (_patterns(wanted, value, name) for name in ("include", "exclude"))
    code = value.get("trust_remote_code", False)
    if not isinstance(code, bool):
        raise LaunchError(wanted, f"trust_remote_code: {code!r}", "Write true or false")
    given = unquote(inside) if at else None if revision is None else str(revision)
    found = _reference(key, said, origin, name, given, said=said)
    more = [
        f"{word} {', '.join(patterns)}" for word, patterns in (("include", include), ("exclude", exclude)) if patterns
    ]
    if code:
        more.append("trust_remote_code")
    text = hub_name(found.type, found.name) + f"@{found.alias}" + (f" ({'; '.join(more)})" if more else "")
    return Reference(
        key, text, found.parts, found.alias, origin, HUB, found.type, include=include, exclude=exclude, remote_code=code
    )


def hub_name(kind: str, name: str) -> str:
    """`hf://org/name` of a model, `hf://datasets/org/name` of a data set."""
    return f"{SCHEME}{'datasets/' if kind == 'dataset' else ''}{name}"


def _patterns(wanted: str, value: Mapping[str, object], name: str) -> tuple[str, ...]:
    given = value.get(name)
    patterns = [given] if isinstance(given, str) else given if given is not None else []
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise LaunchError(
            wanted, f"{name}: {given!r}", f'Write a list of patterns: {name}: ["*.safetensors", "*.json"]'
        )
    return tuple(str(pattern) for pattern in patterns)


def _reference(key: str, text: str, origin: Origin, name: str, revision: str | None, *, said: str) -> Reference:
    wanted = f"run.{key} ({origin}) to name a Hugging Face repository"
    kind, _, rest = name.partition("/")
    if kind in ("spaces", "buckets") and rest:
        raise LaunchError(wanted, f"{said!r}, which is neither a model nor a data set", _WRITE)
    if kind in ("datasets", "models") and rest:
        name = rest
    else:
        kind = "models"
    if not _is_id(name):
        if name.count("/") > 1 and _is_id("/".join(name.split("/")[:2])):
            remedy = "Name the repository, and its files with `{hf: org/name, include: [PATTERN]}`"
            raise LaunchError(wanted, f"{said!r}, which has a path inside the repository", remedy)
        if ":" in name:
            raise LaunchError(wanted, f"{said!r}", "The revision of a Hugging Face repository follows an @: " + _WRITE)
        raise LaunchError(wanted, f"{said!r}, whose name {name!r} the hub does not take", _WRITE)
    if revision is not None and (not _REVISION.match(revision) or ".." in revision or "//" in revision):
        raise LaunchError(
            wanted, f"{said!r}, whose revision {revision!r} is not one", "Name a branch, a tag or a commit of 40 digits"
        )
    return Reference(key, text, tuple(name.split("/")), revision or "main", origin, HUB, kind[:-1])


def _is_id(text: str) -> bool:
    return bool(_ID.match(text)) and "--" not in text and ".." not in text and not text.endswith(".git")
