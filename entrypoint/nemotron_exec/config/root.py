"""The merged configs of the command, the paths that the job may change, and walks over trees."""

from __future__ import annotations

from nemotron_exec.command.override import Override
from nemotron_exec.config import hydra
from nemotron_exec.config.evaluate import Evaluator, Path, Value
from nemotron_exec.config.inherit import Layer
from nemotron_exec.config.override import Reach
from nemotron_exec.document.document import Document, Scalar, scalar_outside, tag_of
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Literal

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.command.words import ConfigArgument

__all__ = [
    "Root",
    "Sources",
    "evaluator_of",
    "expressions_of",
    "is_null",
    "node_at",
    "override_scalar",
    "plain_value",
    "positions_of",
    "scalars_of",
    "sources_of",
]


@dataclass(frozen=True)
class Root:
    """One config argument, merged with its files."""

    argument: ConfigArgument
    layer: Layer
    tree: Any
    uncertain: frozenset[Path]
    missing_wandb: Mapping[str, str | None] = field(default_factory=dict)
    groups: tuple[Document, ...] = ()
    chosen: tuple[Document, ...] = ()
    profile: tuple[Override, ...] = ()

    @property
    def documents(self) -> list[Document]:
        """Every file once, the named one first."""
        return [*(layer.document for layer in self.layers), *self.groups]

    @property
    def layers(self) -> list[Layer]:
        """Every layer once, the named file's first."""
        found: dict[str, Layer] = {}

        def visit(layer: Layer) -> None:
            if layer.document.path not in found:
                found[layer.document.path] = layer
                for _, parent in layer.parents:
                    visit(parent)

        visit(self.layer)
        return list(found.values())


@dataclass(frozen=True)
class Sources:
    """The configs of a command, and everything that decides their values.

    Attributes:
        roots: Each config of the command, merged with the files that it inherits from.
        overrides: The overrides of the command, in any form.
        environ: The environment, for `${oc.env:…}` in a reference.
        resolve: The value of `--resolve`.
        named: The artifacts of `--artifact` and `--artifacts`, as nodes.
        commanded: The paths that overrides of the command change for the script.
        reaches: For each root, the paths that may have another value in the job.
    """

    roots: Sequence[Root]
    overrides: Sequence[Override]
    environ: Mapping[str, str]
    resolve: Literal["artifacts", "all"]
    named: Mapping[str, Any]
    commanded: Reach
    reaches: Sequence[Reach]


def sources_of(
    roots: Sequence[Root],
    overrides: Sequence[Override],
    environ: Mapping[str, str],
    resolve: Literal["artifacts", "all"],
    named: Mapping[str, Any],
    touched: Iterable[Path] = (),
) -> Sources:
    """The sources, with the paths that the job may change: by overrides, or by other words (`touched`)."""
    about_script = [*(override.path for override in overrides if override.path[0] != "run"), *touched]
    reaches = [_reach(root, roots, about_script) for root in roots]
    return Sources(roots, overrides, environ, resolve, named, Reach(about_script), reaches)


def _reach(root: Root, roots: Sequence[Root], about_script: Sequence[tuple[Any, ...]]) -> Reach:
    """The paths that may have another value in the job: of overrides, and of keys that another config has, too."""
    if root.argument.hydra is not None:
        return hydra.OnlyRun(hydra.contested(root.groups))
    paths = [*about_script, *root.uncertain]
    for other in roots:
        if other is not root:
            paths += [path for path, _ in scalars_of(other.tree, ()) if path and path[0] != "run"]
    return Reach(paths)


def evaluator_of(
    sources: Sources, number: int, artifacts: Mapping[str, Artifact] | None, environ: Mapping[str, str] | None = None
) -> Evaluator:
    """The evaluator of the expressions of one root.

    Args:
        sources: The configs and overrides.
        number: Index of the root.
        artifacts: The artifacts of the references, by key; None before they are resolved.
        environ: The environment for `${oc.env:…}`; None leaves it to the job.
    """
    reach = sources.reaches[number]
    tree = sources.roots[number].tree
    return Evaluator(tree, artifacts, replaced=reach.replaces, touched=reach.touches, environ=environ)


def scalars_of(tree: Any, path: Path) -> list[tuple[Path, Scalar]]:
    """Every scalar with its path. The tree's size is bounded (document.py)."""
    found: list[tuple[Path, Scalar]] = []
    pending: list[tuple[Path, Any]] = [(path, tree)]
    while pending:
        here, node = pending.pop()
        if isinstance(node, Scalar):
            found.append((here, node))
        elif isinstance(node, dict):
            pending.extend(((*here, key), value) for key, value in reversed(node.items()))
        elif isinstance(node, list):
            pending.extend(((*here, index), node[index]) for index in reversed(range(len(node))))
    return found


def node_at(tree: Any, path: Path) -> Any:
    """The node at a path; None if there is none."""
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def positions_of(root: Root) -> dict[int, tuple[Scalar, list[Path]]]:
    """Every scalar of the files that holds `${`, with all its paths."""
    found: dict[int, tuple[Scalar, list[Path]]] = {}
    for layer in root.layers:
        if "${" not in layer.document.text:
            continue
        for path, scalar in scalars_of(layer.document.tree(), ()):
            if scalar.is_expression and not (layer.inherits and path[0] == "defaults"):
                found.setdefault(id(scalar), (scalar, []))[1].append(path)
    for document in root.groups:
        # The path of a group in the config is not known here, so take one that no interpolation can name.
        for path, scalar in scalars_of(document.tree(), ("\0", document.path)):
            if scalar.is_expression:
                found.setdefault(id(scalar), (scalar, []))[1].append(path)
    return found


def expressions_of(override: Override) -> list[Scalar]:
    """The interpolations in the value of an override, each as a scalar."""
    if override.is_about_run or not override.text or "${" not in override.text:
        return []
    from nemotron_exec.config.override_value import interpolations_in

    return [override_scalar(override, text) for text in interpolations_in(override.text)]


def override_scalar(override: Override, text: str) -> Scalar:
    """A part of an override's value as a scalar of a config."""
    return scalar_outside(text, override.word)


def plain_value(tree: Any, path: Path, evaluator: Evaluator) -> object:
    """A subtree as plain data. An interpolation without a value yet stays text."""
    if isinstance(tree, dict):
        return {str(key): plain_value(value, (*path, key), evaluator) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain_value(value, (*path, index), evaluator) for index, value in enumerate(tree)]
    if not isinstance(tree, Scalar):
        return tree
    try:
        result = evaluator.scalar(tree, path)
    except LaunchError:
        return tree.value
    return result.value if isinstance(result, Value) else tree.value


def is_null(node: Any) -> bool:
    """Whether a node is absent or null."""
    return node is None or (isinstance(node, Scalar) and tag_of(node) == "tag:yaml.org,2002:null")
