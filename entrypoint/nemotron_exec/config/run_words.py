"""Finds words of the command that mean a key of `run`, in a form that the launcher does not apply.

A word that can hardly mean anything else is refused. Any other stops no job: `--data base:v1` may be the script's own.
"""

from __future__ import annotations

import re

from nemotron_exec.artifacts.reference import looks_like_reference
from nemotron_exec.command.words import word_at
from nemotron_exec.config.touched import names_in, normal, parts_of
from nemotron_exec.document.document import Scalar
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

__all__ = ["Misplaced", "RunWords", "is_reference"]

_VALUE = pattern(r"[^\s,;{}()\[\]]*")
_ALIAS = pattern(r"(?:[\w.+-]+/)*[A-Za-z_][\w.+-]*:[A-Za-z_][\w.-]*\Z")
_ASSIGNS = ("=", "==", ":=", "+=", ":", "->", "=>", "to")
_WEAK = pattern(r"run[-_]+(?P<key>.+)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Misplaced:
    """A word that means a key of `run`.

    Attributes:
        key: The key in the form that the launcher applies.
        text: The value, if the word has one.
        sure: Whether the word can hardly mean anything else.
    """

    key: str
    text: str | None
    sure: bool


class RunWords:
    """Finds the words that mean a key of the `run` sections.

    Args:
        trees: The configs.
    """

    def __init__(self, trees: Sequence[Any]) -> None:
        self._top = {normal(str(key)) for tree in trees for key in tree if key != "run"}
        self._keys: dict[tuple[str, ...], tuple[str, bool]] = {}  # normal form -> as written, and if an artifact
        self._texts: dict[str, set[str]] = {}  # normal form of a first-level key -> its values
        for tree in trees:
            if isinstance(tree.get("run"), dict):
                self._note((), (), tree["run"])

    def _note(self, names: tuple[str, ...], written: tuple[str, ...], node: Any) -> None:
        for key, value in node.items():
            if not names and isinstance(value, Scalar):
                self._texts.setdefault(normal(str(key)), set()).add(value.value)
            here, path = (*names, normal(str(key))), (*written, str(key))
            self._keys.setdefault(here, (".".join(("run", *path)), not names and _is_artifact(value)))
            if isinstance(value, dict):
                self._note(here, path, value)

    def find(self, words: Sequence[str], index: int) -> Misplaced | None:
        """The key of `run` that a word means, judged with the words before and after it; None if it means none."""
        word = words[index]
        if not self._keys or word.startswith("+"):
            return None
        before = words[index - 1] if index else ""
        following = word_at(words, index + 1) or ""
        if following in _ASSIGNS:
            following = word_at(words, index + 2) or following
        pair = word.split() if " " in word or "\t" in word else ()
        if len(pair) == 2 and (one := self.find(pair, 0)) is not None and one.sure:
            return one
        found = None
        for name, text, mark, option in _candidates(word, following, before):
            one = self._meant(parts_of(name), text, mark=mark, option=option, before=before)
            if one is not None and one.sure:
                return one
            found = found or one
        return found

    def _meant(
        self, parts: Sequence[str], text: str | None, *, mark: str, option: bool, before: str
    ) -> Misplaced | None:
        names = tuple(map(normal, parts))
        fits = text is not None and is_reference(text)
        for at, name in enumerate(names):
            if name != "run" or (at and (names[0] in self._top or names[0] == "hydra")):
                continue
            key, is_artifact = self._keys.get(names[at + 1 :], ("", False))
            if key and (fits or mark != ":"):
                return Misplaced(key, text, is_artifact and fits)
        weak = _WEAK.match(parts[-1]) if parts and names[-1] not in self._top else None
        key, is_artifact = self._keys.get((normal(weak["key"]),), ("", False)) if weak else ("", False)
        if is_artifact and (option or "=" in mark):
            return Misplaced(key, text, fits)
        key, is_artifact = self._keys.get(names, ("", False))
        if is_artifact and fits and names[0] not in self._top and mark != ":":
            return Misplaced(key, text, before.startswith("-") and normal(before) == "run")
        return None

    def is_other_version(self, key: str, value: object) -> bool:
        """Whether a key is an artifact of the configs, and they do not give it this value."""
        _, is_artifact = self._keys.get((normal(key),), ("", False))
        return is_artifact and isinstance(value, str) and value not in self._texts.get(normal(key), ())

    def is_other_artifact(self, key: str, value: object) -> bool:
        """Whether the value is another artifact, not another version: a lock pins what a config calls `latest`."""
        texts = self._texts.get(normal(key), ())
        return self.is_other_version(key, value) and _name_of(str(value)) not in map(_name_of, texts)

    def may_be_artifact(self, key: str, value: object) -> bool:
        """Whether a key that the configs do not have gets a reference as its value."""
        return (normal(key),) not in self._keys and isinstance(value, str) and is_reference(value)


def _candidates(word: str, following: str, before: str) -> Iterator[tuple[str, str | None, str, bool]]:
    """Names that may be keys, each with its value, the mark between them, and whether it is written as an option."""
    for match in names_in(word):
        name, mark = match["name"], match["mark"]
        option = match["sign"][:1] == "-" and match.start() == 0
        if mark:
            rest = match.string[match.end() :].lstrip(" \t=>")
            yield name, _value(rest if rest or mark != ":" else following), mark, option
        elif match[0] == match.string:
            value = following if following and not following.startswith("-") else None
            # After an option a dotted name without a reference is a value: `--out run.data` names a file.
            if option or ("." in name and value is not None and (not before.startswith("-") or is_reference(value))):
                yield name, value, "", option
        for at in re.finditer(":|->", name):
            yield name[: at.start()], _value(match.string[match.start("name") + at.end() :]), at[0], option


def _value(rest: str) -> str:
    found = _VALUE.match(rest)
    return found[0] if found else ""


def _name_of(text: str) -> str:
    """A reference without its alias or revision."""
    mark = "@" if text.startswith("hf://") else ":"
    name, found, alias = text.strip().rpartition(mark)
    return name if found and "/" not in alias else text.strip()


def _is_artifact(node: Any) -> bool:
    if isinstance(node, Scalar):
        return node.is_expression or is_reference(node.value)
    return isinstance(node, dict) and "hf" in node


def is_reference(text: str) -> bool:
    """Whether a text reads as a reference; the alias may be any word."""
    return looks_like_reference(text) or _ALIAS.match(text) is not None
