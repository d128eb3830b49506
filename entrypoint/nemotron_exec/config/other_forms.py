"""Overrides in other forms than `key=value`: `--root=/o`, `--root /o`, `root /o`, `--options root=/o`, JSON.

Only the script knows how it reads its options. A word that may override a key of the config counts as an override.
An expression that depends on the key then stays an interpolation. touched.py knows further forms, which only keep
expressions.

The launcher itself has to apply `run.*`. For another form it stops and names the right one, or warns where the word may
mean something else.
"""

from __future__ import annotations

import re

from nemotron_exec.command.override import Override, split_key
from nemotron_exec.command.words import word_at
from nemotron_exec.config import further_files
from nemotron_exec.config.named import SETTINGS
from nemotron_exec.config.run_words import RunWords, is_reference
from nemotron_exec.config.touched import stands, touched_paths, words_of_files
from nemotron_exec.document.document import Scalar
from nemotron_exec.document.parse import parse_text
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from typing import Any

    from nemotron_exec.config.evaluate import Path
    from nemotron_exec.config.root import Root

__all__ = ["other_forms", "read", "refuse_stranded"]

_TOKEN = pattern(r"(-{1,2}|\+{1,2}|~)?([A-Za-z_][\w.\-/\[\]]*)([:+]?=>?|:)?(.*)\Z", re.DOTALL)
_SPLIT = pattern(r"[\s,;{}()\"']+")
_MAPPING = pattern(r"""(?:^|[\s{,"'\-])run["']?\s*[:=]\s*(?:\{|dict\()""")


def read(
    words: Sequence[str],
    start: int,
    roots: Sequence[Root],
    known: Sequence[Override],
    *,
    configs: Collection[int],
    directory: str = "",
    warn: Callable[[str], object] | None,
) -> tuple[tuple[Override, ...], set[Path]]:
    """Overrides in other forms, and the paths that words may change in any form.

    Args:
        words: The command's words.
        start: Index of the first word that may be an override.
        roots: The configs.
        known: The overrides in the form `key=value`, read already.
        configs: Indices of the words that name the configs.
        directory: The working directory of the command.
        warn: As for `other_forms`.

    Raises:
        LaunchError: A word overrides a key of `run` in a form that cannot be applied.
    """
    refuse_stranded(words, known)
    found = other_forms(words, start, [root.tree for root in roots], known, configs=configs, warn=warn)
    # Hydra composes in the job, so nothing that its overrides may change is resolved anyway.
    trees = [root.tree for root in roots if root.argument.hydra is None and isinstance(root.tree, dict)]
    if not trees:
        return found, set()
    sure = [override.index for override in known if override.sign or stands(override.path, trees)]
    further = further_files.find(words, start, [root.argument.path for root in roots], directory)
    run = RunWords(trees)
    touched = touched_paths(words, start, trees, [*sure, *configs])
    for file in further:
        further_files.look_for_run(file, run, warn, explicit=any(root.argument.explicit for root in roots))
        if file.merged:
            touched.update(further_files.paths_of(file, trees))
    return found, touched


def other_forms(
    words: Sequence[str],
    start: int,
    trees: Sequence[Any],
    known: Sequence[Override],
    *,
    configs: Iterable[int] = (),
    warn: Callable[[str], object] | None = None,
) -> tuple[Override, ...]:
    """The words that override a key of the configs in another form than `key=value`.

    Args:
        words: The command's words.
        start: Index of the first word that may be an override.
        trees: The configs.
        known: The overrides in the form `key=value`, read already.
        configs: Indices of the words that name the configs.
        warn: Called for each word that may be meant for `run`, but may be the script's own as well.

    Raises:
        LaunchError: A word overrides a key of `run` in a form that cannot be applied.
    """
    mappings = [tree for tree in trees if isinstance(tree, dict)]
    if not mappings:
        return ()
    read = {override.index for override in known}
    has_run = any(isinstance(tree.get("run"), dict) for tree in mappings)
    found = _below_a_name(known, mappings, has_run=has_run)
    for index in range(start, len(words)):
        if index in read:
            continue
        following = word_at(words, index + 1)
        if has_run and _MAPPING.search(f"{words[index]}={following}" if words[index] == "--run" else words[index]):
            raise _not_applied(words[index], "run.KEY", None)
        for name, value in _lines_of_run(words[index]) if has_run else ():
            if _bears_on(("run", name), mappings):
                raise _not_applied(words[index], f"run.{name}", value)
        for key, text, dashed, sure in _keys(words[index], following):
            for path in _paths(key, mappings, dashed=dashed):
                if path[0] == "run" and path != _path(key) and not _stands(path, mappings):
                    continue  # `--mlflow.run.id` means another program's run
                about_run = path[0] == "run" and len(path) > 1
                value = text if text is not None else following
                if (
                    about_run
                    and has_run
                    and (dashed or text is not None)
                    and sure
                    and _bears_on(path, mappings)
                    and _is_meant(path, value)
                ):
                    raise _not_applied(words[index], ".".join(path), value)
                if not about_run and _is_key(path, mappings, named=dashed or text is not None):
                    found.append(Override(index, words[index], "", key, path, text))
    if has_run and start < len(words):
        applied = {override.index for override in known if override.is_about_run}
        _look_for_run(words, start, RunWords(mappings), {*applied, *configs}, warn)
    return tuple(found)


def _look_for_run(
    words: Sequence[str],
    start: int,
    run: RunWords,
    skipped: set[int],
    warn: Callable[[str], object] | None,
) -> None:
    """Refuse a word that surely means a key of `run`, and warn of a word that may.

    Raises:
        LaunchError: A word can hardly mean anything but a key of `run`.
    """
    places = [(words, index) for index in range(start, len(words)) if index not in skipped]
    places += [(more, index) for _, more in words_of_files(words, start) for index in range(len(more))]
    for line, index in places:
        meant = run.find(line, index)
        if meant is None:
            continue
        if meant.sure:
            raise _not_applied(line[index], meant.key, meant.text)
        if warn is not None:
            warn(
                f"{line[index]} may be meant for {meant.key}, and nemotron-exec does not apply it. If it is, write "
                f"{meant.key}={meant.text or 'name:version'}"
            )


def _below_a_name(known: Sequence[Override], mappings: Sequence[Any], *, has_run: bool) -> list[Override]:
    """Overrides of a script that holds its config under a further name: `cfg.root=/o`."""
    found = []
    for override in known:
        path = override.path[1:]
        if not path or override.sign == "+" or any(override.path[0] in tree for tree in mappings):
            continue
        if override.path[0] == "hydra":
            continue  # `hydra.run.dir` is Hydra's own
        about_run = path[0] == "run" and len(path) > 1
        if about_run and has_run and _stands(path, mappings) and _is_meant(path, override.text):
            raise _not_applied(override.word, ".".join(path), override.text)
        if not about_run and _is_key(path, mappings, named=True):
            found.append(replace(override, path=path))
    return found


def refuse_stranded(words: Sequence[str], overrides: Sequence[Override]) -> None:
    """Refuse a `run.*` override that is the only value of an option: without it the option would have no value.

    Raises:
        LaunchError: An override is such a value.
    """
    for override in overrides:
        if not override.is_about_run or not 1 <= override.index < len(words):
            continue
        after = word_at(words, override.index + 1) or "-"
        if words[override.index - 1].startswith("--") and words[override.index - 1] != "--" and after.startswith("-"):
            raise _not_applied(f"{words[override.index - 1]} {override.word}", override.key, override.text)


def _not_applied(word: str, key: str, text: str | None) -> LaunchError:
    return LaunchError(
        f"to apply {' '.join(word.split())}",
        "an override of the run section is read only as a word of its own, without dashes and behind no option",
        f"Write {key}={text or 'name:version'}",
    )


def _keys(word: str, following: str | None) -> Iterator[tuple[str, str | None, bool, bool]]:
    """The names in a word that may be keys.

    Each comes with its value (None for none), whether it is written as an option, and whether it is surely a key.
    `data:x` is not surely a key: it may be a name and a version.
    """
    # Try the whole word first, because a value may hold separators: `--root=${art:data,path}`.
    tokens = dict.fromkeys([word, *(token for token in _SPLIT.split(word) if token)])
    for token in tokens:
        rest = token[1:].rstrip("]") if token.startswith("[") else token
        while rest:
            match = _TOKEN.match(rest)
            if match is None:
                break
            sign, key, equals, text = match.groups()
            dashed = bool(sign) and sign.startswith("-")
            if equals:
                yield key, text, dashed, equals != ":"
                if sign == "-" and len(key) > 1:  # `-oroot=/o`
                    yield key[1:], text, dashed, equals != ":"
                rest = text
                continue
            if not text and (dashed or "{" in word or following is not None):
                yield key, None, dashed or "{" in word, True
            break


def _paths(key: str, mappings: Sequence[Any], *, dashed: bool) -> Iterator[tuple[str, ...]]:
    """The paths that a key may mean.

    argparse writes `--seq-length` for `seq_length`, and accepts `--seq` for it. A script may hold its config under a
    further name: `--config.root`.
    """
    for name in dict.fromkeys((key, key.replace("-", "_"))):
        path = _path(name)
        if not path:
            continue
        yield path
        if len(path) > 1 and not any(path[0] in tree for tree in mappings):
            yield path[1:]
        if dashed and len(path) == 1 and len(name) > 1:
            for tree in mappings:
                yield from ((other,) for other in tree if str(other) != name and str(other).startswith(name))


def _path(name: str) -> tuple[str, ...]:
    return tuple(part for part in split_key(name.replace("/", ".")) if part)


def _is_key(path: tuple[str, ...], mappings: Sequence[Any], *, named: bool) -> bool:
    """Whether a config has the key, or a mapping that would take it.

    A bare word counts only if the key has a plain value: `train` in front of a file may be a command of the script.
    """
    for tree in mappings:
        node: Any = tree
        for number, part in enumerate(path):
            if isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            elif number and isinstance(node, dict) and named:
                return True
            else:
                break
        else:
            if named or not isinstance(node, dict):
                return True
    return False


def _bears_on(path: tuple[str, ...], mappings: Sequence[Any]) -> bool:
    """Whether a config has this key below `run`, or the launcher reads the key as a setting."""
    return path[1] in SETTINGS or any(isinstance(tree.get("run"), dict) and path[1] in tree["run"] for tree in mappings)


def _is_meant(path: tuple[str, ...], value: str | None) -> bool:
    """Whether the value is possible for the key of `run`. An artifact cannot be 5, so `run.data=5` may be a note."""
    return path[1] in SETTINGS or len(path) > 2 or not value or value.startswith("-") or is_reference(value)


def _lines_of_run(word: str) -> Iterator[tuple[str, str | None]]:
    """The keys below `run:` in a word that holds several lines of YAML, each with its value."""
    if "\n" not in word or "run" not in word:
        return
    try:
        tree = parse_text(word, "the command").tree()
    except LaunchError:
        return
    section = tree.get("run") if isinstance(tree, dict) else None
    for key, node in section.items() if isinstance(section, dict) else ():
        yield str(key), node.value if isinstance(node, Scalar) else None


def _stands(path: tuple[str, ...], mappings: Sequence[Any]) -> bool:
    return _is_key(path, mappings, named=False)
