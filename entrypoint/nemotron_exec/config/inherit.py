"""`defaults:` as NeMo-RL reads it (nemo_rl/utils/config.py `load_config_with_inheritance`).

The value is a file name with its extension, or a list of them, relative to the file with the key. Each parent is merged
over the one before, and the file itself last. Hydra's defaults lists, which name groups, are ignored here.
"""

from __future__ import annotations

import os

from nemotron_exec.config.evaluate import Evaluator, Kept, Path, Reached, Value
from nemotron_exec.document.document import Document, Scalar, Tree
from nemotron_exec.document.parse import load
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Layer", "Merged", "documents_of", "load_layers", "merge_layers"]

_MAX_FILES = 1000
_MAX_DEPTH = 100  # each level takes Python's stack, and a RecursionError would tell no remedy


@dataclass(frozen=True)
class Layer:
    """One file of an inheritance chain, with its parents: the files that its `defaults:` names."""

    document: Document
    parents: tuple[tuple[Scalar, Layer], ...]
    inherits: bool


def documents_of(layer: Layer) -> list[Document]:
    """The documents of the file and of its ancestors, each once."""
    found: dict[str, Document] = {}
    pending = [layer]
    while pending:
        one = pending.pop()
        if one.document.path not in found:
            found[one.document.path] = one.document
            pending += [parent for _, parent in reversed(one.parents)]
    return list(found.values())


def load_layers(path: str, environ: Mapping[str, str]) -> Layer:
    """Read the file at `path` and every file that it inherits from.

    Raises:
        LaunchError: A file is missing or bad, or the files inherit from each other in a circle.
    """
    loaded: dict[str, Layer] = {}

    def visit(path: str, chain: tuple[str, ...]) -> Layer:
        if path in loaded:
            return loaded[path]
        if len(loaded) + len(chain) >= _MAX_FILES:
            raise LaunchError(f"to follow the defaults of {chain[0]}", f"more than {_MAX_FILES} files", "Flatten it")
        if len(chain) >= _MAX_DEPTH:
            raise LaunchError(
                f"to follow the defaults of {chain[0]}", f"more than {_MAX_DEPTH} files one below another", "Flatten it"
            )
        document = load(path)
        names = parents_named(document, environ)
        parents = []
        for scalar, target in names or ():
            if target in (*chain, path):
                circle = " -> ".join([*(*chain, path)[(*chain, path).index(target) :], target])
                raise document.error(
                    "to follow defaults:", f"the files inherit in a circle: {circle}", "Break the circle", scalar.line
                )
            if not os.path.isfile(target):
                raise document.error(
                    "to follow defaults:",
                    f"{scalar.value!r} names no file ({target})",
                    "Paths are relative to the file that says defaults:",
                    scalar.line,
                )
            parents.append((scalar, visit(target, (*chain, path))))
        loaded[path] = Layer(document, tuple(parents), names is not None)
        return loaded[path]

    return visit(absolute(path), ())


def parents_named(document: Document, environ: Mapping[str, str]) -> list[tuple[Scalar, str]] | None:
    """The entries of a NeMo-RL `defaults:`, each with the absolute path that it names; None if the file has none."""
    tree = document.tree()
    entry = tree.get("defaults") if isinstance(tree, dict) else None
    entries = entry if isinstance(entry, list) else [entry]
    evaluator = Evaluator(tree, None, environ=environ)
    found = []
    for number, scalar in enumerate(entries):
        if not isinstance(scalar, Scalar):
            return None
        path: Path = ("defaults", number) if isinstance(entry, list) else ("defaults",)
        result = evaluator.scalar(scalar, path)
        if isinstance(result, Kept) and scalar.is_expression and scalar.value.endswith((".yaml", ".yml")):
            raise document.error("to follow defaults:", result.why, "Name a file", scalar.line)
        if not isinstance(result, Value) or not str(result.value).endswith((".yaml", ".yml")):
            return None
        base = os.path.dirname(document.path)
        found.append((scalar, absolute(os.path.join(base, str(result.value)))))
    return found


@dataclass(frozen=True)
class Merged:
    """A chain merged into one tree. The values at `uncertain` paths depend on the resolvers of the script."""

    tree: Tree
    uncertain: frozenset[Path]


def merge_layers(layer: Layer) -> Merged:
    """The tree that NeMo-RL's loader would hand to the script, before anything is resolved."""
    uncertain: set[Path] = set()
    tree = _merge_layer(layer, uncertain)
    return Merged(tree, frozenset(uncertain))


def _merge_layer(layer: Layer, uncertain: set[Path]) -> Tree:
    tree = layer.document.tree()
    if not layer.inherits or not isinstance(tree, dict):
        return tree
    base: dict[Any, Any] = {}
    for scalar, parent in layer.parents:
        inherited = _merge_layer(parent, uncertain)
        if not isinstance(inherited, dict):
            raise layer.document.error(
                "to follow defaults:", f"{parent.document.path} is no mapping", "Inherit from mappings", scalar.line
            )
        base = _merge_override(base, inherited, uncertain)
    own = {key: value for key, value in tree.items() if key != "defaults"}
    return _merge_override(base, own, uncertain)


def _merge_override(base: dict[Any, Any], child: dict[Any, Any], uncertain: set[Path]) -> dict[Any, Any]:
    """Merge like nemo_rl's `merge_with_override`: a section with `_override_: true` replaces the inherited one."""
    base, child = dict(base), dict(child)
    for key, value in child.items():
        marker = value.get("_override_") if isinstance(value, dict) else None
        if isinstance(marker, Scalar) and _is_true(marker):
            child[key] = {name: item for name, item in value.items() if name != "_override_"}
            base.pop(key, None)
    return merge(base, child, (), base, uncertain)


def _is_true(marker: Scalar) -> bool:
    try:
        return bool(marker.construct())
    except ValueError:
        return False


def merge(
    base: dict[Any, Any], child: dict[Any, Any], path: Path, root: dict[Any, Any], uncertain: set[Path]
) -> dict[Any, Any]:
    """Merge like OmegaConf.merge: mappings are merged, other values are replaced, and `???` replaces nothing."""
    result = dict(base)
    for key, value in child.items():
        here = (*path, key)
        before = result.get(key)
        if isinstance(value, Scalar) and value.value == "???" and before is not None:
            continue
        if isinstance(value, dict) and isinstance(before, Scalar) and before.is_expression:
            # OmegaConf expands an interpolation of a mapping, and merges into that mapping.
            reached = Evaluator(root, None).scalar(before, here)
            before = reached.tree if isinstance(reached, Reached) else None
            if isinstance(reached, Kept):
                uncertain.add(here)
        if isinstance(value, dict) and isinstance(before, dict):
            result[key] = merge(before, value, here, root, uncertain)
        else:
            result[key] = value
    return result
