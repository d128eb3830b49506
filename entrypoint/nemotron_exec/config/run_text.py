"""Writes `run.wandb` and `run.*` overrides into the section `run:` of a config's text."""

from __future__ import annotations

from nemotron_exec.command.override import Override
from nemotron_exec.config.evaluate import Path, select_plain
from nemotron_exec.config.root import Root, is_null
from nemotron_exec.document.document import Document, Scalar
from nemotron_exec.document.document import Mapping as MappingNode
from nemotron_exec.document.edit import Whole
from nemotron_exec.document.literal import Expression
from nemotron_exec.document.splice import Changes

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


__all__ = ["add_wandb", "apply_run_overrides", "last_pair", "override_data"]


def last_pair(node: Any, key: str) -> tuple[Scalar, Any] | None:
    """The last pair with the key in a mapping of the text."""
    if isinstance(node, MappingNode):
        for name, value in reversed(node.pairs):
            if isinstance(name, Scalar) and name.value == key:
                return name, value
    return None


def add_wandb(root: Root, changes: Changes) -> None:
    """Fill `run.wandb` in the text of the named file (design ruling 5)."""
    if root.missing_wandb:
        _insert(root.layer.document, changes, ("run", "wandb"), dict(root.missing_wandb))


def _insert(document: Document, changes: Changes, path: tuple[str, ...], values: dict[str, Any]) -> None:
    """Add keys to the mapping at `path` of the text. A null or absent mapping on the way is created."""
    node: Any = document.root
    for number, name in enumerate(path):
        pair = last_pair(node, name)
        rest = path[number + 1 :]
        nested: dict[str, Any] = values
        for key in reversed(rest):
            nested = {key: nested}
        if pair is None:
            if isinstance(node, MappingNode) and id(node) in document.aliased and number:
                return  # an alias repeats this anchor, and would get the keys, too
            _add(document, changes, node, {name: nested})
            return
        name_node, node = pair
        if isinstance(node, Scalar):
            if is_null(node):
                changes.replaced[id(name_node)] = (name_node, node, nested)
            return
        if id(name_node) in document.alias_spans:
            changes.wrapped[id(name_node)] = (name_node, nested)
            return
    fresh = {}
    for name, inner in values.items():
        pair = last_pair(node, name)
        if pair is None:
            fresh[name] = inner
        elif isinstance(pair[1], Scalar):
            changes.replaced[id(pair[0])] = (*pair, inner)
    if fresh:
        _add(document, changes, node, fresh)


def _add(document: Document, changes: Changes, node: Any, values: dict[str, Any]) -> None:
    if node is None or node is document.root:
        changes.root |= values
    elif isinstance(node, MappingNode):
        before = changes.added.get(id(node), (node, {}))[1]
        changes.added[id(node)] = (node, {**before, **values})


def apply_run_overrides(
    root: Root, overrides: Sequence[Override], changes: Changes, data: Callable[[Any, Path], Any]
) -> None:
    """Write the `run.*` overrides into the text of the named file, which wins over its parents."""
    document = root.layer.document
    # The last override of a key wins.
    for override in {override.path: override for override in overrides if override.is_about_run}.values():
        node: Any = document.root
        pair = None
        for name in override.path:
            pair = last_pair(node, name)
            if pair is None:
                break
            parent, node = node, pair[1]
        if override.sign == "~":
            if pair is not None:
                changes.removed[id(pair[0])] = (parent, pair[0])
            continue
        value = data(select_plain(root.tree, override.path), override.path)
        if pair is None:
            _insert(document, changes, override.path[:-1], {override.path[-1]: value})
        else:
            if isinstance(pair[1], Scalar):
                changes.scalars.pop(id(pair[1]), None)
            changes.replaced[id(pair[0])] = (*pair, value)


def override_data(tree: Any, path: Path, rewritten: Callable[[Scalar, Path], Any]) -> Any:
    """The value of an override as data to write. An interpolation of neither an artifact nor `run` stays."""
    if isinstance(tree, dict):
        return {key: override_data(value, (*path, key), rewritten) for key, value in tree.items()}
    if isinstance(tree, list):
        return [override_data(item, (*path, index), rewritten) for index, item in enumerate(tree)]
    if not isinstance(tree, Scalar):
        return tree
    if not tree.is_expression:
        return tree.construct()
    edit = rewritten(tree, path)
    if isinstance(edit, Whole):
        return edit.value
    return Expression(tree.value if edit is None else edit.text)
