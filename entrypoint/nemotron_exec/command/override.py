"""Reads overrides. This module alone decides whether a word of the command is one.

An override is `[~|+|++] key[@package] [= value]`, as Hydra reads it (hydra/grammar/OverrideParser.g4). OmegaConf's
dot-lists and NeMo-RL's overrides are a part of that grammar. A word without `=` is an override only after `~`: `run.py`
is a file name.
"""

from __future__ import annotations

import re

from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Override", "parse_option", "parse_override", "parse_overrides", "split_key"]

_WORD = pattern(r"(\+\+|\+|~)?([A-Za-z_][\w.\-/@:$\[\]]*)(?:=(.*))?\Z", re.DOTALL)

_OPTION = pattern(r"--([A-Za-z_]\w*(?:\.\w+)+)(?:=(.*))?\Z", re.DOTALL)

# omegaconf/_utils.py `split_key`
_HEAD = pattern(r"[^.[]*")
_OTHER = pattern(r"\.([^.[]*)|\[(.*?)\]")


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        index: Position of the word in argv; -1 where it comes from elsewhere.
        word: As written.
        sign: "", "+", "++" or "~".
        group: The key as written, without its package: for a Hydra group, the folder of its files.
        path: The key of the config that the override changes, split.
        text: The text after the `=`; None where there is none.
        alone: Whether the word holds only the value, after an option (`--dataset.path VALUE`).
    """

    index: int
    word: str
    sign: str
    group: str
    path: tuple[str, ...]
    text: str | None
    alone: bool = False

    def with_text(self, text: str) -> str:
        """The word with another value."""
        return text if self.alone else f"{self.key}={text}"

    @property
    def is_about_run(self) -> bool:
        """Whether it changes the `run` section, which nemotron-exec applies. All others belong to the script."""
        if self.path[0] != "run":
            return False
        # The script gets `run=fast` as it is: a `run` section is a mapping.
        return len(self.path) > 1 or self.sign == "~" or (self.text or "").lstrip().startswith("{")

    @property
    def key(self) -> str:
        """The word before the `=`, with sign and package."""
        return self.word if self.text is None else self.word[: len(self.word) - len(self.text) - 1]


def parse_override(index: int, word: str) -> Override | None:
    """Read a word of the command, or None if it is no override."""
    match = _WORD.match(word)
    if match is None:
        return None
    sign, key, text = match.groups()
    if (text is None and sign != "~") or key.endswith(":"):
        return None
    # A Hydra key may name a package: group@package. The override changes the keys of that package.
    group, _, package = key.partition("@")
    package = package.rpartition(":")[2]  # `db@from:to` moves the group to the package `to`
    path = tuple(part for part in split_key((package or group).replace("/", ".")) if part)
    return Override(index, word, sign or "", group, path, text) if path else None


def parse_option(words: Sequence[str], index: int) -> Override | None:
    """Read `--a.b VALUE`, `--a.b=VALUE` or `--a.b` at an index of the command; None if it is no override.

    NeMo Automodel (components/config/_arg_parser.py), jsonargparse and tyro take overrides in this form. An option
    without a dot in its name belongs to the script, and so does an option about `run`.
    """
    match = _OPTION.match(words[index])
    if match is None:
        return None
    key, text = match.groups()
    path = tuple(key.split("."))
    if path[0] == "run":
        return None
    if text is not None:
        return Override(index, words[index], "", key, path, text)
    following = words[index + 1] if index + 1 < len(words) else "--"
    if following.startswith("--"):
        return Override(index, words[index], "", key, path, "true", alone=True)
    return Override(index + 1, following, "", key, path, following, alone=True)


def parse_overrides(words: Iterable[str], start: int = 0) -> tuple[Override, ...]:
    """The overrides among `words`; `start` is the index of the first word in the command."""
    parsed = (parse_override(index, word) for index, word in enumerate(words, start))
    return tuple(override for override in parsed if override is not None)


def split_key(key: str) -> list[str]:
    """The keys of a path: `a.b[0]` as `["a", "b", "0"]`."""
    head = _HEAD.match(key)
    assert head is not None
    keys = [] if key.startswith("[") else [head.group()]
    keys.extend(next(name for name in match.groups() if name is not None) for match in _OTHER.finditer(key, head.end()))
    return keys
