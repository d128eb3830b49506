"""A resolved artifact, and the field table of `${art:NAME,FIELD}`."""

from __future__ import annotations

from nemotron_exec import frozen
from nemotron_exec.sitecustomize.payload import field as field_table

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from nemotron_exec.sitecustomize.payload.documents import PinnedArtifact

__all__ = ["Artifact", "UnknownFieldError"]


class UnknownFieldError(KeyError):
    """`${art:NAME,FIELD}` asks for a field that the artifact does not have. `args[0]` lists its fields."""


@frozen.dataclass(frozen=True)
class Artifact:
    """One version of one artifact, pinned.

    Attributes:
        key: The key under `run:`.
        reference: The reference in the config (`pretrain:latest`).
        store: "manifest", "wandb" or "huggingface".
        name: Artifact name, without version.
        version: Pinned version, `v5`; the first 12 digits of a commit of the Hugging Face hub.
        type: `dataset`, `model`, …; empty where the store does not know.
        path: Directory or file that exists for this job, or a URI.
        qualified_name: `entity/project/name:v5` in W&B, `name:v5` in the manifest store, `hf://org/name@COMMIT`: what
            lineage records.
        iteration: Training iteration of a model checkpoint.
        digest: Content digest as the store gives it; the commit of the Hugging Face hub.
        fields: Content of the artifact's metadata.json.
        metadata: The artifact's own metadata: `metadata` of manifest.json, or W&B's.
        source: Where the version is described: directory of manifest.json, or the W&B page.
    """

    key: str
    reference: str
    store: str
    name: str
    version: str
    type: str
    path: str
    qualified_name: str
    iteration: int | None = None
    digest: str | None = None
    fields: Mapping[str, Any] = frozen.field(default_factory=dict)
    metadata: Mapping[str, Any] = frozen.field(default_factory=dict)
    source: str | None = None

    @property
    def pinned_alias(self) -> str:
        """The part of a reference after the name that means this version and no other."""
        return self.digest if self.store == "huggingface" and self.digest else self.version

    def field(self, name: str) -> Any:
        """The value of `${art:KEY,name}`, in the type it was recorded with.

        Order of look-up (design.md, Artifacts): the artifact itself, metadata.json, the `metadata` inside it, the
        metadata of the store. `metadata.X` looks only in the last three.

        Raises:
            UnknownFieldError: The artifact has no such field. `args[0]` holds the names of its fields.
        """
        try:
            return field_table.look_up(vars(self), name)
        except KeyError:
            raise UnknownFieldError(self.field_names()) from None

    def field_names(self) -> list[str]:
        """The names of all fields that `field` finds, sorted."""
        return list(field_table.names(vars(self)))

    def to_json(self) -> PinnedArtifact:
        """The artifact as the hand-off, the pin and `--resolve-only` carry it."""
        return {item.name: getattr(self, item.name) for item in frozen.fields(self)}  # type: ignore[return-value]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        """The inverse of `to_json`. Unknown keys, written by a later version of nemotron-exec, are ignored."""
        known = {item.name for item in frozen.fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})
