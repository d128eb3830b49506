"""One YAML file: its text, and a tree of nodes that knows where each of them stands in the text.

The tree is built from the events of PyYAML's C parser, without recursion: the C composer overflows the stack at a few
ten thousand levels, and OmegaConf's loader is the pure-Python one. Tags are resolved only for the values that something
asks for, as OmegaConf resolves them.
"""

from __future__ import annotations

import os
import re

import yaml

from nemotron_exec.errors import LaunchError
from nemotron_exec.interpolation import Text, parse
from nemotron_exec.reference import Origin

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MAX_BYTES",
    "Document",
    "Mapping",
    "Node",
    "Scalar",
    "Sequence",
    "Tree",
    "load",
    "parse_text",
    "tag_of",
    "tree_of",
]

MAX_BYTES = 10 * 1024 * 1024
"""A config is a few hundred lines; a file of this size is data that was named by mistake."""

MAX_DEPTH = 200
_MAX_EXPANDED = 1_000_000
_MAX_RATIO = 100  # as OmegaConf 2.4 (omegaconf/_yaml.py)
_MIN_RATIO_NODES = 10_000

_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


class Scalar:
    """A scalar of the text.

    Attributes:
        value: Its content, unquoted.
        tag: The explicit tag, or None.
        style: `'`, `"`, `|`, `>` or "" for a plain one.
        start: Where it begins, anchor and tag included.
        end: One past its last character.
        line: Counts from 1.
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
            GrammarError: It is not of OmegaConf's grammar.
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
        except (yaml.YAMLError, ValueError, KeyError) as error:
            raise ValueError(str(error).splitlines()[0]) from None


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
"""Plain dictionaries and lists with a `Scalar` at every leaf: merge keys and aliases applied."""


class Document:
    """One YAML file.

    Attributes:
        path: Absolute.
        text: Without byte order mark.
        mark: The byte order mark, or "".
        root: None for an empty file.
        aliased: Ids of the nodes that an alias repeats.
        alias_spans: Where an alias stands that is the value of a key, by the id of that key.
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
        """The line break that the file uses."""
        return "\r\n" if "\r\n" in self.text else "\n"

    def tree(self) -> Tree:
        """The content. An empty file is an empty mapping, as OmegaConf reads it."""
        if self._tree is None:
            self._tree = tree_of(self.root, self) if self.root is not None else {}
        return self._tree

    def error(self, wanted: str, found: str, remedy: str, line: int = 0) -> LaunchError:
        """An error that names this file and a line of it."""
        return LaunchError(f"{wanted} ({Origin(self.path, line)})", found, remedy)


def load(path: str) -> Document:
    """Read the file at `path`.

    Raises:
        LaunchError: It cannot be read, is no UTF-8, no YAML, not one document, or explodes.
    """
    path = os.path.abspath(path)
    wanted = f"to read the config {path}"
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise LaunchError(wanted, error.strerror or str(error), "Check the path and its permissions") from None
    if len(content) > MAX_BYTES:
        raise LaunchError(
            wanted,
            f"it is larger than {MAX_BYTES // 1024 // 1024} MiB",
            "A config is a few hundred lines: name it with --config, and keep data in files of its own",
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LaunchError(
            f"{wanted} (line {line})", f"it is not UTF-8: {error.reason}", "Save it as UTF-8, as YAML wants it"
        ) from None
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    return parse_text(text[len(mark) :], path, mark=mark)


def parse_text(text: str, path: str, *, mark: str = "") -> Document:
    """`text` as the content of the file at `path`.

    Raises:
        LaunchError: As `load`.
    """
    document = Document(path, text, mark=mark)
    try:
        _compose(document)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        line = place.line + 1 if place else 0
        raise document.error("to parse the YAML", problem, "Correct the YAML", line) from None
    except yaml.YAMLError as error:  # ReaderError: a character that YAML does not allow
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
        problem = str(error).splitlines()[0]
        raise document.error("to parse the YAML", problem, "Correct the YAML", line) from None
    return document


def _compose(document: Document) -> None:
    """Fill `document.root` from the events of the parser."""
    loader = _Parser(document.text)
    try:
        next_event = loader.get_event
        anchors: dict[str, Node] = {}
        # One entry a level: the collection, the key that waits for its value (or None), and the names still open.
        stack: list[tuple[Mapping | Sequence, list[Node]]] = []
        open_nodes: set[int] = set()
        documents = 0
        while True:
            event = next_event()
            kind = type(event)
            node: Node
            if kind is yaml.ScalarEvent:
                start = event.start_mark
                # The implicit pair says whether the plain or the quoted form leads to the tag without naming it.
                node = Scalar(
                    event.value,
                    event.tag,
                    event.style or "",
                    start.index,
                    event.end_mark.index,
                    start.line + 1,
                    document,
                )
                if event.style is None and not event.implicit[0] and event.tag is None:
                    node.tag = "!"
            elif kind is yaml.AliasEvent:
                target = anchors.get(event.anchor)
                line = event.start_mark.line + 1
                if target is None:
                    raise document.error(
                        "to parse the YAML", f"the alias *{event.anchor} has no anchor", "Correct the YAML", line
                    )
                if id(target) in open_nodes:
                    raise document.error(
                        "to parse the YAML",
                        f"the alias *{event.anchor} stands inside its own anchor",
                        "Write the value out: a config cannot contain itself",
                        line,
                    )
                document.aliased.add(id(target))
                node = target
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                mark = event.start_mark
                flow = bool(event.flow_style)
                if kind is yaml.MappingStartEvent:
                    node = Mapping(mark.index, mark.line + 1, flow=flow, anchored=event.anchor is not None)
                else:
                    node = Sequence(mark.index, mark.line + 1, flow=flow)
                if event.anchor is not None:
                    anchors[event.anchor] = node
                open_nodes.add(id(node))
                stack.append((node, []))
                if len(stack) > MAX_DEPTH:
                    raise document.error(
                        "to parse the YAML", f"it is nested more than {MAX_DEPTH} levels deep", "Flatten it", node.line
                    )
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                node, _ = stack.pop()
                node.end = event.end_mark.index
                open_nodes.discard(id(node))
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise document.error(
                        "to read one YAML document",
                        "a second one begins here",
                        "Keep one document in a config",
                        event.start_mark.line + 1,
                    )
                continue
            elif kind is yaml.StreamEndEvent:
                return
            else:
                continue
            if kind is yaml.ScalarEvent and event.anchor is not None:
                anchors[event.anchor] = node
            if not stack:
                document.root = node
                _refuse_explosion(document)
                continue
            parent, waiting = stack[-1]
            if kind is yaml.ScalarEvent:
                node.flow = parent.flow
            if isinstance(parent, Sequence):
                parent.items.append(node)
            elif waiting:
                key = waiting.pop()
                parent.pairs.append((key, node))
                if kind is yaml.AliasEvent:
                    document.alias_spans[id(key)] = (event.start_mark.index, event.end_mark.index)
            else:
                waiting.append(node)
    finally:
        loader.dispose()


class _Parser(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The C parser where PyYAML was built with it."""


def _refuse_explosion(document: Document) -> None:
    """Aliases of aliases multiply: count what they would expand to before anything is expanded."""
    if not document.aliased:
        return
    sizes: dict[int, int] = {}

    def size(node: Node) -> int:
        known = sizes.get(id(node))
        if known is None:
            known = 1
            if isinstance(node, Mapping):
                known += sum(size(key) + size(value) for key, value in node.pairs)
            elif isinstance(node, Sequence):
                known += sum(map(size, node.items))
            sizes[id(node)] = known
        return known

    assert document.root is not None
    expanded = size(document.root)
    if expanded > _MAX_EXPANDED or (expanded > _MIN_RATIO_NODES and expanded > _MAX_RATIO * len(sizes)):
        raise document.error(
            "to expand the YAML aliases",
            f"{len(sizes)} nodes would become {expanded}",
            "Use fewer nested aliases",
            document.root.line,
        )


# --- Tags and values ----------------------------------------------------------------------------------------------

# OmegaConf's float differs from YAML 1.1's in taking `1e-4` (omegaconf/_utils.py and _yaml.py), and it knows no dates.
_OMEGACONF_FLOAT = re.compile(
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


def tag_of(scalar: Scalar, *, yaml_1_1: bool = False) -> str:
    """The tag, explicit or as OmegaConf's loader (or plain PyYAML) resolves it."""
    if scalar.tag == "!":
        return _STR
    if scalar.tag is not None:
        return scalar.tag
    if scalar.style:
        return _STR
    resolver = _YAML_1_1 if yaml_1_1 else _OMEGACONF
    return str(resolver.resolve(yaml.ScalarNode, scalar.value, (True, False)))  # type: ignore[no-untyped-call]


def tree_of(root: Node, document: Document) -> Tree:
    """The tree under `root`; a node with several aliases is built once and shared."""
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
    """The pairs with `<<` applied: what is merged comes first, so that the mapping's own keys win (PyYAML)."""
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
