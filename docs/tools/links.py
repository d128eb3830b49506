"""A hook of MkDocs: it makes README the landing page and CHANGELOG a page, and publishes files that pages link to.

Links are written for readers of the repository. Linked files outside docs/ are published under source/.
"""

from __future__ import annotations

import os
import re

from mkdocs.structure.files import File

import nemotron_exec

_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_MERMAID = "build/mermaid/mermaid.min.js"


def on_config(config):
    """Show the version. Draw diagrams with the package that `make docs` has fetched, if there is one."""
    config.copyright = f"nemotron-exec {nemotron_exec.__version__}"
    for entry in config.nav:
        if entry.get("Changes"):
            entry[f"Changes ({nemotron_exec.__version__})"] = entry.pop("Changes")
    if os.path.isfile(os.path.join(os.path.dirname(config.config_file_path), _MERMAID)):
        config.extra_javascript.append("assets/mermaid.min.js")
    return config


def on_files(files, config):
    """Add the two pages and every file that a link names; MkDocs warns of a name that does not exist."""
    root = os.path.dirname(config.config_file_path)
    for name, page in _PAGES.items():
        with open(os.path.join(root, name), encoding="utf-8") as file:
            files.append(File.generated(config, page, content=_as_in_docs(file.read())))
    if os.path.isfile(os.path.join(root, _MERMAID)):
        script = os.path.join(root, _MERMAID)
        files.append(File.generated(config, "assets/mermaid.min.js", abs_src_path=script))
    wanted = set()
    for page in files.documentation_pages():
        wanted.update(name for name, _ in _LINK.findall(page.content_string))
    for name in sorted(wanted - set(_PAGES)):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            files.append(File.generated(config, _published(name), abs_src_path=path))
    return files


def on_page_markdown(markdown, **_):
    """Point the links to the published files."""
    return _LINK.sub(lambda match: f"]({_published(match[1])}{match[2] or '' if match[1] in _PAGES else ''})", markdown)


def _as_in_docs(text):
    """A page of the repository's root with its links rewritten as in a page of docs/."""
    return re.sub(r"\]\((?!\w+:|#)(docs/)?([^)\s]+)\)", lambda m: f"]({'' if m[1] else '../'}{m[2]})", text)


def _published(name):
    # MkDocs would make a page of Markdown, with links that lead nowhere, and would omit names that begin with a dot.
    if name in _PAGES:
        return _PAGES[name]
    parts = [part.lstrip(".") for part in name.split("/")]
    return "source/" + "/".join(parts) + (".txt" if name.endswith(".md") else "")
