"""The paths of resolved files, and the links beside them."""

from __future__ import annotations

import os

from nemotron_exec.config.inherit import Layer
from nemotron_exec.config.root import Root
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.sha256 import sha256

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nemotron_exec.command.words import ConfigArgument


__all__ = ["Header", "Rendered", "RenderedFile", "moved_files", "moved_in_hydra", "sibling_links"]


@dataclass(frozen=True)
class Header:
    """Content of the first lines of a resolved file, besides its source and artifacts.

    Attributes:
        created_at: ISO 8601.
    """

    created_at: str


@dataclass(frozen=True)
class RenderedFile:
    """One file to be written.

    Attributes:
        original: Absolute path of the user's file.
        path: Absolute path under the directory given to `render`, with the same base name.
        text: UTF-8, byte order mark included.
    """

    original: str
    path: str
    text: bytes


@dataclass(frozen=True)
class Rendered:
    """The resolved configs, not yet on disk.

    Attributes:
        files: The files to write, mode 0600; the writer creates their directories.
        links: (path, target) of symbolic links beside the files, for everything else in the originals' directories.
        arguments: argv index to the new word: a config path, or an override whose `${art:…}` were filled in.
        dropped: argv indices of the `run.*` overrides, which are removed from the command.
        moved: The config arguments that change, each with its new path; for a Hydra program with the new directory.
    """

    files: tuple[RenderedFile, ...]
    links: tuple[tuple[str, str], ...]
    arguments: Mapping[int, str]
    dropped: frozenset[int]
    moved: tuple[tuple[ConfigArgument, str], ...] = ()


def moved_files(root: Root, ours: set[str], directory: str) -> dict[str, str]:
    """New paths by the old ones, for files that name an artifact and for files that inherit from one of these."""
    home = os.path.dirname(root.layer.document.path)
    moved: dict[str, str] = {}

    def visit(layer: Layer) -> bool:
        path = layer.document.path
        parents = [visit(parent) for _, parent in layer.parents]
        if path in ours or any(parents):
            folder, name = os.path.split(path)
            beside = "" if folder == home else "parents-" + sha256(os.fsencode(folder)).hexdigest()[:8]
            moved[path] = os.path.join(directory, beside, name)
        return path in moved

    visit(root.layer)
    return moved


def moved_in_hydra(root: Root, ours: set[str], directory: str) -> dict[str, str]:
    """New paths in a directory with the shape of Hydra's. The primary config moves whenever one of its groups does."""
    if not ours:
        return {}
    home = root.argument.directory
    paths = [document.path for document in root.documents if document.path in ours or document is root.layer.document]
    return {path: os.path.join(directory, os.path.relpath(path, home)) for path in paths}


_MAX_SIBLINGS = 4096


def sibling_links(
    files: Sequence[RenderedFile], resolved: Mapping[str, str], places: set[str]
) -> list[tuple[str, str]]:
    """Links to everything beside the original files, because scripts name neighbours relative to their config."""
    folders: dict[str, str] = {}
    for file in files:
        folder, target = os.path.dirname(file.path), os.path.dirname(file.original)
        folders[folder] = target
        # The file of a Hydra group lies deeper: its parent folders are real folders, too, and need links.
        while folder not in places and os.path.basename(folder) == os.path.basename(target):
            folder, target = os.path.dirname(folder), os.path.dirname(target)
            folders.setdefault(folder, target)
    taken = {file.path for file in files} | set(folders)
    links: list[tuple[str, str]] = []
    for folder, target in folders.items():
        try:
            names = sorted(os.listdir(target))
        except OSError:
            continue
        if len(names) > _MAX_SIBLINGS:
            continue
        for name in names:
            path = os.path.join(folder, name)
            original = os.path.join(target, name)
            if path not in taken:
                links.append((path, resolved.get(original, original)))
    return links
