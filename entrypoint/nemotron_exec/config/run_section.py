"""The section `run:` of a config: its defaults, its overrides and its valid content."""

from __future__ import annotations

from nemotron_exec.command.override import Override
from nemotron_exec.config.inherit import Layer
from nemotron_exec.config.override import value_of
from nemotron_exec.config.root import is_null
from nemotron_exec.config.run_text import last_pair
from nemotron_exec.document.document import Document, Scalar, scalar_outside, tree_of
from nemotron_exec.document.literal import yaml_literal
from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


__all__ = [
    "Injected",
    "apply_override",
    "check_run",
    "find_missing_wandb",
    "profile_overrides",
    "texts_of",
    "with_wandb",
]


_WANDB_KEYS = ("project", "entity")


@dataclass(frozen=True)
class Injected:
    """The values that the launcher adds to `run`.

    Attributes:
        project: Value of `run.wandb.project` where the config has none.
        entity: Value of `run.wandb.entity` where the config has none.
        env: Values of a profile of env.toml that replace those of `run.env`, as in nemo_runspec/config/loader.py.
        null: Whether a key of `run.wandb` that the config uses, but nothing gives, becomes null. NVIDIA's recipes use
            `${run.wandb.project}` also without W&B, and OmegaConf refuses an interpolation of a missing key.
    """

    project: str | None = None
    entity: str | None = None
    env: Mapping[str, Any] = field(default_factory=dict)
    null: bool = False

    def missing_from(self, wandb: Any) -> dict[str, str]:
        """The keys and values that a `run.wandb` section lacks. A null value counts as absent."""
        given = wandb if isinstance(wandb, dict) else {}
        pairs = {"project": self.project, "entity": self.entity}
        return {key: value for key, value in pairs.items() if value and is_null(given.get(key))}


def check_run(tree: Any, document: Document) -> None:
    """Refuse a `run` that is no mapping.

    Raises:
        LaunchError: `run` is a list, a text or a number.
    """
    if not isinstance(tree, dict):
        return
    run = tree.get("run")
    if run is None or isinstance(run, dict) or (isinstance(run, Scalar) and (is_null(run) or run.is_expression)):
        return
    named = last_pair(document.root, "run")
    line = run.line if isinstance(run, Scalar) else named[0].line if named else 0
    raise document.error(
        "to read the run section",
        f"it is a {'list' if isinstance(run, list) else 'scalar'}, not a mapping",
        "Write `run:` with one `key: artifact:version` a line",
        line,
    )


def profile_overrides(env: Mapping[str, Any], path: tuple[str, ...] = ("run", "env")) -> list[Override]:
    """A profile as overrides, one for each value that is no table."""
    found = []
    for key, value in env.items():
        here = (*path, key)
        if isinstance(value, dict) and value:
            found += profile_overrides(value, here)
        else:
            data = value if isinstance(value, (str, int, float, list, dict)) else str(value)  # TOML has dates
            found.append(Override(-1, f"{'.'.join(here)} of env.toml", "++", "", here, yaml_literal(data)))
    return found


def apply_override(tree: Any, override: Override, document: Document) -> Any:
    """The tree with one `run.*` override applied. The original tree is not changed."""
    if not isinstance(tree, dict):
        raise document.error(f"to apply the override {override.word}", "the config is no mapping", "Leave it out")
    result = dict(tree)
    node: dict[Any, Any] = result
    for key in override.path[:-1]:
        inner = node.get(key)
        node[key] = dict(inner) if isinstance(inner, dict) else {}
        node = node[key]
    last = override.path[-1]
    if override.sign == "~":
        node.pop(last, None)
    else:
        value = value_of(override)
        node[last] = tree_of(value, document)
    return result


def find_missing_wandb(tree: Any, injected: Injected, layer: Layer) -> dict[str, str | None]:
    """The keys to add to `run.wandb`. There are none where the config neither has `run` nor uses `run.wandb`."""
    if not isinstance(tree, dict):
        return {}
    run = tree.get("run")
    if isinstance(run, Scalar) and not is_null(run):
        return {}
    if run is None and not any("run.wandb" in text for text in texts_of(layer)):
        return {}
    wandb = run.get("wandb") if isinstance(run, dict) else None
    if isinstance(wandb, list) or (isinstance(wandb, Scalar) and not is_null(wandb)):
        return {}
    missing: dict[str, str | None] = {**injected.missing_from(wandb)}
    if injected.null and isinstance(run, dict):
        given = {*(wandb if isinstance(wandb, dict) else ()), *missing}
        text = "".join(texts_of(layer))
        missing |= dict.fromkeys(key for key in _WANDB_KEYS if key not in given and f"${{run.wandb.{key}}}" in text)
    return missing


def texts_of(layer: Layer) -> list[str]:
    """The texts of a config and of the files that it inherits from."""
    return [layer.document.text, *(text for _, parent in layer.parents for text in texts_of(parent))]


def with_wandb(tree: dict[Any, Any], missing: Mapping[str, str | None]) -> dict[Any, Any]:
    """The tree with the keys of `missing` added to `run.wandb`."""
    run = tree.get("run")
    run = dict(run) if isinstance(run, dict) else {}
    wandb = run.get("wandb")
    wandb = dict(wandb) if isinstance(wandb, dict) else {}
    for key, value in missing.items():
        style = "" if value is None else '"'
        wandb[key] = scalar_outside("null" if value is None else value, "env.toml", style)
    return {**tree, "run": {**run, "wandb": wandb}}
