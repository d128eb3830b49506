"""Renders the resolved files of a config, and the command's new words. Only the `${art:…}` change, no other byte."""

from __future__ import annotations

import os

from nemotron_exec import __version__
from nemotron_exec.command.override import Override
from nemotron_exec.command.words import replace_paths
from nemotron_exec.config import hydra
from nemotron_exec.config.evaluate import Evaluator, Path
from nemotron_exec.config.files import Header, Rendered, RenderedFile, moved_files, moved_in_hydra, sibling_links
from nemotron_exec.config.rewrite import rewrite
from nemotron_exec.config.root import Root, Sources, evaluator_of, node_at, override_scalar, positions_of, scalars_of
from nemotron_exec.config.run_text import add_wandb, apply_run_overrides, override_data
from nemotron_exec.document.document import Document, Scalar, tag_of
from nemotron_exec.document.edit import Edit, Retext, Whole
from nemotron_exec.document.literal import yaml_double_quoted
from nemotron_exec.document.splice import Changes, splice
from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.command.words import ConfigArgument

__all__ = ["render"]

STR_TAG = "tag:yaml.org,2002:str"

HYDRA_HEADER = pattern(r"(?:[ \t]*(?:#[ \t]*@[^\r\n]*)?\r?\n)*")


def translate_text(document: Document, changes: Changes, translate: Callable[[str], str]) -> bool:
    """Translate the user's own texts, but not values that come from an artifact. Return whether anything changed."""
    changed = False
    for _, scalar in scalars_of(document.tree(), ()):
        if tag_of(scalar) != STR_TAG or translate(scalar.value) == scalar.value:
            continue
        edit = changes.scalars[id(scalar)][1] if id(scalar) in changes.scalars else Retext(scalar.value)
        if isinstance(edit, Retext):
            changes.scalars[id(scalar)] = (scalar, Retext(translate(edit.text)))
            changed = True
    return changed


def filled_override(override: Override, evaluator: Evaluator, *, hydra: bool) -> dict[int, str]:
    """The override with its `${art:…}` replaced, by its index; {} if nothing changed."""
    from nemotron_exec.config.override_value import fill

    def replace(expression: str) -> Edit | None:
        return rewrite(override_scalar(override, expression), [override.path], evaluator, "artifacts")

    text = override.text or ""
    new = fill(text, replace, hydra=hydra)
    return {} if new == text else {override.index: override.with_text(new)}


def mentions_us(scalar: Scalar) -> bool:
    """Whether a parent file with this scalar must be rewritten. Arithmetic alone needs none: the script can do that."""
    return any(word in scalar.value for word in ("art", "manifest", "run"))


def header_comment(document: Document, artifacts: Mapping[str, Artifact], header: Header) -> str:
    """The comment at the top of a resolved file: its source, the time and the artifacts."""
    lines = [
        f"Resolved by nemotron-exec {__version__} from {_one_line(document.path)}",
        f"at {_one_line(header.created_at)}. Do not edit: the original is the source.",
        *(f"run.{_one_line(key)} = {_one_line(item.qualified_name)}" for key, item in sorted(artifacts.items())),
    ]
    return "".join(f"# {line}{document.newline}" for line in lines)


def _one_line(text: str) -> str:
    """The text on one line, so that a comment with it cannot end early or break the YAML."""
    return yaml_double_quoted(text.encode("utf-8", "replace").decode())[1:-1]


def encode_text(document: Document, text: str) -> bytes:
    """The text with its byte order mark, as UTF-8.

    Raises:
        LaunchError: A value has a lone surrogate.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise document.error("to write the resolved config", error.reason, "Correct the value") from None


def render(
    sources: Sources,
    artifacts: Mapping[str, Artifact],
    *,
    directory: str,
    header: Header,
    translate: Callable[[str], str] | None = None,
) -> Rendered:
    """The resolved files, to be written under `directory`. The same input gives the same bytes.

    Args:
        sources: The configs and overrides.
        artifacts: The artifacts of the references, by key.
        directory: The directory of the resolved files.
        header: Content of their first lines.
        translate: Applied to the text of every string where the job has other paths than the user (`/nemo_run`).

    Raises:
        LaunchError: An expression with an artifact cannot be resolved, or the new text would be read differently than
            meant.
    """
    files: list[RenderedFile] = []
    places: set[str] = set()
    arguments: dict[int, str] = {}
    replaced: dict[int, list[tuple[ConfigArgument, str]]] = {}
    moved: list[tuple[ConfigArgument, str]] = []
    for number, root in enumerate(sources.roots):
        place = os.path.join(directory, str(number)) if len(sources.roots) > 1 else directory
        places.add(place)
        written = _render_root(sources, number, artifacts, place, header, translate)
        if not written:
            continue
        files += written
        if root.argument.index < 0:
            continue
        moved.append((root.argument, written[0].path if root.argument.hydra is None else place))
        if root.argument.hydra is not None:
            arguments[root.argument.index] = hydra.words(root.argument, place)
        else:
            replaced.setdefault(root.argument.index, []).append((root.argument, written[0].path))
    arguments |= {index: replace_paths(pairs) for index, pairs in replaced.items()}
    resolved = {file.original: file.path for file in reversed(files)}
    links = sibling_links(files, resolved, places)
    arguments |= _render_overrides(sources, artifacts)
    dropped = frozenset(override.index for override in sources.overrides if _is_applied(sources, override))
    return Rendered(tuple(files), tuple(links), arguments, dropped, tuple(moved))


def _is_applied(sources: Sources, override: Override) -> bool:
    """Whether the resolved files contain the whole effect of an override, so that it can be left out of the command."""
    for root in sources.roots:
        if root.argument.hydra is None:
            continue
        if root.argument.index < 0:
            return False  # the program composes the config itself, and applies the words itself
        again = override.sign in ("", "++") and override.path[1:2]
        if again and str(override.path[1]) in hydra.contested(root.chosen):
            return False  # Hydra may merge the group over the file that the launcher writes the override into
    return override.is_about_run


def _render_root(
    sources: Sources,
    number: int,
    artifacts: Mapping[str, Artifact],
    directory: str,
    header: Header,
    translate: Callable[[str], str] | None,
) -> list[RenderedFile]:
    """The files of one config argument that change, the named one first; [] if nothing changes."""
    root = sources.roots[number]
    evaluator = evaluator_of(sources, number, artifacts)
    changes = {document.path: Changes() for document in root.documents}
    touched: set[str] = set()
    for scalar, paths in positions_of(root).values():
        edit = _edit(sources, scalar, paths, evaluator, root)
        if edit is not None:
            changes[scalar.document.path].scalars[id(scalar)] = (scalar, edit)
            if not root.layer.inherits or scalar.document is root.layer.document or mentions_us(scalar):
                touched.add(scalar.document.path)
    if translate is not None:
        for document in root.documents:
            if translate_text(document, changes[document.path], translate):
                touched.add(document.path)
    primary = root.layer.document

    def data(tree: Any, path: Path) -> Any:
        return override_data(tree, path, lambda scalar, here: rewrite(scalar, [here], evaluator, sources.resolve))

    add_wandb(root, changes[primary.path], data)
    apply_run_overrides(root, [*root.profile, *sources.overrides], changes[primary.path], data)
    if changes[primary.path]:
        touched.add(primary.path)
    place = moved_files if root.argument.hydra is None else moved_in_hydra
    moved = place(root, touched, directory)
    for layer in root.layers:
        if layer.document.path in moved:
            for scalar, parent in layer.parents:
                target = moved.get(parent.document.path, parent.document.path)
                changes[layer.document.path].scalars[id(scalar)] = (scalar, Whole(target))
    files = []
    for document in root.documents:
        if document.path not in moved:
            continue
        body = splice(document, changes[document.path])
        # Hydra reads `# @package …` only before all other comments, so the header goes after it.
        end = match.end() if (match := HYDRA_HEADER.match(body)) and "@" in match.group() else 0
        text = document.mark + body[:end] + header_comment(document, artifacts, header) + body[end:]
        files.append(RenderedFile(document.path, moved[document.path], encode_text(document, text)))
    return files


def _edit(sources: Sources, scalar: Scalar, paths: Sequence[Path], evaluator: Evaluator, root: Root) -> Any:
    """The edit of one scalar; None leaves it as it is."""
    live = [path for path in paths if node_at(root.tree, path) is scalar]
    if live:
        edit = rewrite(scalar, live, evaluator, sources.resolve)
        if isinstance(edit, Whole):
            # OmegaConf merges an override into a mapping or list, but replaces an interpolation by it. So the
            # expression must stay where an override changes the value.
            in_hydra = root.argument.hydra is not None
            reach = sources.commanded if in_hydra else sources.reaches[sources.roots.index(root)]
            container = isinstance(edit.value, (dict, list))
            if any(reach.touches(path) and (container or not reach.replaces(path)) for path in live):
                return None
        return edit
    try:  # a file that inherits replaced the value: nothing reads this one
        return rewrite(scalar, paths, evaluator, sources.resolve)
    except LaunchError:
        return None


def _render_overrides(sources: Sources, artifacts: Mapping[str, Artifact]) -> dict[int, str]:
    arguments: dict[int, str] = {}
    for override in sources.overrides:
        if override.is_about_run or not override.text or "${" not in override.text:
            continue
        evaluator = evaluator_of(sources, 0, artifacts) if sources.roots else Evaluator({}, artifacts)
        in_hydra = any(root.argument.hydra is not None for root in sources.roots)
        arguments |= filled_override(override, evaluator, hydra=in_hydra)
    return arguments
