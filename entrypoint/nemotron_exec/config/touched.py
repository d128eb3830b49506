"""Finds the keys of the configs that a word of the command may change, whatever parser the script has.

Parsers write a key differently. argparse takes `--roo` and `-r` for `--root`, absl has `--noroot`, tyro and click write
`--seq-length`, pydantic `MODEL__SEQ_LENGTH`, jsonargparse leaves out `init_args`, flat parsers leave out the section.

A key counted by mistake costs little: its expressions are resolved in the job instead. A missed key would give a wrong
value silently. So names are compared without case, `-` and `_`, and the last name of a key is enough.
"""

from __future__ import annotations

import re

from nemotron_exec.command.words import word_at
from nemotron_exec.command_scan import is_yaml_name, read_regular
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from nemotron_exec.config.evaluate import Path

__all__ = ["names_in", "normal", "parts_of", "stands", "touched_paths", "words_of_files"]

_QUOTES = pattern(r"""["'`\\]+""")
_SPACED = pattern(r"\s*([:+?!*/|^~.%@-]{0,2}=+>?|->|<-)\s*")
_BETWEEN = r"(?:[./@$\[\]]|::?|->)+"
_CHAR = r"(?:\w|-(?!>))"
_NAMES = pattern(
    rf"(?<![\w.])(?P<sign>[-/+.@:!^%~$]{{0,2}})(?P<name>[A-Za-z_]{_CHAR}*(?:{_BETWEEN}{_CHAR}+)*)\]*"
    r"(?P<mark>[:+?!*/|^~.%@-]{0,2}=|:|->|<-)?"
)
_STRONG = pattern(rf"{_BETWEEN}|__+")
_ENDS = pattern(r"[:@]|->")
_ATOM = pattern(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_LETTERS = pattern(r"[A-Za-z]+")
_PAIR = pattern(r"[\w.]+[:+]?=")
# A parser may write one of these before the name of a key: `--cfg-root`, `--no-root`, `--set-root`.
_PREFIX = pattern(
    r"(?:app|args?|cfg|conf(?:ig)?|disable|enable|env|flags?|hparams?|new|no|opts?|options?|overrides?|params?|set"
    r"|settings?|unset|use|with|without)[-_]+(?=\w)",
    re.IGNORECASE,
)
# Options that name a file of further words: absl's --flagfile, argparse's fromfile_prefix_chars, and common names in
# scripts.
_WORDS_IN = pattern(r"--?(?:flags?|args?|arguments?|opts?|options?|params?|overrides?)[-_]?files?\Z", re.IGNORECASE)
_MAX_BYTES = 1 << 16


def names_in(word: str) -> Iterator[re.Match[str]]:
    """The names in a word without its quotes, each with the sign before it and the mark of a value after it."""
    return _NAMES.finditer(_SPACED.sub(r"\1", _QUOTES.sub("", word)))


def parts_of(name: str) -> list[str]:
    """The parts of `a.b[0]`, `a/b/0` or `a__b__0`."""
    return [part for part in _STRONG.split(name) if part]


def normal(name: str) -> str:
    """A name without case, `-` and `_`: `seq_length`, `--seq-length` and `seqLength` become equal."""
    return name.replace("-", "").replace("_", "").lower()


def words_of_files(words: Sequence[str], start: int) -> list[tuple[int, list[str]]]:
    """The words in files that the command names as a source of further words: `@args.txt`, `--flagfile=flags.txt`.

    Each with the index of the word that names the file.
    """
    found = []
    for index in range(start, len(words)):
        word = words[index]
        option, equals, path = word.partition("=")
        if word.startswith("@"):
            path = word[1:]
        elif not equals:
            option, path = words[index - 1], word
        if not path or is_yaml_name(path) or not (word.startswith("@") or _WORDS_IN.match(option)):
            continue
        text = (read_regular(path, _MAX_BYTES) or b"").decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        found.append((index, [one for line in lines for one in line.split()]))
    return found


def touched_paths(words: Sequence[str], start: int, trees: Sequence[Any], known: Iterable[int]) -> set[Path]:
    """The paths of the configs that the words may change.

    Args:
        words: The command's words.
        start: Index of the first word that may change a key.
        trees: The configs.
        known: Indices of words whose meaning is known already.
    """
    asked = _Asked(trees)
    skipped = set(known)
    for index in range(start, len(words)):
        # An option before the name of a config takes it as its value: `-c cfg.yaml`.
        if index not in skipped and not (index + 1 in skipped and words[index].startswith("-")):
            asked.read(words[index], word_at(words, index + 1) or "")
    for _, more in words_of_files(words, start):
        for index, word in enumerate(more):
            asked.read(word, word_at(more, index + 1) or "")
    return asked.paths()


class _Asked:
    """Collects the names in words, in normal form, and finds the keys of the configs that these may mean."""

    def __init__(self, trees: Sequence[Any]) -> None:
        self._trees = trees
        self._exact: set[Path] = set()
        self._named: set[str] = set()
        self._bare: set[str] = set()  # possible values of an option, too: they count only for keys of plain values
        self._starts: set[str] = set()
        self._letters: set[str] = set()  # single letters, or initials of a name

    def read(self, word: str, following: str) -> None:
        """Collect the names in a word."""
        structured = "{" in word or word[:1] in "[("
        pieces = word.split()
        for match in names_in(word):
            sign, name, mark = match["sign"], match["name"], match["mark"]
            first = match.start() == 0
            option = sign[:1] == "-"
            # argparse and click accept `/root`, `+root` and `@root` if a script wants them. `/data/root` is a path.
            other = first and len(sign) == 1 and sign != "." and name.isidentifier()
            named = option or mark is not None or structured or other
            # The name may be the value of an option: `--unset=root`.
            value = not sign and match.string[0] == "-" and match.string[: match.start()].endswith("=")
            alone = (first or value) and match.end() == len(match.string) and "/" not in sign + name
            # yacs takes pairs, `'root /o lr 1'`. `'a root of b'` is prose.
            paired = len(pieces) > 1 and name in pieces[::2]
            ends = [at.start() for at in _ENDS.finditer(name)] if first or named else []
            if named or alone or paired:
                ends.append(len(name))
            if first and option:
                self._short(sign, name)
            for end in ends:
                self._name(
                    parts_of(name[:end]),
                    # A name before pairs is the mapping that takes them: `model name=x seq_length=4`.
                    named=named or end < len(name) or (alone and _PAIR.match(following) is not None),
                    option=option and end == len(name),
                )

    def _short(self, sign: str, name: str) -> None:
        letters = _LETTERS.match(name)
        if sign == "-" and letters is not None:
            cluster = letters[0].lower()
            self._letters |= {cluster, cluster[0], *(cluster if len(cluster) < 4 else "")}
            self._name(parts_of(name[1:]), named=True, option=False)  # `-Droot=/o`
        elif letters is not None and len(name) < 5:
            self._letters.add(name.lower())

    def _name(self, parts: Sequence[str], *, named: bool, option: bool) -> None:
        """Collect a key in all its forms, with and without the words that a parser may put before it."""
        if len(parts) > 1 and stands(parts, self._trees):
            self._exact.add(tuple(parts))
            return
        for number, part in enumerate(parts):
            rest = "".join(map(normal, parts[number + 1 :]))
            found = {normal(part) + rest}
            if prefix := _PREFIX.match(part):
                found.add(normal(part[prefix.end() :]) + rest)
            if not rest and normal(part).startswith("no"):
                found.add(normal(part)[2:])
            found.discard("")
            (self._named if named else self._bare).update(found)
            if option:
                self._starts |= found

    def paths(self) -> set[Path]:
        """The paths of the configs that the collected names may mean."""
        if not (self._named or self._bare or self._letters):
            return self._exact
        starts = tuple(start for start in self._starts if len(start) > 1)
        singles = self._letters | self._starts
        forms: dict[Any, tuple[str, str]] = {}
        found = set(self._exact)
        pending: list[tuple[Path, tuple[str, ...], Any]] = [((), (), tree) for tree in self._trees]
        while pending:
            above, before, node = pending.pop()
            for key, value in node.items() if isinstance(node, dict) else enumerate(node):
                if not above and key == "run":
                    continue
                form, initials = forms.get(key) or forms.setdefault(key, _forms(str(key)))
                path, names = (*above, key), (*before, form)
                is_plain = not isinstance(value, (dict, list))
                if not is_plain:
                    pending.append((path, names, value))
                if (
                    initials in self._letters
                    or (not above and form[:1] in singles)
                    or any(
                        joined in self._named or (is_plain and joined in self._bare) or joined.startswith(starts)
                        for joined in ("".join(names[at:]) for at in range(len(names)))
                    )
                ):
                    found.add(path)
        return found


def _forms(key: str) -> tuple[str, str]:
    """A name in normal form, and its initials if it has several words: `-bs` for `batch_size`."""
    atoms = _ATOM.findall(key)
    return normal(key), "".join(atom[0] for atom in atoms).lower() if len(atoms) > 1 else ""


def stands(parts: Sequence[str], trees: Sequence[Any]) -> bool:
    """Whether one of the configs has exactly this key."""
    return any(_stands(parts, tree) for tree in trees)


def _stands(parts: Sequence[str], tree: Any) -> bool:
    for part in parts:
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict) and part in tree:
            tree = tree[part]
        else:
            return False
    return True
