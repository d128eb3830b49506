r"""Fills in the `${art:…}` in the value of an override, and leaves every other byte as it is.

Both possible readers must still read the value that was meant. Hydra's grammar has sweeps (`a,b`), functions
(`choice(a,b)`) and escapes (`epoch\=1`). OmegaConf's dot-lists read a value as YAML. Where no text is surely right for
both, the expression stays, and the injector's resolver gives its value in the job.
"""

from __future__ import annotations

from nemotron_exec.config.interpolation_span import end_of_interpolation
from nemotron_exec.document.document import Scalar, tag_of
from nemotron_exec.document.edit import Whole
from nemotron_exec.document.literal import UnwritableError, escape, grammar_literal, yaml_literal
from nemotron_exec.document.parse import parse_text
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from nemotron_exec.document.edit import Edit

__all__ = ["fill", "interpolations_in"]

# hydra/grammar/OverrideLexer.g4: these functions take the value of the interpolation as an element. All others (casts,
# ranges, sort, glob) look at the text of their arguments.
_FUNCTIONS = frozenset({"choice", "tag", "shuffle", "extend_list"})
_ID = pattern(r"[A-Za-z_][A-Za-z0-9_\-]*\Z")
_TYPED = pattern(
    r"[+-]?(?:(?:0|[1-9](?:_?\d)*)?(?:\.(?:\d(?:_?\d)*)?)?(?:[eE][+-]?\d(?:_?\d)*)?|[Ii][Nn][Ff]|[Nn][Aa][Nn])\Z"
    r"|(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Nn][Uu][Ll][Ll])\Z"
)
_UNQUOTED = pattern(r"[A-Za-z0-9_/\-+.$%*@?| ]*\Z")
_ESCAPED = "()[]{}:=,"
_PLAIN = pattern(r"[A-Za-z0-9_/.+\-]*\Z")
_PAIR = pattern(r"""\A\s*[^\s{\["'][^\n]*:(?:\s|\Z)""")
_WORD = pattern(r"[A-Za-z_/][A-Za-z0-9_/.+\-]*\Z")


@dataclass(frozen=True)
class _Element:
    """One primitive of the value: the text between its commas, brackets and parentheses.

    Attributes:
        start: Index of its first character, after blanks.
        end: Index after its last character, before blanks.
        spans: The interpolations in it, without those that are escaped.
        open: The containers around it, outermost first: `[`, `{`, or the name of a function.
        odd: Whether OmegaConf would read one of its backslashes as an escape in the replaced text.
        glued: Whether a closing bracket stands directly before it. Hydra reads no such value, and YAML reads a quote in
            it as text.
    """

    start: int
    end: int
    spans: tuple[tuple[int, int], ...]
    open: tuple[str, ...]
    odd: bool
    glued: bool = False


def interpolations_in(text: str) -> list[str]:
    """The interpolations of a value, without escaped ones and without those inside another."""
    elements = _elements(text)
    if elements is None:
        return [text]
    return [text[start:end] for element in elements for start, end in element.spans]


def fill(text: str, replace: Callable[[str], Edit | None], *, hydra: bool) -> str:
    """The value with its interpolations replaced.

    Args:
        text: The text after the `=` of the override.
        replace: Returns the edit of one interpolation; None where it stays.
        hydra: Whether the program is known to be Hydra's. If not, the value may be read as YAML.
    """
    elements = _elements(text)
    if elements is None or (not hydra and _PAIR.search(text)):
        return text  # for YAML `a${art:d,size}: b` is a mapping, and OmegaConf resolves nothing in a key
    swept = len([element for element in elements if not element.open]) > 1
    pieces = []
    position = 0
    for element in elements:
        if not element.spans:
            continue
        # Only Hydra splits a value outside of brackets into elements. For YAML it is one text.
        alone = hydra or not (swept or element.glued or any(name not in "[{" for name in element.open))
        new = _Filler(text, element, replace, alone=alone).text()
        if new is not None:
            pieces += [text[position : element.start], new]
            position = element.end
    rest = text[position:]
    if hydra and pieces and pieces[-1][-1:] in ("'", '"', "]", "}"):
        rest = rest if rest.strip(" \t") else ""  # Hydra accepts no blank after the last quote or bracket
    return "".join([*pieces, rest])


class _Filler:
    def __init__(self, text: str, element: _Element, replace: Callable[[str], Edit | None], *, alone: bool) -> None:
        self._element = element
        self._source = text[element.start : element.end]
        self._spans = [(start - element.start, end - element.start) for start, end in element.spans]
        self._replace = replace
        self._alone = alone

    def text(self) -> str | None:
        """The new text of the element; None where it stays as it is."""
        if self._element.odd or any(name not in _FUNCTIONS and name not in "[{" for name in self._element.open):
            return None
        edits = [self._replace(self._source[start:end]) for start, end in self._spans]
        if not any(edits):
            return None
        quote = self._source[0] if self._source[0] in "'\"" else ""
        first, last = len(quote), len(self._source) - len(quote)
        if self._spans == [(first, last)]:
            return self._whole(edits[0], quote)
        return self._mixed(edits, quote)

    def _whole(self, edit: Edit | None, quote: str) -> str | None:
        """The new text of an element that is one interpolation, quoted or not."""
        if edit is None:
            return None
        if not isinstance(edit, Whole):
            return None if quote and _spoils(edit.text, quote) else quote + edit.text + quote
        value = edit.value
        if isinstance(value, str) and quote and not _spoils(value, quote) and "${" not in value:
            return quote + value + quote
        if not self._alone:
            # YAML counts the quotes as part of the text, and Hydra does not. For Hydra the word `None` is a text.
            plain = not quote and value is not None and not isinstance(value, (list, dict))
            return str(value) if plain and str(value) and _PLAIN.match(str(value)) else None
        try:
            return _literal(value)
        except UnwritableError:
            return None

    def _mixed(self, edits: list[Edit | None], quote: str) -> str | None:
        """The new text of an element that mixes text and interpolations. It must stay a text."""
        values = [str(edit.value) if isinstance(edit, Whole) else None for edit in edits]
        texts = [
            value if value is not None else self._source[start:end] if edit is None else edit.text  # type: ignore[union-attr]
            for (start, end), edit, value in zip(self._spans, edits, values, strict=True)
        ]
        own = [value for value in values if value is not None]
        if any("${" in value or "\\" in value for value in own):
            return None
        if quote:
            return None if any(_spoils(one, quote) for one in texts) else self._join(texts)
        joined = self._join(texts)
        if all(map(_PLAIN.match, own)) and self._is_text(joined) and joined.strip() == joined != "":
            return joined
        if self._alone and "\\" not in self._source and not any(q in joined for q in "\"'"):
            return f'"{joined}"'
        if self._alone and all(_UNQUOTED.match(char) or char in _ESCAPED for value in own for char in value):
            escaped = [_escape(text) if value is not None else text for text, value in zip(texts, values, strict=True)]
            joined = self._join(escaped)
            return joined if self._is_text(joined) and joined == joined.strip() else None
        return None

    def _join(self, texts: list[str]) -> str:
        pieces = []
        position = 0
        for (start, end), text in zip(self._spans, texts, strict=True):
            pieces += [self._source[position:start], text]
            position = end
        return "".join([*pieces, self._source[position:]])

    def _is_text(self, joined: str) -> bool:
        """Whether both readers read the new text as a string, as they read the old one."""
        if _TYPED.match(joined):
            return False
        if "\\" in joined or self._element.open or not self._alone:
            return True
        return _is_text_in_yaml(joined)


def _is_text_in_yaml(joined: str) -> bool:
    try:
        root = parse_text(joined, joined).root
    except LaunchError:
        return True  # the original value was no YAML either
    return not isinstance(root, Scalar) or tag_of(root).endswith(":str")


def _spoils(text: str, quote: str) -> bool:
    """Whether a text cannot stand between these quotes unescaped."""
    return quote in text or "\\" in text or "\n" in text


def _escape(value: str) -> str:
    """The text, escaped for Hydra outside of quotes."""
    return "".join(f"\\{char}" if char in _ESCAPED else char for char in value)


def _literal(value: Any) -> str:
    """A literal that Hydra's grammar and YAML read alike. It is quoted unless it is a plain path or word."""
    if isinstance(value, str):
        if _WORD.match(value) and yaml_literal(value) == value:
            return value
        escaped = escape(value)
        if "\\" in escaped and "'" not in escaped and not escaped.endswith("\\"):
            return f"'{escaped}'"  # in double quotes YAML would read the backslash as an escape
    return grammar_literal(value)


def _elements(text: str) -> list[_Element] | None:
    """The primitives of a value; None where it does not follow Hydra's grammar."""
    try:
        return list(_scan(text))
    except ValueError:
        return None


def _scan(text: str) -> Iterator[_Element]:
    open_: list[str] = []
    keys: list[bool] = []  # for each container, whether the key of a pair comes next
    spans: list[tuple[int, int]] = []
    start = position = 0
    odd = glued = False

    def element(end: int) -> Iterator[_Element]:
        source = text[start:end]
        blank = len(source) - len(source.lstrip(" \t"))
        stop = start + len(source.rstrip(" \t"))
        if spans:
            yield _Element(start + blank, stop, tuple(spans), tuple(open_), odd or text[stop - 1] == "\\", glued)
        elif not open_:  # outside of a container each element counts, also without an interpolation
            yield _Element(stop, stop, (), (), odd)

    while position < len(text):
        char = text[position]
        here = position
        position += 1
        before = text[start:here].strip(" \t")
        if char == "\\":
            while position < len(text) and text[position] == "\\":
                position += 1
            if text.startswith("${", position):
                position = end_of_interpolation(text, position)
                odd = True
            elif (position - here) % 2:
                position += 1
        elif text.startswith("${", here):
            position = end_of_interpolation(text, here)
            spans.append((here, position))
        elif char in "'\"" and not before:
            end = _end_of_quoted(text, here)
            inside, escaped = _spans_in(text, here + 1, end - 1)
            spans += inside
            odd = odd or escaped
            position = end
        elif char == "(" and _ID.match(before) and not spans:
            open_.append(before)
            keys.append(False)
            start, odd, glued = position, False, False
        elif char in "[{" and not before:
            open_.append(char)
            keys.append(char == "{")
            start, odd, glued = position, False, False
        elif char in ")]}" and (open_ or char != ")"):
            yield from element(here)
            if not open_ or {"[": "]", "{": "}"}.get(open_.pop(), ")") != char:
                raise ValueError(text)
            keys.pop()
            spans, odd, glued = [], False, True
            start = position
        elif char == "," or (char == ":" and keys and keys[-1] and not spans):
            yield from element(here)
            if keys:
                keys[-1] = open_[-1] == "{" and char == ","
            spans, odd, glued = [], False, False
            start = position
        elif char == "=" and open_ and open_[-1] not in "[{" and _ID.match(before):
            start = position
    if open_:
        raise ValueError(text)
    yield from element(len(text))


def _spans_in(text: str, start: int, end: int) -> tuple[list[tuple[int, int]], bool]:
    """The interpolations between quotes, and whether one is escaped or the text ends in a backslash."""
    spans = []
    escaped = text[end - 1 : end] == "\\" if end > start else False
    position = start
    while (at := text.find("${", position, end)) >= 0:
        position = end_of_interpolation(text, at)
        if position > end:
            raise ValueError(text)
        if at > start and text[at - 1] == "\\":
            escaped = True
        else:
            spans.append((at, position))
    return spans, escaped


def _end_of_quoted(text: str, start: int) -> int:
    """The index after the quote that closes the quote at `start`."""
    position = start + 1
    while position < len(text):
        if text[position] == "\\":
            position += 2
        elif text[position] == text[start]:
            return position + 1
        else:
            position += 1
    raise ValueError(text)
