"""A config without its secrets, so that it may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from nemotron_exec.sitecustomize.payload.notice import is_secret, redact, redact_command, redact_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["mask_yaml"]


def mask_yaml(text: str) -> str:
    """The YAML text with `***` for each value whose key names a secret, and without the passwords of URLs.

    A text that is no YAML is masked line by line.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # The C parser gives wrong positions in a text that begins with a byte order mark.
        documents = list(yaml.compose_all(text.removeprefix("\ufeff"), loader))
    except (yaml.YAMLError, RecursionError):
        return "".join(redact_command([line])[0] for line in text.splitlines(keepends=True))
    start = len(text) - len(text.removeprefix("\ufeff"))
    spans: dict[tuple[int, int], bool] = {}
    for document in documents:
        for begin, end, secret in _scalars(document) if document is not None else ():
            # An anchored value comes up once for each of its names.
            spans[begin, end] = spans.get((begin, end), False) or secret
    for (begin, end), secret in sorted(spans.items(), reverse=True):
        begin, end = begin + start, end + start
        shown = redact_text(text[begin:end])
        if secret:
            # A block scalar includes its line break, which must stay.
            shown = "***" + text[begin:end][len(text[begin:end].rstrip()) :][:1]
        text = text[:begin] + shown + text[end:]
    return str(redact(text))


def _scalars(root: yaml.Node) -> Iterator[tuple[int, int, bool]]:
    """The span of each value, and whether it is a secret by its own key or by the key around it."""
    todo: list[tuple[yaml.Node, str]] = [(root, "")]
    seen = set()
    while todo:
        node, name = todo.pop()
        if isinstance(node, yaml.ScalarNode):
            yield node.start_mark.index, node.end_mark.index, bool(name) and is_secret(name, node.value)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [(item, name) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            todo += [(value, _named(key, node, name)) for key, value in node.value]


def _named(key: yaml.Node, mapping: yaml.MappingNode, around: str) -> str:
    """The name that decides whether a value is a secret: its key, or the mapping's name if that is a secret's."""
    own = key.value if isinstance(key, yaml.ScalarNode) else ""
    if own == "value":
        # Kubernetes and launchers list variables as `{name: HF_TOKEN, value: …}`.
        names = [value.value for other, value in mapping.value if other.value == "name"]
        if names and isinstance(names[0], str):
            return names[0]
    return around if is_secret(around, "x") else own
