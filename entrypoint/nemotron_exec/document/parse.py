"""Parses YAML text to a `Document`, bounded in size, depth and expansion."""

from __future__ import annotations

from nemotron_exec.document.document import Document, Mapping, Node, Scalar, Sequence
from nemotron_exec.document.pyyaml import yaml
from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    pass

__all__ = ["MAX_BYTES", "load", "parse_text"]

MAX_BYTES = 10 * 1024 * 1024
"""A config has a few hundred lines. A larger file than this is data, named by mistake."""

MAX_DEPTH = 200

_MAX_EXPANDED = 1_000_000

_MAX_RATIO = 100  # OmegaConf 2.4 has the same limit (omegaconf/_yaml.py)

_MIN_RATIO_NODES = 10_000


def load(path: str) -> Document:
    """Read the file at `path`.

    Raises:
        LaunchError: The file cannot be read, is no UTF-8, no YAML or several documents, or its aliases expand too far.
    """
    path = absolute(path)
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
    """Parse `text` as the content of the file at `path`.

    Raises:
        LaunchError: The text is no YAML, or beyond the bounds of `load`.
    """
    document = Document(path, text, mark=mark)
    try:
        _compose(document)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark
        assert place is not None  # the C parser says where
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise _explained(document, problem, place.line + 1) from None
    except yaml.reader.ReaderError as error:  # a character that YAML does not allow
        line = text.count("\n", 0, error.position) + 1
        problem = str(error).splitlines()[0]
        raise document.error("to parse the YAML", problem, "Correct the YAML", line) from None
    return document


def _explained(document: Document, problem: str, line: int) -> LaunchError:
    """The error in the user's words for the most frequent mistakes, else in the parser's."""
    written = "".join(document.text.split("\n")[line - 1 : line])
    if "\t" in written[: len(written) - len(written.lstrip())]:
        found, remedy = "the line is indented with a tab", "Indent it with spaces: YAML takes no tabs there"
    else:
        found, remedy = problem, "Correct the YAML"
    return document.error("to parse the YAML", found, remedy, line)


def _compose(document: Document) -> None:
    """Fill `document.root` from the events of the parser."""
    loader = _Parser(document.text)
    try:
        next_event = loader.get_event
        anchors: dict[str, Node] = {}
        # One entry a level: the collection, and the key that waits for its value ([] for none).
        stack: list[tuple[Mapping | Sequence, list[Node]]] = []
        open_nodes: set[int] = set()
        documents = 0
        while True:
            event = next_event()
            kind = type(event)
            node: Node
            if kind is yaml.ScalarEvent:
                start = event.start_mark
                # `implicit` tells whether the tag follows from the plain form or from the quoted form.
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
                document.alias_spans.pop(id(parent), None)
                if kind is yaml.AliasEvent:
                    document.alias_spans[id(parent)] = (event.start_mark.index, event.end_mark.index)
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
    """PyYAML's C parser, or the Python one where PyYAML was built without it."""


def _refuse_explosion(document: Document) -> None:
    """Refuse a file whose aliases would expand too far. Aliases of aliases multiply, so count before expanding."""
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
