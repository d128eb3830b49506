r"""Writes a value as YAML that every reader reads alike, and as a literal of OmegaConf's grammar.

YAML 1.1 (PyYAML) and OmegaConf disagree about scalars such as `1e-5`, `on` and dates. A string is therefore quoted
unless every dialect reads it as a string. `${` is escaped for OmegaConf as `\${`.
"""

from __future__ import annotations

import math
import re

from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Expression", "UnwritableError", "escape", "grammar_literal", "yaml_double_quoted", "yaml_literal"]


class Expression(str):
    """Text with interpolations that OmegaConf resolves: nothing in it is escaped."""

    __slots__ = ()


class UnwritableError(ValueError):
    """No written form of the value reads back as the same value."""


# Words that some dialect of YAML does not read as a string.
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "none"])
_PLAIN = pattern(r"[A-Za-z_/][A-Za-z0-9_./@+\-]*(?::[A-Za-z0-9_./@+\-]+)*\Z")
_PLAIN_IN_FLOW = pattern(r"[A-Za-z_/][A-Za-z0-9_./@+\-]*\Z")
_BACKSLASHES = pattern(r"\\*(?=\$\{)\$\{")
_MAX_DEPTH = 100


def escape(text: str, *, before_interpolation: bool = False, quote: str = "") -> str:
    r"""`text`, escaped so that OmegaConf's grammar reads it as itself inside a larger text.

    OmegaConf reads a backslash as an escape only before `${`, before `quote`, or at the end of a quoted text. There it
    is doubled.
    """
    ends = before_interpolation or bool(quote)
    targets = r"\$\{" + (f"|{quote}" if quote else "") + (r"|\Z" if ends else "")

    def double(match: re.Match[str]) -> str:
        slashes, target = match.group(1), match.group(2)
        return slashes * 2 + ("\\" + target if target else "")

    return re.sub(rf"(\\*)({targets})", double, text)


def yaml_double_quoted(text: str) -> str:
    """`text` in double quotes, on one line. Non-ASCII is not escaped, because libyaml refuses surrogate pairs.

    Raises:
        UnwritableError: The text holds half a surrogate pair, which UTF-8 cannot encode.
    """
    pieces = ['"']
    for character in text:
        code = ord(character)
        if character in _ESCAPES:
            pieces.append(_ESCAPES[character])
        elif 0xD800 <= code <= 0xDFFF:
            raise UnwritableError("half a surrogate pair, which UTF-8 cannot hold")
        elif code < 0x20 or 0x7F <= code <= 0xA0:
            pieces.append(f"\\x{code:02X}")
        elif code in (0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF):
            pieces.append(f"\\u{code:04X}")
        else:
            pieces.append(character)
    pieces.append('"')
    return "".join(pieces)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def yaml_literal(value: Any, *, flow: bool = False, depth: int = 0) -> str:
    """`value`, read from JSON, as YAML on one line.

    Raises:
        UnwritableError: The value has no form in YAML.
    """
    if depth > _MAX_DEPTH:
        raise UnwritableError(f"nested more than {_MAX_DEPTH} levels deep")
    if value is None or isinstance(value, (bool, int)):
        return _word(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Expression):
        return yaml_double_quoted(value)
    if isinstance(value, str):
        if value == "???":
            raise UnwritableError("??? means a missing value to OmegaConf")
        plain = _PLAIN_IN_FLOW if flow else _PLAIN
        if plain.match(value) and value.lower() not in _WORDS:
            return value
        return yaml_double_quoted(escape(value) if "${" in value else value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(yaml_literal(item, flow=True, depth=depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{_key(key)}: {yaml_literal(item, flow=True, depth=depth + 1)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise UnwritableError(f"a {type(value).__name__} has no YAML form")


def _key(key: Any) -> str:
    if isinstance(key, str):  # OmegaConf resolves nothing in a key, so nothing is escaped
        plain = _PLAIN_IN_FLOW.match(key) and key.lower() not in _WORDS
        return key if plain else yaml_double_quoted(key)
    return yaml_literal(key, flow=True)


def _word(value: bool | int | None) -> str:
    """The word that YAML and OmegaConf's grammar have in common for a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return str(value)
    except ValueError as error:  # CPython limits the digits of an int
        raise UnwritableError(str(error)) from None


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    if not e:
        return text
    # YAML 1.1 requires the point, and the sign of the exponent.
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


_GRAMMAR_KEY = pattern(r"[A-Za-z_][A-Za-z0-9_\-]*\Z")
# As keys these words would not be strings. For the grammar `y` and `on` are plain words.
_GRAMMAR_WORDS = frozenset(["true", "false", "null", "nan", "inf"])


def grammar_literal(value: Any) -> str:
    """`value` as an argument inside an interpolation.

    Raises:
        UnwritableError: The grammar has no literal for it.
    """
    if value is None or isinstance(value, (bool, int)):
        return _word(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        quote = "'" if '"' in value and "'" not in value else '"'
        return quote + escape(value, quote=quote) + quote
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(grammar_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        if not all(
            isinstance(key, str) and _GRAMMAR_KEY.match(key) and key.lower() not in _GRAMMAR_WORDS for key in value
        ):
            raise UnwritableError("OmegaConf's grammar has no quoted keys")
        return "{" + ", ".join(f"{key}: {grammar_literal(item)}" for key, item in value.items()) + "}"
    raise UnwritableError(f"a {type(value).__name__} has no form in an interpolation")
