"""`nemotron-artifact graph`: the lineage of artifacts as text, Mermaid, DOT, JSON or a page."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from nemotron_exec.artifact_cli.store import (
    REFERENCE,
    find_entry,
    messages_for,
    open_store_files,
    read_inventory,
    read_once,
    store_label,
    store_option,
)
from nemotron_exec.terminal import coloured, has_colour, is_terminal, width_of

if TYPE_CHECKING:
    from nemotron_exec.artifact_cli.lineage_graph import Graph

__all__ = ["graph"]


@click.command()
@click.argument("reference", metavar="[NAME[:REF]]", required=False, type=REFERENCE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot", "html", "json"]),
    help="Default: by the ending of -o (.mmd, .dot, .gv, .html, .json), else text.",
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there, not to stdout.")
@click.option("--all", "everything", is_flag=True, help="Every version on its own (html and json always have them).")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@store_option
def graph(
    reference: str | None, form: str | None, output: str | None, everything: bool, as_json: bool, store: str | None
) -> None:
    """Draw which version was made from which: for the whole store, or for one version."""
    from nemotron_exec.artifact_cli import lineage_graph

    files = read_once(open_store_files(store))
    endings = {".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot", ".gv": "dot", ".html": "html", ".htm": "html"}
    ending = os.path.splitext(output or "")[1].lower()
    form = "json" if as_json else form or {**endings, ".json": "json"}.get(ending, "text")
    inventory = read_inventory(files)
    drawn = lineage_graph.build_graph(inventory)
    root = ""
    if reference:
        root = find_entry(files, reference).qualified_name
        drawn = lineage_graph.lineage_of(drawn, root)
    if form not in ("html", "json") and not everything:
        drawn = lineage_graph.condense(drawn, root)
    if form == "html":
        from nemotron_exec.artifact_cli.differences import changed_since
        from nemotron_exec.artifact_cli.lineage_page import to_html

        names = {key.rpartition(":")[0] for key, node in drawn.nodes.items() if node.kind == "version"}
        changed = changed_since(entry for entry in inventory.entries if entry.name in names)
        text = to_html(drawn, f"Lineage of {root or store_label(files)}", changed, _wandb_pages())
    elif form == "text":
        text = _tree(drawn, root, terminal=output in (None, "-") and is_terminal(sys.stdout))
    else:
        text = {
            "mermaid": lineage_graph.to_mermaid,
            "dot": lineage_graph.to_dot,
            "json": lineage_graph.to_json,
        }[form](drawn)
    if form == "mermaid" and lineage_graph.beyond_mermaid(drawn, text):
        messages_for().warning(
            "this is more than a Mermaid viewer draws (500 edges, 50,000 characters) unless it is told to: "
            "name one version, or use --format html"
        )
    if output and output != "-":
        _write(output, text)
        messages_for().info(f"{len(drawn.nodes)} nodes are drawn in {output}")
    else:
        click.echo(text, nl=False)


def _tree(drawn: Graph, root: str, *, terminal: bool) -> str:
    """The lineage as a tree. On a terminal it fits the width, and the mark of missing data has a colour."""
    from nemotron_exec.artifact_cli import lineage_graph

    text = lineage_graph.to_text(drawn, root, width_of(sys.stdout) if terminal else 0)
    if terminal and has_colour(sys.stdout, os.environ):
        text = text.replace(lineage_graph.GONE, coloured(lineage_graph.GONE, "gone"))
    return text


def _wandb_pages() -> str:
    """The address of the web pages with the runs of the configured server."""
    from nemotron_exec.stores.wandb.settings import wandb_base_url

    server = wandb_base_url(os.environ).replace("://api.wandb.ai", "://wandb.ai")
    return server if server.startswith(("https://", "http://")) and "@" not in server else ""


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
