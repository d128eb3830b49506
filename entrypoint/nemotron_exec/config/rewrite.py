"""Decides which parts of an expression become literals: artifacts, and parts that depend on them.

A scalar that an alias repeats stands at several paths. A part of it is replaced only if its value is the same at all of
them.
"""

from __future__ import annotations

import re

from nemotron_exec.config.evaluate import ARITHMETIC, Evaluator, Path, Value
from nemotron_exec.document.edit import Edit, Retext, Whole
from nemotron_exec.document.literal import UnwritableError, escape, grammar_literal
from nemotron_exec.errors import LaunchError
from nemotron_exec.interpolation.tree import Call, Element, GrammarError, List, Literal, Primitive, Quoted, Ref
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any
    from typing import Literal as OneOf

    from nemotron_exec.document.document import Scalar

    Resolve = OneOf["artifacts", "all"]

__all__ = ["rewrite"]

_OURS = pattern(r"\$\{\s*(?:art|manifest)\s*:")

_KEY = pattern(r"[A-Za-z0-9_.\-]+\Z")

_RESOLVER = pattern(r"[A-Za-z_][A-Za-z0-9_\-]*(?:\.[A-Za-z_][A-Za-z0-9_\-]*)*\Z")


def rewrite(scalar: Scalar, paths: Sequence[Path], evaluator: Evaluator, resolve: Resolve) -> Edit | None:
    """The edit of a scalar that stands at `paths`, or None if nothing in it changes.

    Raises:
        LaunchError: An artifact in it cannot be resolved.
    """
    try:
        parts = scalar.expression.parts
    except GrammarError as error:
        if _OURS.search(scalar.value) is None:
            return None  # the script may complain about it, if it reads the value at all
        said, remedy = str(error), "Correct it"
        if "BRACE_CLOSE" in said and scalar.value.count("{") > scalar.value.count("}"):
            said, remedy = "it has no closing `}`", "Close each `${` with a `}`"
        wanted = f"to read the interpolation {scalar.value[:80].strip()} ({scalar.origin})"
        raise LaunchError(wanted, said, remedy) from None
    work = _Rewriter(scalar, [path[:-1] for path in paths], evaluator, resolve)
    if len(parts) == 1:
        only = parts[0]
        if isinstance(only, Literal):
            return None
        found = work.value(only)
        if found is not None:
            return Whole(found.value)
        text = work.kept(only)
    else:
        text = work.join(parts, before_end="")
    return None if text == scalar.value else Retext(text)


class _Rewriter:
    def __init__(self, scalar: Scalar, containers: list[Path], evaluator: Evaluator, resolve: Resolve) -> None:
        self.source = scalar.value
        self._scalar = scalar
        self._containers = containers
        self._evaluator = evaluator
        self._resolve = resolve

    def value(self, part: Ref | Call) -> Value | None:
        """The value that replaces an interpolation; None where the interpolation stays."""
        results = [self._evaluator.within(self._scalar, part, container) for container in self._containers]
        return self._agreed(results, arithmetic=isinstance(part, Call) and part.name[0] in ARITHMETIC)

    def _agreed(self, results: Sequence[Any], *, arithmetic: bool = False) -> Value | None:
        first = results[0]
        if not isinstance(first, Value):
            return None
        if not (self._resolve == "all" or arithmetic or first.ours):
            return None
        if any(not isinstance(other, Value) or not _same(first.value, other.value) for other in results[1:]):
            return None
        return first

    def join(self, parts: Sequence[Literal | Ref | Call], *, before_end: str) -> str:
        """The text of literals and interpolations; `before_end` is the quote that closes it, "" for none."""
        pieces: list[str] = []
        run = ""  # literal text beside a replaced piece, which is escaped together with it
        original = ""  # the same text as it stands in the source
        touched = False

        def flush(*, before_interpolation: bool) -> None:
            nonlocal run, original, touched
            if touched:
                pieces.append(escape(run, before_interpolation=before_interpolation, quote=before_end))
            else:
                pieces.append(original)
            run, original, touched = "", "", False

        for part in parts:
            if isinstance(part, Literal):
                run += str(part.value)
                original += self.source[part.start : part.end]
            elif (found := self.value(part)) is not None:
                run += str(found.value)
                touched = True
            else:
                flush(before_interpolation=True)
                pieces.append(self.kept(part))
        if touched and not before_end and not any("${" in piece for piece in pieces) and "${" not in run:
            # Without `${` OmegaConf does not parse the text, so a backslash in it is no escape.
            pieces.append(run)
        else:
            flush(before_interpolation=False)
        return "".join(pieces)

    def kept(self, part: Ref | Call) -> str:
        """The source of an interpolation that stays, with the artifacts in it filled in."""
        edits: list[tuple[int, int, str]] = []
        if isinstance(part, Ref):
            self._names(part.parts, _KEY, edits)
        else:
            self._names(part.name, _RESOLVER, edits)
            for argument in part.args:
                self._argument(argument, edits)
        return self._apply(part.start, part.end, edits)

    def _apply(self, start: int, end: int, edits: list[tuple[int, int, str]]) -> str:
        pieces = []
        position = start
        for begin, stop, text in edits:
            pieces += [self.source[position:begin], text]
            position = stop
        return "".join([*pieces, self.source[position:end]])

    def _names(
        self, parts: Sequence[str | Ref | Call], form: re.Pattern[str], edits: list[tuple[int, int, str]]
    ) -> None:
        for part in parts:
            if isinstance(part, str):
                continue
            found = self.value(part)
            if found is not None and isinstance(found.value, str) and form.match(found.value):
                edits.append((part.start, part.end, found.value))
            else:
                edits.append((part.start, part.end, self.kept(part)))

    def _argument(self, element: Element, edits: list[tuple[int, int, str]]) -> None:
        if isinstance(element, (Primitive, Quoted)):
            if any(not isinstance(part, Literal) for part in element.parts):
                edits.append((element.start, element.end, self._scalar_argument(element)))
            return
        items = element.items if isinstance(element, List) else [value for _, value in element.pairs]
        for item in items:
            self._argument(item, edits)

    def _scalar_argument(self, element: Primitive | Quoted) -> str:
        quoted = isinstance(element, Quoted)
        values = {id(part): self.value(part) for part in element.parts if not isinstance(part, Literal)}
        if not any(values.values()):
            return self._apply(
                element.start,
                element.end,
                [(part.start, part.end, self.kept(part)) for part in element.parts if not isinstance(part, Literal)],
            )
        if not quoted and len(element.parts) == 1:
            found = values[id(element.parts[0])]
            assert found is not None
            try:
                return grammar_literal(found.value)
            except UnwritableError as error:
                raise LaunchError(
                    f"to write the value of {self.source[element.start : element.end]} ({self._scalar.origin})",
                    str(error),
                    "Take a field that is a string or a number",
                ) from None
        quote = self.source[element.start] if quoted else '"'
        return quote + self.join(element.parts, before_end=quote) + quote


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)
