"""Artifact references: how `name:alias` is written and recognised in a config's `run` section."""

from __future__ import annotations

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.reference import looks_like_reference, may_be_another

__all__ = ["Reference", "looks_like_reference", "may_be_another", "parse_reference"]

# W&B's own rule for artifact names (wandb/sdk/artifacts/_validators.py: no slash, at most 128 characters), without the
# characters that references and file systems cannot hold.
_PART = pattern(r"(?![.\s\-])[^/:\x00-\x1f\x7f]{1,128}(?<!\s)\Z")

_ALIAS = pattern(r"[^/:\s][^/:]*\Z")


@dataclass(frozen=True)
class Reference:
    """One artifact as the user named it.

    Attributes:
        key: The name under `run:` by which `${art:KEY,…}` refers to it.
        text: The text in the config, unchanged.
        parts: The slash-separated name: `("entity", "project", "name")`, `("project", "name")` or `("name",)` for
            W&B; for the manifest store all of them together are the name.
        alias: The text after the colon, normalised: `latest` where there is none, `v3` for `3`.
        origin: File and line, for messages.
        store: The store that the text names by its scheme; None means the store that `--backend` chooses.
        type: "model" or "dataset" where the text says it (Hugging Face); empty elsewhere.
        include: Patterns of the files to fetch; empty for all files.
        exclude: Patterns of the files not to fetch.
        remote_code: Whether the repository's Python modules are prepared for `trust_remote_code`.
        optional: Whether the text may be no reference at all: a name and a number that no `${art:…}` uses.
    """

    key: str
    text: str
    parts: tuple[str, ...]
    alias: str
    origin: Origin
    store: str | None = None
    type: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    remote_code: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        """The parts joined again: the name in the manifest store."""
        return "/".join(self.parts)


def parse_reference(key: str, text: str, origin: Origin) -> Reference:
    """Read `[art://][entity/][project/]name[:alias]`.

    Raises:
        LaunchError: A part of the name is empty, absolute or `..`, or holds characters that no store takes.
    """
    wanted = f"run.{key} ({origin}) to name an artifact as [entity/][project/]name[:version or alias]"
    body = text.strip().removeprefix("art://")
    name, colon, alias = body.rpartition(":")
    if not colon:
        name, alias = body, "latest"
    if alias.isdigit():
        alias = f"v{int(alias)}"
    parts = tuple(name.split("/"))
    for part in parts:
        if not _PART.match(part):
            raise LaunchError(
                wanted,
                f"{text!r}, whose part {part!r} is {'empty' if not part else 'not a name'}",
                "Write a name of at most 128 characters, without ':' or '..', and without a leading '/', '.' or '-'",
            )
    if not _ALIAS.match(alias):
        raise LaunchError(wanted, f"{text!r}, whose version {alias!r} is not one", "Write v3, 3, latest or an alias")
    return Reference(key, text, parts, alias, origin)
