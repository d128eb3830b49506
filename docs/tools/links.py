"""A hook of MkDocs: files of the repository that a page links to, outside docs/, come along under source/."""

from __future__ import annotations

import os
import re

from mkdocs.structure.files import File

# Links are written for those who read the repository; `../x` is not on the site.
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add every file that a link names; a name that does not exist stays, and MkDocs warns."""
    root = os.path.dirname(config.config_file_path)
    wanted = set()
    for page in files.documentation_pages():
        wanted.update(name for name, _ in _LINK.findall(page.content_string))
    for name in sorted(wanted):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            files.append(File.generated(config, _published(name), abs_src_path=path))
    return files


def on_page_markdown(markdown, **_):
    """Point the links there."""
    return _LINK.sub(lambda match: f"]({_published(match[1])})", markdown)


def _published(name):
    # Markdown would become a page, whose links are the repository's; a dot at the beginning would be left out.
    parts = [part.lstrip(".") for part in name.split("/")]
    return "source/" + "/".join(parts) + (".txt" if name.endswith(".md") else "")
