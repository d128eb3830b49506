"""One YAML file: its text, and a tree of nodes that know their positions in the text.

The tree is built without recursion from the events of PyYAML's C parser. The C composer overflows the stack at a few
ten thousand levels, and OmegaConf's loader is slow because it is pure Python. Tags are resolved only for values that
are asked for, and as OmegaConf resolves them.
"""

from __future__ import annotations

import re

from nemotron_exec.document.pyyaml import yaml
from nemotron_exec.errors import LaunchError
from nemotron_exec.interpolation.parse import parse
from nemotron_exec.interpolation.tree import Text
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Document", "Mapping", "Node", "Scalar", "Sequence", "Tree", "scalar_outside", "tag_of", "tree_of"]

_STR = "tag:yaml.org,2002:str"

_MERGE = "tag:yaml.org,2002:merge"

_AFTER_KEY = pattern(r"(?:\s|#[^\n]*\n)*:")


class Scalar:
    """A scalar of the text.

    Attributes:
        value: Its content, unquoted.
        tag: The explicit tag, or None.
        style: `'`, `"`, `|`, `>` or "" for a plain one.
        start: Index of its first character, anchor and tag included.
        end: Index after its last character.
        line: Line number, from 1.
        document: The file that it stands in.
        flow: Whether it stands inside `[…]` or `{…}`.
    """

    __slots__ = ("_expression", "document", "end", "flow", "line", "start", "style", "tag", "value")

    def __init__(
        self, value: str, tag: str | None, style: str, start: int, end: int, line: int, document: Document
    ) -> None:
        self.value = value
        self.tag = tag
        self.style = style
        self.start = start
        self.end = end
        self.line = line
        self.document = document
        self.flow = False
        self._expression: Text | None = None

    @property
    def is_expression(self) -> bool:
        """Whether OmegaConf would interpolate it."""
        return "${" in self.value and self.tag in (None, "!", _STR)

    @property
    def expression(self) -> Text:
        """The value, parsed.

        Raises:
            GrammarError: The value does not follow OmegaConf's grammar.
        """
        if self._expression is None:
            self._expression = parse(self.value)
        return self._expression

    @property
    def origin(self) -> Origin:
        """File and line, for messages."""
        return Origin(self.document.path, self.line)

    def construct(self) -> Any:
        """The value as OmegaConf's loader reads it.

        Raises:
            ValueError: The tag does not fit the value, or no safe loader knows it.
        """
        tag = tag_of(self)
        if tag == _STR:
            return self.value
        if tag == "tag:yaml.org,2002:null":
            return None
        try:
            return _CONSTRUCTOR.construct_object(yaml.ScalarNode(tag, self.value))
        except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:  # `!!timestamp x` is no date
            raise ValueError(" ".join(str(error).split())) from None


class Mapping:
    """A mapping of the text: `pairs` in the order of the text, merge keys not yet applied."""

    __slots__ = ("anchored", "end", "flow", "line", "pairs", "start")

    def __init__(self, start: int, line: int, *, flow: bool, anchored: bool) -> None:
        self.pairs: list[tuple[Node, Node]] = []
        self.start = start
        self.end = start
        self.line = line
        self.flow = flow
        self.anchored = anchored


class Sequence:
    """A sequence of the text."""

    __slots__ = ("end", "flow", "items", "line", "start")

    def __init__(self, start: int, line: int, *, flow: bool) -> None:
        self.items: list[Node] = []
        self.start = start
        self.end = start
        self.line = line
        self.flow = flow


Node = Scalar | Mapping | Sequence

Tree = dict["Any", "Any"] | list["Any"] | Scalar
"""Plain dictionaries and lists with a `Scalar` at every leaf. Merge keys and aliases are applied."""


class Document:
    """One YAML file.

    Attributes:
        path: Absolute path.
        text: Content without byte order mark.
        mark: The byte order mark, or "".
        root: None for an empty file.
        aliased: Ids of the nodes that an alias repeats.
        alias_spans: By the id of a key or a list, the span of the alias that is its value or its last item.
    """

    def __init__(self, path: str, text: str, *, mark: str = "") -> None:
        self.path = path
        self.text = text
        self.mark = mark
        self.root: Node | None = None
        self.aliased: set[int] = set()
        self.alias_spans: dict[int, tuple[int, int]] = {}
        self._tree: Tree | None = None

    @property
    def newline(self) -> str:
        """The line break of the file."""
        return "\r\n" if "\r\n" in self.text else "\n"

    def tree(self) -> Tree:
        """The content as a tree. An empty file is an empty mapping, as for OmegaConf."""
        if self._tree is None:
            self._tree = tree_of(self.root, self) if self.root is not None else {}
        return self._tree

    def start_of_pair(self, key: Node) -> int:
        """The start of a pair: of the key, or of the `?` in front of it."""
        before = self.text[: key.start].rstrip(" \t")
        # A `?` without a blank after it is the end of a text (`b?`), not the sign of a key.
        return len(before) - 1 if before.endswith("?") and len(before) < key.start else key.start

    def column_of(self, at: int) -> int:
        """The column of an index: its distance from the beginning of the line."""
        return at - self.text.rfind("\n", 0, at) - 1

    def is_alone(self, key: Node) -> bool:
        """Whether no colon follows a key: `{data}`, `? data`."""
        return id(key) not in self.aliased and _AFTER_KEY.match(self.text, key.end) is None

    def end_of_pair(self, key: Node, value: Node) -> int:
        """The index after the last character of a pair."""
        if self.is_alone(key):
            return key.end
        span = self.alias_spans.get(id(key))
        return span[1] if span else self.end_of(value)

    def end_of(self, node: Node) -> int:
        """The index after the last character of a node. The parser ends a block collection only at the next token."""
        if isinstance(node, Scalar) or node.flow:
            return node.end
        if isinstance(node, Mapping):
            return self.end_of_pair(*node.pairs[-1])
        span = self.alias_spans.get(id(node))
        return span[1] if span else self.end_of(node.items[-1])

    def error(self, wanted: str, found: str, remedy: str, line: int = 0) -> LaunchError:
        """An error that names this file and a line of it."""
        return LaunchError(f"{wanted} ({Origin(self.path, line)})", found, remedy)


# Unlike YAML 1.1, OmegaConf reads `1e-4` as a float (omegaconf/_utils.py and _yaml.py), and it knows no dates.
_OMEGACONF_FLOAT = pattern(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class _OmegaConfResolver(yaml.resolver.Resolver):
    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's own attribute
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_OmegaConfResolver.add_implicit_resolver("tag:yaml.org,2002:float", _OMEGACONF_FLOAT, list("-+0123456789."))

_OMEGACONF = _OmegaConfResolver()

_YAML_1_1 = yaml.resolver.Resolver()

_CONSTRUCTOR = yaml.constructor.SafeConstructor()


def scalar_outside(text: str, source: str, style: str = '"') -> Scalar:
    """A scalar that no file has: of an override, of an option. Messages call it by its source."""
    return Scalar(text, None, style, 0, 0, 0, Document(source, text))


def tag_of(scalar: Scalar, *, yaml_1_1: bool = False) -> str:
    """The tag: explicit, or as OmegaConf's loader (or plain PyYAML) resolves it."""
    if scalar.tag == "!":
        return _STR
    if scalar.tag is not None:
        return scalar.tag
    if scalar.style:
        return _STR
    resolver = _YAML_1_1 if yaml_1_1 else _OMEGACONF
    return str(resolver.resolve(yaml.ScalarNode, scalar.value, (True, False)))  # type: ignore[no-untyped-call]


def tree_of(root: Node, document: Document) -> Tree:
    """The tree under `root`. A node that aliases repeat is built once and shared."""
    built: dict[int, Any] = {}

    def build(node: Node) -> Any:
        if isinstance(node, Scalar):
            return node
        known = built.get(id(node))
        if known is None:
            if isinstance(node, Sequence):
                known = [build(item) for item in node.items]
            else:
                known = {}
                for key, value in _flatten(node, document):
                    known[_key(key, document)] = build(value)
            built[id(node)] = known
        return known

    return build(root)  # type: ignore[no-any-return]


def _flatten(mapping: Mapping, document: Document) -> list[tuple[Node, Node]]:
    """The pairs with `<<` applied: merged pairs come first, so that the mapping's own keys win (PyYAML)."""
    if not any(_is_merge(key) for key, _ in mapping.pairs):
        return mapping.pairs
    merged: list[tuple[Node, Node]] = []
    own: list[tuple[Node, Node]] = []
    for key, value in mapping.pairs:
        if not _is_merge(key):
            own.append((key, value))
            continue
        sources = value.items if isinstance(value, Sequence) else [value]
        for source in reversed(sources):
            if not isinstance(source, Mapping):
                raise document.error(
                    "to merge a mapping with <<",
                    "its value is not one",
                    "Point << at mappings",
                    key.line,
                )
            merged.extend(_flatten(source, document))
    return merged + own


def _is_merge(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value == "<<" and not node.style and node.tag in (None, _MERGE)


def _key(node: Node, document: Document) -> Any:
    if not isinstance(node, Scalar):
        raise document.error("to read a mapping", "one of its keys is a collection", "Use scalars as keys", node.line)
    try:
        return node.construct()
    except ValueError as error:
        raise document.error("to read a mapping key", str(error), "Correct the YAML", node.line) from None
