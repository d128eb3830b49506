"""The result of steps 3 and 4: the answer that every launcher of the job applies to its own command."""

from __future__ import annotations

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from nemotron_exec.command.words import Command

__all__ = ["Resolution", "ResolvedConfig", "resolved_command"]


@dataclass(frozen=True)
class ResolvedConfig:
    """One config file: the user's file, and the file that the command gets instead (absolute paths)."""

    original: str
    resolved: str


@dataclass(frozen=True)
class Resolution:
    """The answer, the same on every node.

    Attributes:
        artifacts: Pinned inputs, in the order of `run:`.
        arguments: New words by their distance from the program. (The words before it, such as torchrun's own arguments,
            differ from node to node.)
        dropped: Distances of the words that are removed (`run.*=` overrides).
        configs: The config files that were rewritten.
        handoff: Path of the hand-off file; None where nothing was resolved.
        handoff_value: The hand-off itself, where a process of the job may not see its file; not part of `to_json`.
        store: Root of the manifest store.
        backend: "wandb" or "manifest".
        variables: Environment variables for the job, unless the job sets them itself.
        settings: Environment variables for the job, which replace the job's own.
        files: Digest of each config from which the answer was made; not part of `to_json`.
        outputs: Whether the config has `run.outputs`, which the hand-off lists.
        on_checkpoint: `run.on_checkpoint`: the commands that run after a checkpoint is in the store.
    """

    artifacts: tuple[Artifact, ...] = ()
    arguments: Mapping[int, str] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()
    configs: tuple[ResolvedConfig, ...] = ()
    handoff: str | None = None
    handoff_value: str | None = None
    store: str | None = None
    backend: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    outputs: bool = False
    on_checkpoint: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer as it is published, and as `--resolve-only` prints it."""
        return {
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "arguments": {str(offset): word for offset, word in self.arguments.items()},
            "dropped": sorted(self.dropped),
            "configs": [{"original": config.original, "resolved": config.resolved} for config in self.configs],
            "handoff": self.handoff,
            "store": self.store,
            "backend": self.backend,
            "variables": dict(self.variables),
            "settings": dict(self.settings),
            "outputs": self.outputs,
            "on_checkpoint": [dict(hook) for hook in self.on_checkpoint],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Resolution:
        """The inverse of `to_json`."""
        return cls(
            artifacts=tuple(Artifact.from_json(artifact) for artifact in data["artifacts"]),
            arguments={int(offset): str(word) for offset, word in data["arguments"].items()},
            dropped=frozenset(data["dropped"]),
            configs=tuple(ResolvedConfig(config["original"], config["resolved"]) for config in data["configs"]),
            handoff=data["handoff"],
            store=data["store"],
            backend=data["backend"],
            variables=data["variables"],
            settings=data.get("settings", {}),
            files=data.get("files", {}),
            outputs=bool(data.get("outputs")),
            on_checkpoint=tuple(data.get("on_checkpoint") or ()),
        )


def resolved_command(
    command: Command, resolution: Resolution, translate: Callable[[str], str] | None = None
) -> list[str]:
    """The command's words with config arguments replaced and `run.*` overrides removed. All other words stay.

    Args:
        command: The command as the user gave it.
        resolution: The answer.
        translate: Applied to every word where `/nemo_run` is another directory on this node.
    """
    # One word may become several (hydra.py). They are joined by NUL, which no word can hold.
    words = [
        new
        for index, word in enumerate(command.argv)
        if index - command.program not in resolution.dropped
        for new in resolution.arguments.get(index - command.program, word).split("\0")
    ]
    return [translate(word) for word in words] if translate else words
