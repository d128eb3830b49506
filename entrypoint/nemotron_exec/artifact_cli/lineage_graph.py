"""The lineage of a store: which version was made from which, and by which run.

It is written as text, Mermaid, Graphviz DOT or JSON. lineage_page.py draws the HTML page.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nemotron_exec.artifact_cli.listing import plain
from nemotron_exec.artifact_cli.made_by import record_at
from nemotron_exec.schemas import GRAPH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nemotron_exec.artifact_cli.inventory import Entry, Inventory

__all__ = [
    "GONE",
    "Graph",
    "Node",
    "beyond_mermaid",
    "build_graph",
    "condense",
    "folds",
    "lineage_of",
    "to_dot",
    "to_json",
    "to_mermaid",
    "to_text",
]


GONE = "data is gone"
_LEAST = 20  # columns; where a tree leaves fewer for its texts, the terminal wraps the lines
_ITERATION = re.compile(r"(?:iter|step)_[0-9]+\Z")


@dataclass(frozen=True)
class Node:
    """A version, or an input from outside of the store.

    Attributes:
        id: `name:vN`, or the reference or URI as it was recorded.
        kind: "version" or "external".
        type: `model`, `dataset`, …
        label: Text of the box: the id, unless the node stands for several versions (`condense`).
        iteration: Training iteration.
        path: Where the data is.
        created_at: ISO 8601.
        aliases: The aliases that point to it now, without those that only repeat the iteration (`iter_0000020`,
            `step_20`).
        missing: Why its data cannot be used.
        wandb: `entity/project/name:vN` of the same version in W&B, where that is known.
        made_by: The run that made it: producer, job, command, commit and more, as far as known.
        metadata: The manifest's metadata.
        count: How many versions the node stands for.
    """

    id: str
    kind: str = "version"
    type: str = ""
    label: str = ""
    iteration: int | None = None
    path: str = ""
    created_at: str = ""
    aliases: tuple[str, ...] = ()
    missing: str | None = None
    wandb: str | None = None
    made_by: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1

    def to_json(self) -> dict[str, Any]:
        """The node as the page and `--format json` carry it."""
        return {
            "id": self.id,
            "label": self.label or self.id,
            "kind": self.kind,
            "type": self.type,
            "iteration": self.iteration,
            "path": self.path,
            "created_at": self.created_at,
            "aliases": list(self.aliases),
            "missing": self.missing,
            "wandb": self.wandb,
            "made_by": dict(self.made_by),
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True)
class Graph:
    """Nodes by id, and the parents of each id: the nodes that it was made from. Every parent is a node."""

    nodes: Mapping[str, Node]
    parents: Mapping[str, tuple[str, ...]]

    def children(self) -> dict[str, list[str]]:
        """The children of each id: the nodes that were made from it."""
        found: dict[str, list[str]] = {key: [] for key in self.nodes}
        for child, parents in self.parents.items():
            for parent in parents:
                found[parent].append(child)
        return found


def build_graph(inventory: Inventory) -> Graph:
    """The graph of all versions of a store and of their inputs from outside."""
    nodes = {entry.qualified_name: _node(entry) for entry in inventory.entries}
    parents: dict[str, tuple[str, ...]] = {}
    for entry in inventory.entries:
        found = []
        for used in (*entry.used_artifacts, *entry.inputs):
            key = _canonical(used)
            if key == entry.qualified_name or key in found:
                continue
            if key not in nodes:
                nodes[key] = Node(key, kind="external")
            found.append(key)
        parents[entry.qualified_name] = tuple(found)
    return Graph(nodes, parents)


def lineage_of(graph: Graph, key: str) -> Graph:
    """The part of the graph with one version, everything that it was made from, and everything made from it."""
    keep = _reachable([key], graph.parents) | _reachable([key], graph.children())
    return Graph(
        {other: node for other, node in graph.nodes.items() if other in keep},
        {
            other: tuple(parent for parent in parents if parent in keep)
            for other, parents in graph.parents.items()
            if other in keep
        },
    )


def folds(graph: Graph, keep: str = "") -> list[list[str]]:
    """Groups of three or more versions of one name that have the same parents and no children.

    Each group is ordered by version number. A version with an alias is in no group.
    """
    children = graph.children()
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key, node in graph.nodes.items():
        if node.kind == "version" and not children[key] and not node.aliases and key != keep:
            groups.setdefault((key.rpartition(":")[0], graph.parents.get(key, ())), []).append(key)
    return [sorted(ids, key=_number) for ids in groups.values() if len(ids) > 2]


def condense(graph: Graph, keep: str = "") -> Graph:
    """Replace each group of `folds` by its last version, which then stands for all of them.

    A training run with a thousand checkpoints becomes three boxes.
    """
    nodes = dict(graph.nodes)
    parents = dict(graph.parents)
    for ids in folds(graph, keep):
        name = ids[0].rpartition(":")[0]
        first, *middle, last = ids
        nodes[last] = replace(
            nodes[last],
            label=f"{name}:{first.rpartition(':')[2]} … {last.rpartition(':')[2]}",
            count=len(ids),
            iteration=None,
            path="",
        )
        for key in (first, *middle):
            del nodes[key]
            parents.pop(key, None)
    return Graph(nodes, parents)


def to_text(graph: Graph, root: str = "", width: int = 0) -> str:
    """A tree for a terminal: below each version stand the versions that it was made from.

    Args:
        graph: The graph to show.
        root: The version at the top; where it is empty, every version that nothing was made from.
        width: Columns at which lines are broken; 0 breaks none.
    """
    children = graph.children()
    tops = [root] if root else []
    tops += [key for key in graph.nodes if not children[key] and key != root]
    lines: list[str] = []
    shown: set[str] = set()
    # Versions in a cycle have no top, so they are added at the end. Only manifests edited by hand hold a cycle.
    for top in [*tops, *(key for key in graph.nodes if key not in tops)]:
        if top in shown:
            continue
        stack = [(top, "", "")]
        while stack:
            key, first, rest = stack.pop()
            parents = graph.parents.get(key, ())
            seen = key in shown
            shown.add(key)
            text = _line(graph.nodes[key]) + ("  (see above)" if seen and parents else "")
            lines += _broken(text, first, rest + ("│  " if parents and not seen else "   "), width)
            if seen:
                continue
            for index, parent in reversed(list(enumerate(parents))):
                last = index == len(parents) - 1
                stack.append((parent, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")))
    return "\n".join(lines) + "\n" if lines else ""


def _broken(text: str, first: str, rest: str, width: int) -> list[str]:
    """One line of the tree, broken to the width; its further lines are indented behind the connectors."""
    room = width - len(rest)
    if len(first) + len(text) <= width or room < _LEAST:
        return [first + text]
    import textwrap

    head, *more = textwrap.wrap(text, room, break_on_hyphens=False, replace_whitespace=False)
    return [first + head, *(rest + line for line in more)]


def beyond_mermaid(graph: Graph, text: str) -> bool:
    """Whether a Mermaid viewer refuses the chart, with its default `maxEdges` and `maxTextSize`."""
    return sum(map(len, graph.parents.values())) > 500 or len(text) > 50_000


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart, from left to right."""
    numbers = {key: f"n{index}" for index, key in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for key, node in graph.nodes.items():
        text = "<br/>".join(_mermaid_text(part) for part in _parts(node))
        left, right = ("([", "])") if node.kind == "external" else ("[", "]")
        lines.append(f'    {numbers[key]}{left}"{text}"{right}{":::missing" if node.missing else ""}')
    lines += [
        f"    {numbers[parent]} --> {numbers[key]}" for key, parents in graph.parents.items() for parent in parents
    ]
    if any(node.missing for node in graph.nodes.values()):
        lines.append("    classDef missing stroke:#c33,stroke-dasharray:4")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """A Graphviz digraph, from left to right."""
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    for key, node in graph.nodes.items():
        # In a DOT label `\n` is a line break; all other characters are escaped.
        text = "\\n".join(_dot_text(part) for part in _parts(node))
        looks = ""
        if node.kind == "external":
            looks = ", shape=ellipse, style=solid"
        elif node.missing:
            looks = ', style="rounded,dashed", color="#cc3333"'
        tip = _dot_text(node.path or key)
        lines.append(f'  "{_dot_text(key)}" [label="{text}", tooltip="{tip}"{looks}];')
    lines += [
        f'  "{_dot_text(parent)}" -> "{_dot_text(key)}";'
        for key, parents in graph.parents.items()
        for parent in parents
    ]
    return "\n".join([*lines, "}"]) + "\n"


def to_json(graph: Graph) -> str:
    """`{"schema": …, "nodes": […], "edges": [[from, to], …]}`."""
    edges = [[parent, key] for key, parents in graph.parents.items() for parent in parents]
    document = {"schema": GRAPH, "nodes": [node.to_json() for node in graph.nodes.values()], "edges": edges}
    return json.dumps(document, indent=1) + "\n"


def _node(entry: Entry) -> Node:
    metadata = entry.manifest.get("metadata") or {}
    return Node(
        entry.qualified_name,
        type=entry.type,
        iteration=entry.iteration,
        path=entry.path,
        created_at=entry.created_at,
        # Leave out the alias of each checkpoint that only repeats its iteration.
        aliases=tuple(alias for alias in entry.aliases if not _ITERATION.match(alias)),
        missing=entry.damaged or entry.missing,
        wandb=entry.wandb,
        made_by=_made_by(entry.manifest, metadata),
        metadata=metadata,
    )


def _made_by(manifest: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    record = manifest.get("run_record") or metadata.get("run_record")
    found = {"producer": manifest.get("producer"), "job": metadata.get("job"), "run record": record}
    found["W&B run"] = manifest.get("wandb_run")
    if found["job"] == found["producer"]:
        del found["job"]
    if isinstance(record, str) and os.path.isabs(record):
        found.update(_run_record(record))
    return {key: str(value) for key, value in found.items() if value}


def _run_record(path: str) -> dict[str, Any]:
    record = record_at(path)
    command = record.get("command")
    code = record.get("code")
    code = code if isinstance(code, dict) else {}
    return {
        "command": " ".join(map(str, command)) if isinstance(command, list) else command,
        "working directory": record.get("cwd"),
        "code": code.get("ref") or code.get("commit"),
        "uncommitted changes": "yes" if code.get("dirty") else None,
        "image": record.get("image"),
        "host": record.get("host"),
    }


def _canonical(reference: str) -> str:
    reference = reference.removeprefix("art://")
    name, _, version = reference.rpartition(":")
    return f"{name}:v{int(version)}" if name and version.isascii() and version.isdigit() else reference


def _number(key: str) -> int:
    return int(key.rpartition(":v")[2])


def _reachable(start: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    queue = deque(start)
    while queue:
        key = queue.popleft()
        if key not in seen:
            seen.add(key)
            queue.extend(edges.get(key, ()))
    return seen


def _parts(node: Node) -> list[str]:
    parts = [node.label or node.id]
    if node.aliases:
        parts.append(", ".join(node.aliases))
    if node.count > 1:
        parts.append(f"{node.count} versions")
    if node.iteration is not None:
        parts.append(f"iteration {node.iteration}")
    if node.created_at:
        parts.append(node.created_at[:16].replace("T", " "))
    if node.missing:
        parts.append(GONE)
    return parts


def _line(node: Node) -> str:
    label, *more = _parts(node)
    if node.type:
        more.insert(0, node.type)
    if node.path:
        more.append(node.path)
    return _plain(label + ("  " + " · ".join(more) if more else ""))


def _plain(text: str) -> str:
    return plain(text).replace("\n", "�")


def _mermaid_text(text: str) -> str:
    # Mermaid reads `#35;` as an entity. A backtick after the quote begins Markdown, so it is replaced, too.
    special = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}
    return "".join(special.get(character, character) for character in _plain(text))


def _dot_text(text: str) -> str:
    return _plain(text).replace("\\", "\\\\").replace('"', '\\"')
