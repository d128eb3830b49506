"""Edits a YAML text: scalars that hold artifacts are replaced in place, and every other byte stays.

The result is parsed again and compared node by node with the intended content. A text that reads differently is never
written.
"""

from __future__ import annotations

import re

from nemotron_exec.document.document import Document, Mapping, Node, Scalar, Sequence, scalar_outside, tag_of
from nemotron_exec.document.edit import Retext, Whole
from nemotron_exec.document.literal import Expression, UnwritableError, escape, yaml_double_quoted, yaml_literal
from nemotron_exec.document.parse import parse_text
from nemotron_exec.document.pyyaml import yaml
from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

    from nemotron_exec.document.edit import Edit

__all__ = ["Changes", "splice"]

# Characters that mean themselves in any style, on one line, ASCII or not.
_PRINTABLE = pattern(r"[\x20-\x7E\xA1-\u2027\u202A-\uD7FF\uE000-\uFEFE\uFF00-\uFFFD\U00010000-\U0010FFFF]*\Z")
_PLAIN_START = pattern(r"[A-Za-z0-9_/.$\\]")


class Changes:
    """The changes to one document.

    Attributes:
        scalars: The edits of scalars, by id of the scalar.
        added: Keys that a mapping gets before its first own key, by id of the mapping.
        replaced: Values that are replaced as a whole, by id of their key.
        removed: Ids of keys that are removed with their values.
        wrapped: By id of a key whose value is an alias: keys that are added beside `<<: *alias`.
    """

    def __init__(self) -> None:
        self.scalars: dict[int, tuple[Scalar, Edit]] = {}
        self.added: dict[int, tuple[Mapping, dict[str, Any]]] = {}
        self.replaced: dict[int, tuple[Scalar, Node, Any]] = {}
        self.removed: dict[int, tuple[Mapping, Scalar]] = {}
        self.wrapped: dict[int, tuple[Scalar, dict[str, Any]]] = {}
        self.root: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.scalars or self.added or self.replaced or self.removed or self.wrapped or self.root)


def splice(document: Document, changes: Changes) -> str:
    """The text of `document` with `changes` made.

    Raises:
        LaunchError: A value cannot be written, or the result would be read differently than intended.
    """
    pieces: list[tuple[int, int, str]] = []
    tokens = _Tokens(document)
    for scalar, edit in changes.scalars.values():
        pieces.append(_scalar(document, scalar, edit, tokens))
    for mapping, added in changes.added.values():
        pieces.append(_addition(document, mapping, added))
    for key, node, value in changes.replaced.values():
        pieces.append(_replacement(document, key, node, value))
    for key, added in changes.wrapped.values():
        start, end = document.alias_spans[id(key)]
        pieces.append((start, end, f"{{<<: {document.text[start:end]}, {_pairs(added)}}}"))
    for mapping, key in changes.removed.values():
        pieces.append(_removal(document, mapping, key))
    if changes.root:
        pieces.append(_root_addition(document, changes.root))
    text = _apply(document.text, pieces)
    _verify(document, changes, text)
    return text


def _apply(text: str, pieces: list[tuple[int, int, str]]) -> str:
    result = []
    position = 0
    for start, end, replacement in sorted(pieces):
        result += [text[position:start], replacement]
        position = end
    return "".join([*result, text[position:]])


class _Tokens:
    """Finds the start of a scalar's token. The node's span includes anchor and tag."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._starts: dict[int, int] | None = None

    def start(self, scalar: Scalar) -> int:
        if self._document.text[scalar.start : scalar.start + 1] not in ("&", "!"):
            return scalar.start
        if self._starts is None:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            self._starts = {
                token.end_mark.index: token.start_mark.index
                for token in yaml.scan(self._document.text, Loader=loader)
                if isinstance(token, yaml.ScalarToken)
            }
        return self._starts.get(scalar.end, scalar.end)


def _scalar(document: Document, scalar: Scalar, edit: Edit, tokens: _Tokens) -> tuple[int, int, str]:
    start = tokens.start(scalar)
    properties = document.text[scalar.start : start]
    raw = document.text[start : scalar.end]
    tail = re.search(r"[\r\n]*\Z", raw).group() if scalar.style in ("|", ">") else ""  # type: ignore[union-attr]
    try:
        if isinstance(edit, Whole):
            anchor = [word for word in properties.split() if word.startswith("&")]
            return scalar.start, scalar.end, " ".join([*anchor, yaml_literal(edit.value, flow=scalar.flow)]) + tail
        new = _restyled(scalar, raw, edit.text)
        if new is None:
            new = yaml_double_quoted(edit.text) + tail
    except UnwritableError as error:
        raise document.error(
            f"to write the value of {scalar.value.strip()}", str(error), "Choose another field", scalar.line
        ) from None
    if scalar.style == "" and tag_of(scalar) != _STR and properties:
        properties = ""
    return scalar.start, scalar.end, properties + new


_STR = "tag:yaml.org,2002:str"


def _is_printable(text: str) -> bool:
    # Most texts are ASCII, and compiling the expression takes 2 ms.
    return text.isprintable() if text.isascii() else _PRINTABLE.match(text) is not None


def _restyled(scalar: Scalar, raw: str, text: str) -> str | None:
    """`text` in the style of the scalar; None if that style cannot hold it on the same number of lines."""
    if scalar.style in ("'", '"'):
        if raw[1:-1] != scalar.value or not _is_printable(text) or scalar.style in text or "\\" in text:
            return None
        return scalar.style + text + scalar.style
    if scalar.style == "|":
        return _literal_block(scalar.value, raw, text)
    if scalar.style == "" and raw == scalar.value and _stays_plain(text, flow=scalar.flow):
        return text
    return None


def _stays_plain(text: str, *, flow: bool) -> bool:
    if not _is_printable(text) or not _PLAIN_START.match(text):
        return False
    if ": " in text or " #" in text or text[-1] in ": " or (flow and re.search(r"[\[\]{},:]", text)):
        return False
    probe = scalar_outside(text, "", style="")
    # A number, a date or a word for true must keep its quotes.
    return "${" in text or yaml_literal(text) == text or (" " in text and tag_of(probe, yaml_1_1=True) == _STR)


def _literal_block(value: str, raw: str, text: str) -> str | None:
    """A `|` block with the changed lines rewritten; None where the number of lines changes."""
    old, new = value.split("\n"), text.split("\n")
    if len(old) != len(new) or not all(_is_printable(line) for line in new):
        return None
    header, *body = raw.split("\n")
    indent = next((len(line) - len(line.lstrip(" ")) for line in body if line.strip()), 0)
    if re.search(r"[1-9]", header.split("#")[0]) or any(line.startswith((" ", "\t")) for line in new[:1]):
        return None
    for number, (before, after) in enumerate(zip(old, new, strict=True)):
        if before == after:
            continue
        if number >= len(body) or body[number].rstrip("\r")[indent:] != before or not after.strip():
            return None
        ending = "\r" if body[number].endswith("\r") else ""
        body[number] = " " * indent + after + ending
    return "\n".join([header, *body])


# --- Keys that are added or go --------------------------------------------------------------------------------------


def _pairs(added: dict[str, Any]) -> str:
    return yaml_literal(added)[1:-1]


def _addition(document: Document, mapping: Mapping, added: dict[str, Any]) -> tuple[int, int, str]:
    text = document.text
    if mapping.flow:
        brace = text.index("{", mapping.start)
        return brace + 1, brace + 1, _pairs(added) + (", " if mapping.pairs else "")
    at = document.start_of_pair(mapping.pairs[0][0])
    lines = [
        f"{yaml_literal(key)}: {yaml_literal(value)}{document.newline}{' ' * document.column_of(at)}"
        for key, value in added.items()
    ]
    return at, at, "".join(lines)


def _root_addition(document: Document, added: dict[str, Any]) -> tuple[int, int, str]:
    lines = "".join(f"{yaml_literal(key)}: {yaml_literal(value)}{document.newline}" for key, value in added.items())
    if document.root is None:
        text = document.text
        gap = "" if not text or text.endswith("\n") else document.newline
        return len(text), len(text), gap + lines
    assert isinstance(document.root, Mapping)
    return _addition(document, document.root, added)


def _replacement(document: Document, key: Scalar, node: Node, value: Any) -> tuple[int, int, str]:
    literal = yaml_literal(value)
    if document.is_alone(key):
        line = "" if key.flow else document.newline + " " * document.column_of(document.start_of_pair(key))
        return key.end, key.end, f"{line}: {literal}"
    start, end = document.alias_spans.get(id(key)) or (node.start, document.end_of(node))
    # The colon may have no blank after it. A list may stand in the same column as its key.
    if document.text[start - 1] == ":" or document.column_of(start) == document.column_of(key.start):
        literal = " " + literal
    if document.text[start:end].endswith("\n"):
        literal += document.newline
    return start, end, literal


def _removal(document: Document, mapping: Mapping, key: Scalar) -> tuple[int, int, str]:
    text = document.text
    index = next(number for number, (other, _) in enumerate(mapping.pairs) if other is key)
    first, end = document.start_of_pair(key), document.end_of_pair(*mapping.pairs[index])
    # A block scalar includes the end of its line.
    newline = document.newline if text[end - 1] == "\n" and not mapping.flow else ""
    if mapping.pairs[-1][0] is not key:
        return first, document.start_of_pair(mapping.pairs[index + 1][0]), ""
    if not index:
        return first, end, "" if mapping.flow else "{}" + newline
    start = document.end_of_pair(*mapping.pairs[index - 1])
    if text[start - 1] == "\n" and not newline:
        end += len(document.newline) if text.startswith(document.newline, end) else 0
    return start, end, "" if text[start - 1] == "\n" else newline


# --- Reading it again -----------------------------------------------------------------------------------------------


def _verify(document: Document, changes: Changes, text: str) -> None:
    """Compare the nodes of the new text with the old nodes and the changes."""
    try:
        result = parse_text(text, document.path)
    except LaunchError as error:
        raise _mismatch(document, f"the result does not parse ({error})", None) from None
    twins: dict[int, int] = {}
    pending: list[tuple[Any, Any]] = [(_expected_root(document, changes), result.root)]
    while pending:
        old, new = pending.pop()
        if isinstance(old, _Literal):
            if not old.matches(new):
                raise _mismatch(document, f"a value reads back differently than {old.value!r}", new)
            continue
        whole = isinstance(old, Scalar) and id(old) in changes.scalars
        if twins.setdefault(id(old), id(new)) != id(new) or (not whole and type(old) is not type(new)):
            raise _mismatch(document, "the structure changed", old)
        if isinstance(old, Scalar):
            # A scalar that is replaced as a whole may become a collection.
            if not _reads_alike(old, new, changes.scalars.get(id(old))):
                raise _mismatch(document, "a value reads back differently", old)
        elif isinstance(old, Sequence):
            if len(old.items) != len(new.items):
                raise _mismatch(document, "a list changed its length", old)
            pending.extend(zip(old.items, new.items, strict=True))
        elif isinstance(old, Mapping):
            pairs = _expected_pairs(old, changes)
            if len(pairs) != len(new.pairs):
                raise _mismatch(document, "a mapping changed its length", old)
            for (old_key, old_value), (new_key, new_value) in zip(pairs, new.pairs, strict=True):
                pending += [(old_key, new_key), (old_value, new_value)]


class _Literal:
    """A value without a node in the old text; both YAML dialects must read it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def matches(self, node: Any) -> bool:
        return _equals(node, self.value)


class _Wrapped(_Literal):
    def __init__(self, target: Node, added: dict[str, Any]) -> None:
        super().__init__(added)
        self.target = target

    def matches(self, node: Any) -> bool:
        if not isinstance(node, Mapping) or not node.pairs:
            return False
        (merge, _), *own = node.pairs
        return isinstance(merge, Scalar) and merge.value == "<<" and _equal_pairs(own, self.value)


def _expected_root(document: Document, changes: Changes) -> Any:
    if document.root is None:
        return _Literal(changes.root) if changes.root else None
    if changes.root:
        assert isinstance(document.root, Mapping)
        changes.added[id(document.root)] = (document.root, changes.root)
    return document.root


def _expected_pairs(mapping: Mapping, changes: Changes) -> list[tuple[Any, Any]]:
    pairs: list[tuple[Any, Any]] = []
    if id(mapping) in changes.added:
        pairs += [(_Literal(key), _Literal(value)) for key, value in changes.added[id(mapping)][1].items()]
    for key, value in mapping.pairs:
        if id(key) in changes.removed:
            continue
        if id(key) in changes.replaced:
            pairs.append((key, _Literal(changes.replaced[id(key)][2])))
        elif id(key) in changes.wrapped:
            pairs.append((key, _Wrapped(value, changes.wrapped[id(key)][1])))
        else:
            pairs.append((key, value))
    return pairs


def _reads_alike(old: Scalar, new: Any, change: tuple[Scalar, Edit] | None) -> bool:
    if change is None:
        return old.value == new.value and old.tag == new.tag and bool(old.style) == bool(new.style)
    edit = change[1]
    if isinstance(edit, Retext):
        return isinstance(new, Scalar) and new.value == edit.text and tag_of(new) == tag_of(new, yaml_1_1=True) == _STR
    return _equals(new, edit.value)


def _equals(node: Any, value: Any) -> bool:
    """Whether both dialects read `node` as `value`."""
    if isinstance(value, (list, tuple)):
        return isinstance(node, Sequence) and len(node.items) == len(value) and all(map(_equals, node.items, value))
    if isinstance(value, dict):
        return isinstance(node, Mapping) and _equal_pairs(node.pairs, value)
    if not isinstance(node, Scalar):
        return False
    if isinstance(value, str):
        kept = "${" not in value or isinstance(value, Expression)
        return node.value == (value if kept else escape(value)) and _is_string(node)
    return _constructs(node, value)


def _equal_pairs(pairs: list[tuple[Node, Node]], value: dict[Any, Any]) -> bool:
    return len(pairs) == len(value) and all(
        _equals_key(key, name) and _equals(item, inner)
        for (key, item), (name, inner) in zip(pairs, value.items(), strict=True)
    )


def _equals_key(node: Any, value: Any) -> bool:
    if not isinstance(value, str):
        return _equals(node, value)
    return isinstance(node, Scalar) and node.value == value and _is_string(node)


def _is_string(node: Scalar) -> bool:
    return tag_of(node) == tag_of(node, yaml_1_1=True) == _STR


def _constructs(node: Scalar, value: Any) -> bool:
    if tag_of(node) != tag_of(node, yaml_1_1=True):
        return False
    try:
        found = node.construct()
    except ValueError:
        return False
    return type(found) is type(value) and (found == value or (found != found and value != value))


def _mismatch(document: Document, found: str, node: Node | None) -> LaunchError:
    return document.error(
        "to write the resolved config so that it reads as the original does",
        found,
        "Please report this with the config; writing the value out by hand avoids it",
        0 if node is None else node.line,
    )
