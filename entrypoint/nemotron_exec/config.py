"""The command's configs: read, asked for their artifact references, and written with what is ours filled in.

`read` parses each file that the command names, the files that it inherits from and the `run.*` overrides, and finds the
references. `Config.render` gives the texts of the resolved files; writing them is the caller's.
"""

from __future__ import annotations

import hashlib
import os
import re

from nemotron_exec import __version__, hydra
from nemotron_exec.document import Document, Scalar, load, tag_of, tree_of
from nemotron_exec.document import Mapping as MappingNode
from nemotron_exec.errors import LaunchError
from nemotron_exec.evaluate import Evaluator, Kept, Path, Value, select_plain
from nemotron_exec.frozen import dataclass, field
from nemotron_exec.inherit import Layer, load_layers, merge_layers
from nemotron_exec.literal import Expression, grammar_literal, yaml_double_quoted, yaml_literal
from nemotron_exec.override import Override, Reach, parse_override
from nemotron_exec.reference import Reference, looks_like_reference, parse_reference
from nemotron_exec.rewrite import Retext, Whole, rewrite
from nemotron_exec.splice import Changes, splice

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal

    from nemotron_exec.artifact import Artifact
    from nemotron_exec.command import ConfigArgument

__all__ = ["Config", "Header", "Injected", "Rendered", "RenderedFile", "read"]

_STR = "tag:yaml.org,2002:str"
_NO_REFERENCES = ("env", "wandb")
_PLAIN_OVERRIDE = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.+\-]*\Z")
_HYDRA_HEADER = re.compile(r"(?:[ \t]*(?:#[ \t]*@[^\r\n]*)?\r?\n)*")
_SAVE_KEYS = (("checkpoint", "save"), ("checkpointing", "checkpoint_dir"))


@dataclass(frozen=True)
class Injected:
    """What the launcher adds to `run`.

    Attributes:
        project: `run.wandb.project`, where the config has no value of its own.
        entity: `run.wandb.entity`, likewise.
        env: What a profile of env.toml puts over `run.env` (nemo_runspec/config/loader.py does the same).
    """

    project: str | None = None
    entity: str | None = None
    env: Mapping[str, Any] = field(default_factory=dict)

    def missing_from(self, wandb: Any) -> dict[str, str]:
        """What a `run.wandb` section lacks; null counts as absent."""
        given = wandb if isinstance(wandb, dict) else {}
        pairs = {"project": self.project, "entity": self.entity}
        return {key: value for key, value in pairs.items() if value and _is_null(given.get(key))}


@dataclass(frozen=True)
class Header:
    """What the first lines of a resolved file say besides its source and artifacts.

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
        files: What to write, mode 0600; their directories are to be made.
        links: (path, target) of the symbolic links beside them: everything else that the original's directory has.
        arguments: argv index to the new word: config paths, and overrides whose `${art:…}` were filled in.
        dropped: argv indices of the `run.*` overrides, which the command does not get.
    """

    files: tuple[RenderedFile, ...]
    links: tuple[tuple[str, str], ...]
    arguments: Mapping[int, str]
    dropped: frozenset[int]


@dataclass(frozen=True)
class _Root:
    """One config argument with its files, merged."""

    argument: ConfigArgument
    layer: Layer
    tree: Any
    uncertain: frozenset[Path]
    missing_wandb: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[Document, ...] = ()
    chosen: tuple[Document, ...] = ()
    profile: tuple[Override, ...] = ()

    @property
    def documents(self) -> list[Document]:
        """Every file once, the named one first."""
        return [*(layer.document for layer in self.layers), *self.groups]

    @property
    def layers(self) -> list[Layer]:
        """Every file once, the named one first."""
        found: dict[str, Layer] = {}

        def visit(layer: Layer) -> None:
            if layer.document.path not in found:
                found[layer.document.path] = layer
                for _, parent in layer.parents:
                    visit(parent)

        visit(self.layer)
        return list(found.values())


class Config:
    """What `read` found.

    Attributes:
        references: Every artifact that `run` names, overrides honoured, in the order of the config.
        run: The `run` section after overrides; interpolations that are not ours stay text.
        artifacts_root: `artifacts.manifest.root`.
        save_directory: Where the config saves checkpoints, overrides honoured, if that is a plain value.
        files: Every file that was read, absolute.
    """

    def __init__(
        self,
        roots: Sequence[_Root],
        overrides: Sequence[Override],
        environ: Mapping[str, str],
        resolve: Literal["artifacts", "all"],
    ) -> None:
        self._roots = roots
        self._overrides = overrides
        self._environ = environ
        self._resolve = resolve
        self._commanded = Reach(override.path for override in overrides if not override.is_ours)
        self._reaches = [self._reach(root) for root in roots]
        self.files = tuple(dict.fromkeys(document.path for root in roots for document in root.documents))
        self.references = self._find_references()
        self.run = self._plain_run()
        self.artifacts_root = self._plain_string(("artifacts", "manifest", "root"))
        self.save_directory = next(filter(None, map(self._plain_string, _SAVE_KEYS)), None)

    # --- reading

    def _reach(self, root: _Root) -> Reach:
        """What may differ in the job: the script's overrides, and keys that another config of the command has too."""
        if root.argument.hydra is not None:
            return hydra.OnlyRun(hydra.contested(root.groups))
        paths: list[tuple[Any, ...]] = [override.path for override in self._overrides if not override.is_ours]
        paths += root.uncertain
        for other in self._roots:
            if other is not root:
                paths += [path for path, _ in _scalars(other.tree, ()) if path[0] != "run"]
        return Reach(paths)

    def _evaluator(
        self, number: int, artifacts: Mapping[str, Artifact] | None, environ: Mapping[str, str] | None = None
    ) -> Evaluator:
        reach = self._reaches[number]
        return Evaluator(
            self._roots[number].tree, artifacts, replaced=reach.replaces, touched=reach.touches, environ=environ
        )

    def _find_references(self) -> tuple[Reference, ...]:
        found: dict[str, Reference] = {}
        for number, root in enumerate(self._roots):
            run = root.tree.get("run") if isinstance(root.tree, dict) else None
            section = run if isinstance(run, dict) else {}
            known = self._evaluator(number, None, self._environ)
            used = self._used_keys(number)
            for key, scalar in section.items():
                if not isinstance(scalar, Scalar) or key in _NO_REFERENCES:
                    continue
                if str(key) not in used and not (looks_like_reference(scalar.value) or scalar.is_expression):
                    continue
                result = known.scalar(scalar, ("run", key))
                text = result.value if isinstance(result, Value) else None
                if str(key) in used:
                    if not isinstance(text, str) or not text.strip():
                        raise LaunchError(
                            f"run.{key} ({scalar.origin}) to name an artifact, as ${{art:{key},…}} uses it",
                            result.why if isinstance(result, Kept) else f"it is {text!r}",
                            "Write name:version",
                        )
                elif not looks_like_reference(text):
                    continue
                assert isinstance(text, str)
                found.setdefault(str(key), parse_reference(str(key), text, scalar.origin))
        self._refuse_unknown_keys(found)
        self._refuse_contested(found)
        return tuple(found.values())

    def _refuse_contested(self, found: Mapping[str, Reference]) -> None:
        """Two versions of one artifact in a Hydra config: which counts is decided when Hydra composes, after us."""
        said = {override.path for override in self._overrides if override.is_ours}
        for root in self._roots:
            for document in root.chosen:
                for key, scalar in hydra.run_of(document).items():
                    reference = found.get(str(key))
                    if reference is None or ("run", key) in said or not isinstance(scalar, Scalar):
                        continue
                    if scalar.value != reference.text:
                        raise LaunchError(
                            f"run.{key} ({reference.origin}) to be one artifact",
                            f"it is {reference.text} there, and {scalar.value} in {scalar.origin}, and Hydra decides "
                            "only in the job which of them counts",
                            f"Say which on the command line: run.{key}={scalar.value}",
                        )

    def _used_keys(self, number: int) -> dict[str, Scalar]:
        """Keys of `${art:KEY,…}` in the config's files, with the first scalar that says each."""
        evaluator = self._evaluator(number, None)
        for scalar, paths in _positions(self._roots[number]).values():
            if "art" in scalar.value:
                for path in paths:
                    _look(evaluator, scalar, path, self._roots[number].tree)
        for override in self._overrides:
            for scalar in _expressions(override):
                _look(evaluator, scalar, override.path, None)
        if evaluator.undecided:
            for key in self._likely_keys(number, evaluator.undecided):
                evaluator.used.setdefault(key, evaluator.undecided[0])
        return evaluator.used

    def _likely_keys(self, number: int, undecided: Sequence[Scalar]) -> list[str]:
        """Keys of `run` that `${art:${name}}` may mean in the job: an override, a Hydra group or a variable says it."""
        root = self._roots[number]
        said = {override.text for override in self._overrides if not override.is_ours}
        if root.argument.hydra is not None:
            said |= {scalar.value for document in root.documents for _, scalar in _scalars(document.tree(), ())}
        if any("oc.env" in scalar.value for scalar in undecided):
            said |= set(self._environ.values())
        run = root.tree.get("run") if isinstance(root.tree, dict) else None
        section = run if isinstance(run, dict) else {}
        return [str(key) for key, value in section.items() if key in said and isinstance(value, Scalar)]

    def _refuse_unknown_keys(self, found: Mapping[str, Reference]) -> None:
        for number, root in enumerate(self._roots):
            for key, scalar in self._used_keys(number).items():
                if key in found or scalar.document in root.groups:
                    continue  # a group that the command does not select may use what its own experiment defines
                run = root.tree.get("run") if isinstance(root.tree, dict) else None
                names = [str(name) for name in run if name not in _NO_REFERENCES] if isinstance(run, dict) else []
                raise LaunchError(
                    f"to resolve {scalar.value.strip()} ({scalar.origin})",
                    f"there is no artifact {key!r} under run",
                    f"Keys under run: {', '.join(names) or 'none'}",
                )

    def _plain_run(self) -> dict[str, object]:
        merged: dict[str, object] = {}
        for number, root in enumerate(self._roots):
            run = root.tree.get("run") if isinstance(root.tree, dict) else None
            if isinstance(run, dict):
                evaluator = self._evaluator(number, None)
                merged |= {str(key): _plain(value, ("run", key), evaluator) for key, value in run.items()}
        return merged

    def _plain_string(self, path: tuple[str, ...]) -> str | None:
        for override in reversed(self._overrides):
            if override.path == path and override.sign != "~":
                node = override.node()
                if isinstance(node, Scalar) and not node.is_expression and tag_of(node).endswith(":str"):
                    return node.value
                return None
        for number, root in reversed(list(enumerate(self._roots))):
            found = select_plain(root.tree, path)
            if isinstance(found, Scalar):
                result = self._evaluator(number, None).scalar(found, path)
                if isinstance(result, Value) and isinstance(result.value, str):
                    return result.value
        return None

    # --- writing

    def render(
        self,
        artifacts: Mapping[str, Artifact],
        *,
        directory: str,
        header: Header,
        translate: Callable[[str], str] | None = None,
    ) -> Rendered:
        """The resolved files, to be written under `directory`. The same input gives the same bytes.

        Args:
            artifacts: What the references have become, by key.
            directory: Where the files will be.
            header: What their first lines say.
            translate: Applied to the text of every string, where the job's paths lie elsewhere (`/nemo_run`).

        Raises:
            LaunchError: Something of ours cannot be resolved, or cannot be written so that it reads as it should.
        """
        files: list[RenderedFile] = []
        places: set[str] = set()
        arguments: dict[int, str] = {}
        for number, root in enumerate(self._roots):
            place = os.path.join(directory, str(number)) if len(self._roots) > 1 else directory
            places.add(place)
            written = self._render_root(number, artifacts, place, header, translate)
            if not written:
                continue
            files += written
            if root.argument.index < 0:
                continue
            if root.argument.hydra is not None:
                arguments[root.argument.index] = hydra.words(root.argument, place)
            else:
                arguments[root.argument.index] = root.argument.prefix + written[0].path
        resolved = {file.original: file.path for file in reversed(files)}
        links = _sibling_links(files, resolved, places)
        arguments |= self._render_overrides(artifacts)
        dropped = frozenset(override.index for override in self._overrides if self._is_applied(override))
        return Rendered(tuple(files), tuple(links), arguments, dropped)

    def _is_applied(self, override: Override) -> bool:
        """Whether the resolved files say all that an override says, so that the command need not."""
        for root in self._roots:
            if root.argument.hydra is None:
                continue
            if root.argument.index < 0:
                return False  # the program composes by itself, and applies the words by itself
            again = override.sign in ("", "++") and override.path[1:2]
            if again and str(override.path[1]) in hydra.contested(root.chosen):
                return False  # the group may be merged over the file that we write it into
        return override.is_ours

    def _render_root(
        self,
        number: int,
        artifacts: Mapping[str, Artifact],
        directory: str,
        header: Header,
        translate: Callable[[str], str] | None,
    ) -> list[RenderedFile]:
        """The files of one config argument that change, the named one first; none if nothing does."""
        root = self._roots[number]
        evaluator = self._evaluator(number, artifacts)
        changes = {document.path: Changes() for document in root.documents}
        ours: set[str] = set()
        for scalar, paths in _positions(root).values():
            edit = self._edit(scalar, paths, evaluator, root)
            if edit is not None:
                changes[scalar.document.path].scalars[id(scalar)] = (scalar, edit)
                if not root.layer.inherits or scalar.document is root.layer.document or _is_ours(scalar):
                    ours.add(scalar.document.path)
        if translate is not None:
            for document in root.documents:
                if _translate(document, changes[document.path], translate):
                    ours.add(document.path)
        primary = root.layer.document
        _add_wandb(root, changes[primary.path])

        def data(tree: Any, path: Path) -> Any:
            return _data(tree, path, lambda scalar, here: rewrite(scalar, [here], evaluator, self._resolve))

        _apply_run_overrides(root, [*root.profile, *self._overrides], changes[primary.path], data)
        if changes[primary.path]:
            ours.add(primary.path)
        place = _moved if root.argument.hydra is None else _moved_in_hydras_directory
        moved = place(root, ours, directory)
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
            # Hydra reads `# @package …` only before all other comments.
            end = match.end() if (match := _HYDRA_HEADER.match(body)) and "@" in match.group() else 0
            text = document.mark + body[:end] + _comment(document, artifacts, header) + body[end:]
            files.append(RenderedFile(document.path, moved[document.path], _encode(document, text)))
        return files

    def _edit(self, scalar: Scalar, paths: Sequence[Path], evaluator: Evaluator, root: _Root) -> Any:
        live = [path for path in paths if _at(root.tree, path) is scalar]
        if live:
            edit = rewrite(scalar, live, evaluator, self._resolve)
            if isinstance(edit, Whole):
                # OmegaConf merges what the command says into a mapping or list of the config, and puts it in the place
                # of an interpolation.
                in_hydra = root.argument.hydra is not None
                reach = self._commanded if in_hydra else self._reaches[self._roots.index(root)]
                container = isinstance(edit.value, (dict, list))
                if any(reach.touches(path) and (container or not reach.replaces(path)) for path in live):
                    return None
            return edit
        try:  # a child of the file replaced it: nothing reads it
            return rewrite(scalar, paths, evaluator, self._resolve)
        except LaunchError:
            return None

    def _render_overrides(self, artifacts: Mapping[str, Artifact]) -> dict[int, str]:
        arguments: dict[int, str] = {}
        for override in self._overrides:
            if override.is_ours or not override.text or "${" not in override.text:
                continue
            arguments |= _filled(override, self._evaluator(0, artifacts) if self._roots else Evaluator({}, artifacts))
        return arguments


def read(
    configs: Sequence[ConfigArgument],
    overrides: Mapping[int, str],
    *,
    environ: Mapping[str, str],
    run_wandb: Injected,
    resolve: Literal["artifacts", "all"],
) -> Config:
    """Read the configs of a command.

    Args:
        configs: The arguments that name them.
        overrides: The words that read as overrides, by argv index.
        environ: The environment: `${oc.env:…}` in a reference or in `defaults:` is looked up there.
        run_wandb: What `run.wandb` gets where it has no value.
        resolve: `--resolve`.

    Raises:
        LaunchError: A file is missing or bad, a reference is malformed, or an `${art:…}` names no key of `run`.
    """
    parsed = [found for index, word in overrides.items() if (found := parse_override(index, word))]
    ours = [override for override in parsed if override.is_ours]
    if ours and not configs:
        raise LaunchError(
            f"to apply the override {ours[0].word} to a config",
            "no argument of the command names a YAML file with a run section",
            "Name it with --config",
        )
    roots = []
    for argument in configs:
        groups: tuple[Document, ...] = ()
        chosen: tuple[Document, ...] = ()
        if argument.hydra is None:
            layer = load_layers(argument.path, environ)
        else:
            layer = Layer(load(argument.path), (), inherits=False)
            groups = hydra.group_files(argument.directory, layer.document.path)
            chosen = hydra.chosen_globally(argument, layer.document, groups, parsed)
        merged = merge_layers(layer)
        tree = merged.tree
        _check_run(tree, layer.document)
        for document in chosen:
            if isinstance(tree, dict) and hydra.run_of(document):
                own = tree["run"] if isinstance(tree.get("run"), dict) else {}
                tree = {**tree, "run": {**hydra.run_of(document), **own}}
        run = tree.get("run") if isinstance(tree, dict) else None
        profile = _profile_overrides(run_wandb.env) if isinstance(run, dict) else []
        for override in (*profile, *ours):
            tree = _overridden(tree, override, layer.document)
        missing = _missing_wandb(tree, run_wandb, layer)
        if missing and isinstance(tree, dict):
            tree = _with_wandb(tree, missing)
        roots.append(_Root(argument, layer, tree, merged.uncertain, missing, groups, chosen, tuple(profile)))
    return Config(roots, parsed, environ, resolve)


# --- run: and its overrides -----------------------------------------------------------------------------------------


def _check_run(tree: Any, document: Document) -> None:
    if not isinstance(tree, dict):
        return
    run = tree.get("run")
    if run is None or isinstance(run, dict) or (isinstance(run, Scalar) and (_is_null(run) or run.is_expression)):
        return
    named = _pair(document.root, "run")
    line = run.line if isinstance(run, Scalar) else named[0].line if named else 0
    raise document.error(
        "to read the run section",
        f"it is a {'list' if isinstance(run, list) else 'scalar'}, not a mapping",
        "Write `run:` with one `key: artifact:version` a line",
        line,
    )


def _profile_overrides(env: Mapping[str, Any], path: tuple[str, ...] = ("run", "env")) -> list[Override]:
    """A profile as overrides, one for each value that is no table."""
    found = []
    for key, value in env.items():
        here = (*path, key)
        if isinstance(value, dict) and value:
            found += _profile_overrides(value, here)
        else:
            data = value if isinstance(value, (str, int, float, list, dict)) else str(value)  # TOML has dates
            found.append(Override(-1, f"{'.'.join(here)} of env.toml", "++", here, yaml_literal(data)))
    return found


def _overridden(tree: Any, override: Override, document: Document) -> Any:
    """The tree with one `run.*` override applied; what it shares with the original is not changed."""
    if not isinstance(tree, dict):
        raise document.error(f"to apply the override {override.word}", "the config is no mapping", "Leave it out")
    result = dict(tree)
    node: dict[Any, Any] = result
    for key in override.path[:-1]:
        inner = node.get(key)
        node[key] = dict(inner) if isinstance(inner, dict) else {}
        node = node[key]
    last = override.path[-1]
    if override.sign == "~":
        node.pop(last, None)
    else:
        value = override.node()
        node[last] = tree_of(value, document)
    return result


def _missing_wandb(tree: Any, injected: Injected, layer: Layer) -> dict[str, str]:
    """What `run.wandb` gets: nothing where the config has no `run` and never asks for it."""
    if not isinstance(tree, dict):
        return {}
    run = tree.get("run")
    if isinstance(run, Scalar) and not _is_null(run):
        return {}
    if run is None and not any("run.wandb" in text for text in _texts(layer)):
        return {}
    wandb = run.get("wandb") if isinstance(run, dict) else None
    if isinstance(wandb, list) or (isinstance(wandb, Scalar) and not _is_null(wandb)):
        return {}
    return injected.missing_from(wandb)


def _texts(layer: Layer) -> list[str]:
    return [layer.document.text, *(text for _, parent in layer.parents for text in _texts(parent))]


def _with_wandb(tree: dict[Any, Any], missing: Mapping[str, str]) -> dict[Any, Any]:
    run = tree.get("run")
    run = dict(run) if isinstance(run, dict) else {}
    wandb = run.get("wandb")
    wandb = dict(wandb) if isinstance(wandb, dict) else {}
    nowhere = Document("env.toml", "")
    for key, value in missing.items():
        wandb[key] = Scalar(value, None, '"', 0, 0, 0, nowhere)
    return {**tree, "run": {**run, "wandb": wandb}}


def _pair(node: Any, key: str) -> tuple[Scalar, Any] | None:
    """The last pair of that key in a mapping of the text."""
    if isinstance(node, MappingNode):
        for name, value in reversed(node.pairs):
            if isinstance(name, Scalar) and name.value == key:
                return name, value
    return None


def _add_wandb(root: _Root, changes: Changes) -> None:
    """Fill `run.wandb` in the text of the named file (design ruling 5)."""
    if root.missing_wandb:
        _insert(root.layer.document, changes, ("run", "wandb"), dict(root.missing_wandb))


def _insert(document: Document, changes: Changes, path: tuple[str, ...], values: dict[str, Any]) -> None:
    """Give the mapping at `path` of the text these keys; what is null or absent on the way is made."""
    node: Any = document.root
    for number, name in enumerate(path):
        pair = _pair(node, name)
        rest = path[number + 1 :]
        nested: dict[str, Any] = values
        for key in reversed(rest):
            nested = {key: nested}
        if pair is None:
            if isinstance(node, MappingNode) and id(node) in document.aliased and number:
                return  # an anchor that others repeat: adding to it would change them too
            _add(document, changes, node, {name: nested})
            return
        name_node, node = pair
        if isinstance(node, Scalar):
            if _is_null(node):
                changes.replaced[id(name_node)] = (name_node, node, nested)
            return
        if id(name_node) in document.alias_spans:
            changes.wrapped[id(name_node)] = (name_node, nested)
            return
    fresh = {}
    for name, inner in values.items():
        pair = _pair(node, name)
        if pair is None:
            fresh[name] = inner
        elif isinstance(pair[1], Scalar):
            changes.replaced[id(pair[0])] = (*pair, inner)
    if fresh:
        _add(document, changes, node, fresh)


def _add(document: Document, changes: Changes, node: Any, values: dict[str, Any]) -> None:
    if node is None or node is document.root:
        changes.root |= values
    elif isinstance(node, MappingNode):
        before = changes.added.get(id(node), (node, {}))[1]
        changes.added[id(node)] = (node, {**before, **values})


def _apply_run_overrides(
    root: _Root, overrides: Sequence[Override], changes: Changes, data: Callable[[Any, Path], Any]
) -> None:
    """Write the `run.*` overrides into the text of the named file, which wins over those that it inherits from."""
    document = root.layer.document
    # Of several about the same key the last one counts.
    for override in {override.path: override for override in overrides if override.is_ours}.values():
        node: Any = document.root
        pair = None
        for name in override.path:
            pair = _pair(node, name)
            if pair is None:
                break
            parent, node = node, pair[1]
        if override.sign == "~":
            if pair is not None:
                changes.removed[id(pair[0])] = (parent, pair[0])
            continue
        value = data(select_plain(root.tree, override.path), override.path)
        if pair is None:
            _insert(document, changes, override.path[:-1], {override.path[-1]: value})
        else:
            if isinstance(pair[1], Scalar):
                changes.scalars.pop(id(pair[1]), None)
            changes.replaced[id(pair[0])] = (*pair, value)


def _data(tree: Any, path: Path, rewritten: Callable[[Scalar, Path], Any]) -> Any:
    """The value of an override, to be written; what is not ours of its interpolations stays."""
    if isinstance(tree, dict):
        return {key: _data(value, (*path, key), rewritten) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_data(item, (*path, index), rewritten) for index, item in enumerate(tree)]
    if not isinstance(tree, Scalar):
        return tree
    if not tree.is_expression:
        return tree.construct()
    edit = rewritten(tree, path)
    if isinstance(edit, Whole):
        return edit.value
    return Expression(tree.value if edit is None else edit.text)


# --- walking --------------------------------------------------------------------------------------------------------


def _scalars(tree: Any, path: Path) -> list[tuple[Path, Scalar]]:
    """Every scalar with its path. The tree's size is bounded (document.py)."""
    found: list[tuple[Path, Scalar]] = []
    pending: list[tuple[Path, Any]] = [(path, tree)]
    while pending:
        here, node = pending.pop()
        if isinstance(node, Scalar):
            found.append((here, node))
        elif isinstance(node, dict):
            pending.extend(((*here, key), value) for key, value in reversed(node.items()))
        elif isinstance(node, list):
            pending.extend(((*here, index), node[index]) for index in reversed(range(len(node))))
    return found


def _translate(document: Document, changes: Changes, translate: Callable[[str], str]) -> bool:
    """Translate what the user wrote, not what an artifact has put in its place. Whether anything changed."""
    changed = False
    for _, scalar in _scalars(document.tree(), ()):
        if tag_of(scalar) != _STR or translate(scalar.value) == scalar.value:
            continue
        edit = changes.scalars[id(scalar)][1] if id(scalar) in changes.scalars else Retext(scalar.value)
        if isinstance(edit, Retext):
            changes.scalars[id(scalar)] = (scalar, Retext(translate(edit.text)))
            changed = True
    return changed


def _at(tree: Any, path: Path) -> Any:
    """What stands at a path; None if nothing does."""
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _positions(root: _Root) -> dict[int, tuple[Scalar, list[Path]]]:
    """Every scalar of the files that holds `${`, with all paths at which it stands."""
    found: dict[int, tuple[Scalar, list[Path]]] = {}
    for layer in root.layers:
        if "${" not in layer.document.text:
            continue
        for path, scalar in _scalars(layer.document.tree(), ()):
            if scalar.is_expression and not (layer.inherits and path[0] == "defaults"):
                found.setdefault(id(scalar), (scalar, []))[1].append(path)
    for document in root.groups:
        # Where Hydra puts a group is not known here: no path of the config leads to it.
        for path, scalar in _scalars(document.tree(), ("\0", document.path)):
            if scalar.is_expression:
                found.setdefault(id(scalar), (scalar, []))[1].append(path)
    return found


def _look(evaluator: Evaluator, scalar: Scalar, path: Path, tree: Any) -> None:
    """Evaluate for the keys that are asked for; errors are for those whom they concern."""
    try:
        evaluator.scalar(scalar, path)
    except LaunchError:
        if tree is None or _at(tree, path) is scalar:
            raise


def _expressions(override: Override) -> list[Scalar]:
    if override.is_ours or not override.text or "${" not in override.text:
        return []
    return [Scalar(override.text, None, '"', 0, 0, 0, Document(override.word, override.text))]


def _filled(override: Override, evaluator: Evaluator) -> dict[int, str]:
    """An override with its `${art:…}` replaced."""
    edits = []
    for scalar in _expressions(override):
        edit = rewrite(scalar, [override.path], evaluator, "artifacts")
        if edit is not None:
            edits.append(edit)
    if not edits:
        return {}
    edit = edits[0]
    key = override.word[: len(override.word) - len(override.text or "") - 1]
    if isinstance(edit, Whole):
        text = _override_literal(edit.value)
    elif "${" in edit.text or edit.text.startswith(("'", '"', "[", "{")):
        text = edit.text
    else:
        text = _override_literal(edit.text)
    return {override.index: f"{key}={text}"}


def _override_literal(value: Any) -> str:
    """A value as Hydra's override grammar and YAML both read it; quoted unless it is a plain path or word."""
    if isinstance(value, str) and _PLAIN_OVERRIDE.match(value) and yaml_literal(value) == value:
        return value
    return grammar_literal(value)


def _plain(tree: Any, path: Path, evaluator: Evaluator) -> object:
    if isinstance(tree, dict):
        return {str(key): _plain(value, (*path, key), evaluator) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value, (*path, index), evaluator) for index, value in enumerate(tree)]
    if not isinstance(tree, Scalar):
        return tree
    try:
        result = evaluator.scalar(tree, path)
    except LaunchError:
        return tree.value
    return result.value if isinstance(result, Value) else tree.value


def _is_null(node: Any) -> bool:
    return node is None or (isinstance(node, Scalar) and tag_of(node) == "tag:yaml.org,2002:null")


def _is_ours(scalar: Scalar) -> bool:
    """Whether a parent with this in it must be rewritten. Arithmetic alone is no reason: the script can do that."""
    return any(word in scalar.value for word in ("art", "manifest", "run"))


# --- where the files go ---------------------------------------------------------------------------------------------


def _moved(root: _Root, ours: set[str], directory: str) -> dict[str, str]:
    """New paths of the files that move, by their old ones: those with something of ours, and who inherits from them."""
    home = os.path.dirname(root.layer.document.path)
    moved: dict[str, str] = {}

    def visit(layer: Layer) -> bool:
        path = layer.document.path
        parents = [visit(parent) for _, parent in layer.parents]
        if path in ours or any(parents):
            folder, name = os.path.split(path)
            beside = "" if folder == home else "parents-" + hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
            moved[path] = os.path.join(directory, beside, name)
        return path in moved

    visit(root.layer)
    return moved


def _moved_in_hydras_directory(root: _Root, ours: set[str], directory: str) -> dict[str, str]:
    """New paths in a directory that has the shape of Hydra's; the primary config moves with any of its groups."""
    if not ours:
        return {}
    home = root.argument.directory
    paths = [document.path for document in root.documents if document.path in ours or document is root.layer.document]
    return {path: os.path.join(directory, os.path.relpath(path, home)) for path in paths}


_MAX_SIBLINGS = 4096


def _sibling_links(
    files: Sequence[RenderedFile], resolved: Mapping[str, str], places: set[str]
) -> list[tuple[str, str]]:
    """Links to everything that stands beside the originals: scripts name neighbours relative to their config."""
    folders: dict[str, str] = {}
    for file in files:
        folder, target = os.path.dirname(file.path), os.path.dirname(file.original)
        folders[folder] = target
        # A Hydra group's file lies deeper: the folders between are real ones as well.
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


def _comment(document: Document, artifacts: Mapping[str, Artifact], header: Header) -> str:
    lines = [
        f"Resolved by nemotron-exec {__version__} from {_one_line(document.path)}",
        f"at {_one_line(header.created_at)}. Do not edit: the original is the source.",
        *(f"run.{_one_line(key)} = {_one_line(item.qualified_name)}" for key, item in sorted(artifacts.items())),
    ]
    return "".join(f"# {line}{document.newline}" for line in lines)


def _one_line(text: str) -> str:
    """Text of others inside a comment: nothing in it ends the line or breaks the YAML."""
    return yaml_double_quoted(text.encode("utf-8", "replace").decode())[1:-1]


def _encode(document: Document, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise document.error("to write the resolved config", error.reason, "Correct the value") from None
