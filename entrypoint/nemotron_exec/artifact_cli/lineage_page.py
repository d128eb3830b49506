"""The lineage as one HTML page that needs only a browser: no network, no server, no other file.

This module computes the column and the order of each box, in time that grows with the number of edges. The page draws,
searches and shows details.

The store's texts are data on the page: they lie in a JSON block and reach the document as text. The page's policy
allows only the page's own script, by its hash.

Two libraries were tried instead in a browser, dagre and ELK (elkjs 0.12, its layered algorithm), with 3, 50 and 1,000
versions. At 50 both put the versions of one name into several columns, and dagre's edges cross boxes. At 1,000 dagre
takes 5 s for a strip of 49,000 pixels, and ELK 9 s for one of 30,000. ELK would add 1.6 MB to each page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from collections import deque
from typing import TYPE_CHECKING

from nemotron_exec.artifact_cli.lineage_graph import folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifact_cli.lineage_graph import Graph

__all__ = ["layers", "to_html"]


def to_html(graph: Graph, title: str, changed: Mapping[str, Any] | None = None, wandb: str = "") -> str:
    """The page.

    Args:
        graph: The graph to draw.
        title: Shown above and in the browser's tab.
        changed: The result of `differences.changed_since` for its versions.
        wandb: Address of the W&B server's pages, for links to runs; "" for none.
    """
    since = changed or {}
    data = {
        "wandb": wandb,
        "folds": folds(graph),
        "nodes": [
            {**graph.nodes[key].to_json(), "layer": index, "changed": since.get(key)}
            for index, layer in enumerate(layers(graph))
            for key in layer
        ],
        "edges": [[parent, key] for key, parents in graph.parents.items() for parent in parents],
    }
    # Inside a script element only `</` and `<!--` could end or change the element, so `<` is escaped.
    block = (
        json.dumps(data, default=str).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )
    files = importlib.resources.files("nemotron_exec.artifact_cli") / "page"
    script = files.joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = files.joinpath("page.html").read_text(encoding="utf-8")
    for mark, text in (
        ("@TITLE@", html.escape(title).replace("@", "&#64;")),
        ("@HASH@", digest),
        ("@STYLE@", files.joinpath("page.css").read_text(encoding="utf-8")),
        ("@SCRIPT@", script),
    ):
        page = page.replace(mark, text)
    before, _, after = page.partition("@DATA@")
    return before + block + after


def layers(graph: Graph) -> list[list[str]]:
    """The columns from left to right: a box stands right of its parents, and few edges cross."""
    ordered = _layers(graph)
    children = graph.children()
    row: dict[str, float] = {}
    for layer in ordered:
        row.update((key, index) for index, key in enumerate(layer))
    forward: tuple[list[list[str]], Mapping[str, Sequence[str]]] = (ordered, graph.parents)
    backward: tuple[list[list[str]], Mapping[str, Sequence[str]]] = (ordered[::-1], children)
    for sweep, neighbours in (forward, backward, forward):
        for layer in sweep:
            # Sort by the mean row of the neighbours. The sort is stable, so versions of one name keep their order.
            mean = {key: _mean(row, neighbours.get(key, ()), row[key]) for key in layer}
            layer.sort(key=mean.__getitem__)
            row.update((key, index) for index, key in enumerate(layer))
    return ordered


def _mean(row: Mapping[str, float], neighbours: Sequence[str], own: float) -> float:
    return sum(row[key] for key in neighbours) / len(neighbours) if neighbours else own


def _layers(graph: Graph) -> list[list[str]]:
    """The columns by longest path from a source. Edges of a cycle do not count: only a hand could have written one."""
    children = graph.children()
    left = {key: len(graph.parents.get(key, ())) for key in graph.nodes}
    depth = dict.fromkeys(graph.nodes, 0)
    queue = deque(key for key, count in left.items() if count == 0)
    while queue:
        key = queue.popleft()
        for child in children[key]:
            depth[child] = max(depth[child], depth[key] + 1)
            left[child] -= 1
            if left[child] == 0:
                queue.append(child)
    for key in graph.nodes:
        # Move an input without parents next to its first child, instead of the far left.
        if not graph.parents.get(key) and children[key]:
            depth[key] = max(0, min(depth[child] for child in children[key]) - 1)
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for key in graph.nodes:
        found[depth[key]].append(key)
    return [layer for layer in found if layer]
