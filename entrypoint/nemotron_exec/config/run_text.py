"""Writes `run.wandb` and `run.*` overrides into the section `run:` of a config's text."""

from __future__ import annotations

from nemotron_exec.command.override import Override
from nemotron_exec.config.evaluate import Path
from nemotron_exec.config.root import Root, is_null, node_at
from nemotron_exec.document.document import Document, Scalar
from nemotron_exec.document.document import Mapping as MappingNode
from nemotron_exec.document.document import Sequence as SequenceNode
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


def add_wandb(root: Root, changes: Changes, data: Callable[[Any, Path], Any]) -> None:
    """Fill `run.wandb` in the text of the named file (design ruling 5)."""
    if not root.missing_wandb:
        return
    document = root.layer.document
    run = last_pair(document.root, "run")
    path: tuple[str, ...] = ("run", "wandb")
    values: Any = dict(root.missing_wandb)
    if run is None and last_pair(document.root, "<<"):
        # A merge brings in the section. A key `run` beside `<<` replaces the whole section, so write all of it.
        path, values = (), {"run": data(root.tree["run"], ("run",))}
    elif run is not None and (id(run[0]) in document.alias_spans or last_pair(run[1], "wandb") is None):
        values = data(root.tree["run"]["wandb"], path)
    _insert(document, changes, path, values)


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
    said = {override.path: override for override in overrides if override.is_about_run}
    for path, override in said.items():
        if any(path[:length] in said for length in range(1, len(path))):
            continue  # another override replaces the container, and the tree has the effect of both
        path = _written(document, path, override)
        node: Any = document.root
        for name in path:
            parent, pair = node, last_pair(node, name)
            if pair is None:
                break
            node = pair[1]
        found = node_at(root.tree, path)
        if pair is not None:
            _forget(document, changes, pair)
        if found is None and override.sign == "~":
            # A key may stand there twice, and the last one counts: remove each of them.
            for key, value in parent.pairs if pair is not None else ():
                if isinstance(key, Scalar) and key.value == path[-1]:
                    changes.removed[id(key)] = (parent, key)
                    _forget(document, changes, (key, value))
        elif pair is None:
            _insert(document, changes, path[:-1], {path[-1]: data(found, path)})
        else:
            changes.replaced[id(pair[0])] = (*pair, data(found, path))


def _written(document: Document, path: tuple[str, ...], override: Override) -> tuple[str, ...]:
    """The path at which the value of an override is written.

    It ends early at a value that comes from an alias or a merge, or that is a text. Such a value is written as a whole.

    Raises:
        LaunchError: A value on the way has an anchor, and the aliases that repeat it would change as well.
    """
    node: Any = document.root
    for number, name in enumerate(path, 1):
        pair = last_pair(node, name)
        if pair is None:
            in_place = last_pair(node, "<<") is None if isinstance(node, MappingNode) else override.sign == "~"
            return path if node is None or in_place else path[: max(number - 1, 1)]
        node = pair[1]
        if id(pair[0]) in document.alias_spans:
            return path[:number]
        if id(node) in document.aliased:
            raise document.error(
                f"to apply the override {override.word}",
                f"the value of {'.'.join(path[:number])} has an anchor, and what repeats it would change as well",
                "Write the value out where it is repeated",
                pair[0].line,
            )
    return path


def _forget(document: Document, changes: Changes, pair: tuple[Scalar, Any]) -> None:
    """Drop the other changes in a value that is replaced as a whole."""
    changes.wrapped.pop(id(pair[0]), None)
    if id(pair[0]) in document.alias_spans:
        return
    pending: list[Any] = [pair[1]]
    while pending:
        node = pending.pop()
        changes.scalars.pop(id(node), None)
        changes.added.pop(id(node), None)
        if isinstance(node, MappingNode):
            pending.extend(value for _, value in node.pairs)
        elif isinstance(node, SequenceNode):
            pending.extend(node.items)


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
