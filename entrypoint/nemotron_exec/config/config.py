"""Reads the command's configs, finds their artifact references, and renders them with the artifacts filled in.

`read` parses each file that the command names, the files that it inherits from and the `run.*` overrides.
`Config.render` returns the texts of the resolved files; the caller writes them.
"""

from __future__ import annotations

from nemotron_exec.command.override import Override
from nemotron_exec.config import hydra
from nemotron_exec.config.evaluate import Path, Value, select_plain
from nemotron_exec.config.files import Header, Rendered
from nemotron_exec.config.foreign import counts, has_template_in_run, is_template, uses_artifacts, would_be_a_config
from nemotron_exec.config.inherit import Layer, documents_of, load_layers, merge_layers
from nemotron_exec.config.named import references_of, with_named
from nemotron_exec.config.near_misses import near_misses
from nemotron_exec.config.override import value_of
from nemotron_exec.config.references import (
    NO_REFERENCES,
    look_up,
    may_be_reference,
    reference_in,
    refuse_contested,
    refuse_two_versions,
    refuse_unknown_keys,
)
from nemotron_exec.config.render import render
from nemotron_exec.config.root import (
    Root,
    Sources,
    evaluator_of,
    expressions_of,
    plain_value,
    positions_of,
    scalars_of,
    sources_of,
)
from nemotron_exec.config.run_section import (
    Injected,
    apply_override,
    check_run,
    find_missing_wandb,
    profile_overrides,
    texts_of,
    with_wandb,
)
from nemotron_exec.document.document import Document, Scalar, tag_of
from nemotron_exec.document.parse import load
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.frameworks import SAVE_KEYS, saved_by
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.artifacts.reference import Reference
    from nemotron_exec.command.words import ConfigArgument
    from nemotron_exec.config.hub_ids import HubId
    from nemotron_exec.message import Messages

__all__ = ["Config", "read"]


@dataclass(frozen=True)
class Config:
    """The result of `read`.

    Attributes:
        sources: The configs and overrides from which the rest is computed.
        references: Every artifact that `run` names after overrides, in the order of the config.
        run: The `run` section after overrides; interpolations without an artifact in them stay text.
        artifacts_root: `artifacts.manifest.root`.
        save_directory: The directory of checkpoints that the config or an option of the command names, if it is a plain
            value.
        files: Every file that was read.
    """

    sources: Sources
    references: tuple[Reference, ...]
    run: dict[str, object]
    artifacts_root: str | None
    save_directory: str | None
    files: tuple[str, ...]

    @property
    def empty_wandb(self) -> list[str]:
        """The keys of `run.wandb` that the config uses without a value: they are null in the resolved text."""
        missing = [pair for root in self.sources.roots for pair in root.missing_wandb.items()]
        return list(dict.fromkeys(f"run.wandb.{key}" for key, value in missing if value is None))

    def hub_ids(self, artifacts: Mapping[str, Artifact]) -> list[HubId]:
        """The Hugging Face repositories that the config names by their id, outside of `run:`."""
        from nemotron_exec.config.hub_ids import find_hub_ids

        sources = self.sources
        return find_hub_ids(
            sources.roots,
            sources.overrides,
            lambda number: evaluator_of(sources, number, artifacts, sources.environ),
        )

    def render(
        self,
        artifacts: Mapping[str, Artifact],
        *,
        directory: str,
        header: Header,
        translate: Callable[[str], str] | None = None,
    ) -> Rendered:
        """The resolved files (see `render.render`)."""
        return render(self.sources, artifacts, directory=directory, header=header, translate=translate)


def config_of(sources: Sources, words: Sequence[str] = ()) -> Config:
    """The config that the sources make.

    Args:
        sources: The configs, and the overrides that change them.
        words: The command's words after the program.

    Raises:
        LaunchError: A reference is malformed, or an `${art:…}` names no key of `run`.
    """
    return Config(
        sources,
        references=_find_references(sources),
        run=_plain_run(sources),
        artifacts_root=_plain_string(sources, ("artifacts", "manifest", "root")),
        save_directory=next(filter(None, (_plain_string(sources, key) for key in SAVE_KEYS)), None) or saved_by(words),
        files=tuple(dict.fromkeys(document.path for root in sources.roots for document in root.documents)),
    )


def _find_references(sources: Sources) -> tuple[Reference, ...]:
    """Every artifact that `run` or an option names, in the order of the config.

    Raises:
        LaunchError: A reference is malformed, or an `${art:…}` names no key of `run`.
    """
    found: dict[str, Reference] = references_of(sources.named, sources.environ)
    for number, root in enumerate(sources.roots):
        run = root.tree.get("run") if isinstance(root.tree, dict) else None
        section = run if isinstance(run, dict) else {}
        known = evaluator_of(sources, number, None, sources.environ)
        used = _used_keys(sources, number)
        for key, node in section.items():
            if key not in NO_REFERENCES and (reference := reference_in(str(key), node, used, known)) is not None:
                first = found.setdefault(str(key), reference)
                if first.text != reference.text and key not in sources.named:
                    refuse_two_versions(first, reference)
    for number, root in enumerate(sources.roots):
        refuse_unknown_keys(root, _used_keys(sources, number), found)
        refuse_contested(root, sources.overrides, found)
    return tuple(found.values())


def _plain_run(sources: Sources) -> dict[str, object]:
    """The `run` section as plain data. An interpolation without a value yet stays text."""
    merged: dict[str, object] = {}
    for number, root in enumerate(sources.roots):
        run = root.tree.get("run") if isinstance(root.tree, dict) else None
        if isinstance(run, dict):
            evaluator = evaluator_of(sources, number, None)
            merged |= {str(key): plain_value(value, ("run", key), evaluator) for key, value in run.items()}
    return merged


def _plain_string(sources: Sources, path: tuple[str, ...]) -> str | None:
    """The text at a path, an override first; None where it is no text, or only the job knows it."""
    for override in reversed(sources.overrides):
        if override.path == path and override.sign != "~":
            node = value_of(override)
            if override.text and isinstance(node, Scalar) and not node.is_expression and tag_of(node).endswith(":str"):
                return node.value
            return None  # only the script can read the value of another form, `--save DIR`
    for number, root in reversed(list(enumerate(sources.roots))):
        found = select_plain(root.tree, path)
        if isinstance(found, Scalar):
            result = evaluator_of(sources, number, None).scalar(found, path)
            if isinstance(result, Value) and isinstance(result.value, str):
                return result.value
    return None


def _used_keys(sources: Sources, number: int) -> dict[str, Scalar]:
    """Keys of `${art:KEY,…}` in the config's files and overrides, each with the first scalar that uses it."""
    evaluator = evaluator_of(sources, number, None)
    for scalar, paths in positions_of(sources.roots[number]).values():
        if "art" in scalar.value:
            for path in paths:
                look_up(evaluator, scalar, path, sources.roots[number].tree)
    for override in sources.overrides:
        for scalar in expressions_of(override):
            look_up(evaluator, scalar, override.path, None)
    if evaluator.undecided:
        for key in _likely_keys(sources, number, evaluator.undecided):
            evaluator.used.setdefault(key, evaluator.undecided[0])
    return evaluator.used


def _likely_keys(sources: Sources, number: int, undecided: Sequence[Scalar]) -> list[str]:
    """Keys of `run` that `${art:${name}}` may mean in the job: an override, a Hydra group or a variable names them."""
    root = sources.roots[number]
    said = {override.text for override in sources.overrides if not override.is_about_run}
    if root.argument.hydra is not None:
        said |= {scalar.value for document in root.documents for _, scalar in scalars_of(document.tree(), ())}
    if any("oc.env" in scalar.value for scalar in undecided):
        said |= set(sources.environ.values())
    run = root.tree.get("run") if isinstance(root.tree, dict) else None
    section = run if isinstance(run, dict) else {}
    return [str(key) for key, value in section.items() if key in said and may_be_reference(value)]


def read(
    configs: Sequence[ConfigArgument],
    overrides: Sequence[Override],
    *,
    environ: Mapping[str, str],
    run_wandb: Injected,
    resolve: Literal["artifacts", "all"],
    named: Mapping[str, Any] | None = None,
    words: Sequence[str] = (),
    start: int = 1,
    directory: str = "",
    messages: Messages | None = None,
) -> Config:
    """Read the configs of a command.

    Args:
        configs: The arguments of the command that name a config.
        overrides: The overrides of the command.
        environ: The environment, for `${oc.env:…}` in a reference or in `defaults:`.
        run_wandb: The values of `run.wandb` that the config leaves empty.
        resolve: The value of `--resolve`.
        named: Artifacts that no config names, as nodes (named.py); they win over those of `run`.
        words: The command's words. Words in other forms than overrides may change the config, too.
        start: Index of the first word after the program.
        directory: The working directory of the command, for the files that the words name.
        messages: Gets a warning for each file that is passed over.

    Raises:
        LaunchError: A file is missing or bad, a reference is malformed, or an `${art:…}` names no key of `run`.
    """
    about_run = [override for override in overrides if override.is_about_run]
    if about_run and not configs:
        raise LaunchError(
            f"to apply the override {about_run[0].word} to a config",
            "no argument of the command names a YAML file with a run section",
            "Name it with --config",
        )
    roots = []
    looked_at: set[str] = set()
    for argument in configs:
        groups: tuple[Document, ...] = ()
        chosen: tuple[Document, ...] = ()
        if argument.hydra is None:
            found = _load(argument, environ, messages)
            if found is None:
                continue
            layer = found
            if not argument.explicit and has_template_in_run(layer.document.tree()):
                _passed_through(argument.path, messages)
                continue
            counted = counts(layer)
            texts = [(document.path, document.text) for document in documents_of(layer)]
            _look(texts, looked_at, messages, sure=counted)
            if not argument.explicit and not counted:
                continue
        else:
            layer = Layer(load(argument.path), (), inherits=False)
            groups = hydra.group_files(argument.directory, layer.document.path)
            chosen = hydra.chosen_globally(argument, layer.document, groups, overrides)
            texts = hydra.near_files(argument, overrides)
            sure = bool(hydra.run_of(layer.document)) or any(uses_artifacts(text) for _, text in texts)
            _look(texts, looked_at, messages, sure=sure)
        merged = merge_layers(layer)
        tree = merged.tree
        if about_run or any(uses_artifacts(text) for text in texts_of(layer)):
            check_run(tree, layer.document)
        for document in chosen:
            if isinstance(tree, dict) and hydra.run_of(document):
                own = tree["run"] if isinstance(tree.get("run"), dict) else {}
                tree = {**tree, "run": {**hydra.run_of(document), **own}}
        run = tree.get("run") if isinstance(tree, dict) else None
        profile = profile_overrides(run_wandb.env) if isinstance(run, dict) else []
        for override in (*profile, *about_run):
            tree = apply_override(tree, override, layer.document)
        missing = find_missing_wandb(tree, run_wandb, layer)
        if missing and isinstance(tree, dict):
            tree = with_wandb(tree, missing)
        tree = with_named(tree, named)
        roots.append(Root(argument, layer, tree, merged.uncertain, missing, groups, chosen, tuple(profile)))
    named_by = {argument.index for argument in configs}
    more: tuple[Override, ...] = ()
    touched: set[Path] = set()
    if any(index not in named_by for index in range(start, len(words))):
        from nemotron_exec.config import other_forms

        warn = messages.warning if messages is not None else None
        more, touched = other_forms.read(
            words, start, roots, overrides, configs=named_by, directory=directory, warn=warn
        )
    return config_of(sources_of(roots, (*overrides, *more), environ, resolve, named or {}, touched), words[start:])


def _load(argument: ConfigArgument, environ: Mapping[str, str], messages: Messages | None) -> Layer | None:
    """The config with the files that it inherits from; None for a file that is no YAML and not meant for the launcher.

    Raises:
        LaunchError: The file cannot be parsed although it is meant for the launcher.
    """
    try:
        return load_layers(argument.path, environ)
    except LaunchError as error:
        template = is_template(argument.path)
        if argument.explicit or (would_be_a_config(argument.path) and not template):
            raise
        if template:
            _passed_through(argument.path, messages)
            return None
        if messages is not None:
            messages.debug(f"{argument.path} is passed through as it is: {error.found}")
    return None


def _passed_through(path: str, messages: Messages | None) -> None:
    if messages is not None:
        messages.warning(
            f"{path} is a template, no YAML yet, and is passed through as it is: an artifact in it stays unresolved"
        )


def _look(
    texts: Sequence[tuple[str, str]],
    looked_at: set[str],
    messages: Messages | None,
    *,
    sure: bool,
) -> None:
    """Warn of mistyped artifacts in the files that a program reads for one config. Each file is looked at once."""
    if messages is None:
        return
    new = [(path, text) for path, text in texts if absolute(path) not in looked_at]
    looked_at.update(absolute(path) for path, _ in new)
    for warning in near_misses(new, "\n".join(text for _, text in texts), sure=sure):
        messages.warning(warning)
