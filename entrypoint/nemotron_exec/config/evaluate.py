"""The value of an expression at its place in the config, as far as it is known before the job runs.

Evaluation follows OmegaConf 2.3 and 2.4 (omegaconf/base.py, `_resolve_node_interpolation` and `_select_impl`). A value
is `Kept` where another rank's environment, a resolver of the script or an override of the command decides it.
"""

from __future__ import annotations

import json
import os
import re

from nemotron_exec.artifacts.artifact import UnknownFieldError
from nemotron_exec.command.override import split_key
from nemotron_exec.document.document import Scalar, Tree
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.interpolation.tree import (
    Call,
    Dict,
    Element,
    GrammarError,
    List,
    Literal,
    Primitive,
    Quoted,
    Ref,
    Text,
)
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, NoReturn

    from nemotron_exec.artifacts.artifact import Artifact

__all__ = ["ARITHMETIC", "Evaluator", "Kept", "Path", "Reached", "Value", "select_plain"]

Path = tuple["Any", ...]
"""Keys of dictionaries and indices of lists, from the root."""

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": max,
}
"""The resolvers that nemo_rl/utils/config.py `register_omegaconf_resolvers` defines."""

_PLAIN_TYPES = (str, int, float, bool, type(None), list, dict)
_SECRET = pattern(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_MAX_TOTAL = 50_000_000
_MAX_RESULT = 1_000_000  # `${mul:x,1000000000}` repeats a string


@dataclass(frozen=True)
class Value:
    """A known value. `ours` is true where an artifact, a manifest or the `run` section decided it."""

    value: Any
    ours: bool


@dataclass(frozen=True)
class Reached:
    """A mapping or list of the config itself, for which the expression stands."""

    tree: Tree
    path: Path


@dataclass(frozen=True)
class Kept:
    """No value is known here. `broken` is true where OmegaConf would find none either (missing key, cycle, …)."""

    why: str
    broken: bool = False


Result = Value | Reached | Kept


def _child(tree: Any, key: str) -> tuple[Any, Any] | None:
    """The child of a container by one key of a path, together with the key in the container's own type."""
    if isinstance(tree, dict):
        return (key, tree[key]) if key in tree else None
    if isinstance(tree, list):
        try:
            index = int(key)
            return index if index >= 0 else len(tree) + index, tree[index]
        except (ValueError, IndexError):
            return None
    return None


def select_plain(tree: Any, keys: Iterable[str]) -> Any:
    """The node at a path, following no interpolation; None if there is no node."""
    for key in keys:
        found = _child(tree, key)
        if found is None:
            return None
        tree = found[1]
    return tree


class Evaluator:
    """Evaluates expressions of one config.

    Args:
        tree: The config with its parents merged in and the `run.*` overrides applied.
        artifacts: The artifacts by key under `run`. None before they are resolved: then `used` collects the keys that
            expressions ask for, and `undecided` the scalars whose key only the job knows.
        replaced: Whether an override of the command replaces the value at a path, or a container of it.
        touched: Whether an override changes a value at, under or above a path.
        environ: The environment for `${oc.env:…}`, for the few values that the launcher itself needs. With None such a
            value is `Kept`.
    """

    def __init__(
        self,
        tree: Tree,
        artifacts: Mapping[str, Artifact] | None,
        *,
        replaced: Callable[[Path], bool] = lambda _: False,
        touched: Callable[[Path], bool] = lambda _: False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.tree = tree
        self.artifacts = artifacts
        self.used: dict[str, Scalar] = {}
        self.undecided: list[Scalar] = []
        self._replaced = replaced
        self._touched = touched
        self._environ = environ
        self._known: dict[Path, Result] = {}
        self._open: list[Path] = []
        self._scalar: list[Scalar] = []
        self._total = 0

    # --- scalars

    def scalar(self, scalar: Scalar, path: Path) -> Result:
        """The value of the scalar that stands at `path`."""
        if not scalar.is_expression:
            return self._constant(scalar, path)
        known = self._known.get(path)
        if known is None:
            if path in self._open:
                chain = " -> ".join(dotted(each) for each in [*self._open[self._open.index(path) :], path])
                return Kept(f"the interpolations run in a circle: {chain}", broken=True)
            self._open.append(path)
            self._scalar.append(scalar)
            try:
                known = self.text(scalar.expression, path[:-1])
            except GrammarError as error:
                known = Kept(f"it is not an interpolation that OmegaConf reads: {error}", broken=True)
            except RecursionError:
                known = Kept("the interpolations lead on too far", broken=True)
            finally:
                self._open.pop()
                self._scalar.pop()
            if not self._open or not (isinstance(known, Kept) and known.broken):
                self._known[path] = known
        if isinstance(known, Value) and not known.ours and path[:1] == ("run",):
            return Value(known.value, ours=True)
        return known

    def within(self, scalar: Scalar, part: Ref | Call, container: Path) -> Result:
        """The value of one interpolation inside `scalar`, which stands in the container at `container`."""
        self._scalar.append(scalar)
        try:
            result = self.interpolation(part, container)
        except RecursionError:
            result = Kept("the interpolations lead on too far", broken=True)
        else:
            self._total += len(result.value) if isinstance(result, Value) and isinstance(result.value, str) else 0
            if self._total > _MAX_TOTAL:
                self._too_long()
        finally:
            self._scalar.pop()
        return result

    def _constant(self, scalar: Scalar, path: Path) -> Result:
        try:
            value = scalar.construct()
        except ValueError as error:
            return Kept(str(error), broken=True)
        if value == "???":
            return Kept(f"{dotted(path)} is ???, to be given by somebody else", broken=True)
        if not isinstance(value, _PLAIN_TYPES):
            return Kept(f"{dotted(path)} is a {type(value).__name__}")
        return Value(value, ours=path[:1] == ("run",))

    # --- parts of an expression

    def text(self, text: Text, container: Path) -> Result:
        """A whole scalar: the value itself of a single interpolation, else a string."""
        if len(text.parts) == 1 and not isinstance(only := text.parts[0], Literal):
            return self.interpolation(only, container)
        return self._concatenation(text.parts, container)

    def _concatenation(self, parts: Iterable[Literal | Ref | Call], container: Path) -> Result:
        pieces = []
        ours = False
        length = 0
        open_: Kept | None = None
        for part in parts:
            if isinstance(part, Literal):
                pieces.append(str(part.value))
                continue
            result = self.interpolation(part, container)
            if isinstance(result, Kept) and self.artifacts is None:
                open_ = open_ or result  # go on: a later part may ask for an artifact, too
                continue
            if isinstance(result, Reached):
                return Kept(f"{dotted(result.path)} is no scalar")
            if isinstance(result, Kept):
                return result
            pieces.append(str(result.value))
            ours = ours or result.ours
            length += len(pieces[-1])
            if length > _MAX_RESULT:  # `b: ${a}${a}`, `c: ${b}${b}` and so on double a text each time
                if ours:
                    self._too_long()
                return Kept("it would be too long")
        return open_ or Value("".join(pieces), ours)

    def _too_long(self) -> NoReturn:
        scalar = self._scalar[-1]
        raise self._error(
            f"to resolve {scalar.value.strip()[:80]}", "the values that it leads to are too long", "Repeat less"
        )

    def interpolation(self, part: Ref | Call, container: Path) -> Result:
        """The value of `${a.b}` or `${name:…}`."""
        return self._ref(part, container) if isinstance(part, Ref) else self._call(part, container)

    def element(self, element: Element, container: Path) -> Result:
        """The value of one argument of a resolver."""
        if isinstance(element, Primitive):
            if len(element.parts) == 1:
                only = element.parts[0]
                return (
                    Value(only.value, ours=False) if isinstance(only, Literal) else self.interpolation(only, container)
                )
            return self._concatenation(element.parts, container)
        if isinstance(element, Quoted):
            return self._concatenation(element.parts, container)
        items = element.items if isinstance(element, List) else tuple(value for _, value in element.pairs)
        values = []
        ours = False
        for item in items:
            result = self.element(item, container)
            if not isinstance(result, Value):
                return result if isinstance(result, Kept) else Kept("a container as an argument")
            values.append(result.value)
            ours = ours or result.ours
        if isinstance(element, Dict):
            return Value(dict(zip((key for key, _ in element.pairs), values, strict=True)), ours)
        return Value(values, ours)

    def _name(self, parts: Iterable[str | Ref | Call], container: Path) -> tuple[str, bool] | Kept:
        pieces = []
        ours = False
        for part in parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            result = self.interpolation(part, container)
            if isinstance(result, Kept):
                return result
            if isinstance(result, Reached) or not isinstance(result.value, str):
                return Kept("an interpolation inside a name gives no string", broken=True)
            pieces.append(result.value)
            ours = ours or result.ours
        return "".join(pieces), ours

    def _ref(self, ref: Ref, container: Path) -> Result:
        name = self._name(ref.parts, container)
        if isinstance(name, Kept):
            return name
        written, ours = name
        key = written
        base: Path = ()
        if key.startswith("."):
            base, key = container, key[1:]
            while key.startswith("."):
                if not base and self._touched(("",)):
                    return Kept("its place in the config is not known")
                if not base:
                    return Kept(f"{written} leaves the config", broken=True)
                base, key = base[:-1], key[1:]
        result = self._select(base, split_key(key))
        return Value(result.value, ours=True) if ours and isinstance(result, Value) else result

    def _select(self, base: Path, keys: list[str]) -> Result:
        node: Any = self.tree
        for key in base:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return Kept(f"{dotted(base)} was replaced", broken=not self._touched(base))
        path = base
        for number, name in enumerate(keys):
            found = _child(node, name)
            if found is None:
                if self._touched((*path, name)):
                    return Kept(f"{dotted((*path, name))} is given by an override")
                return Kept(f"there is no {dotted((*path, name))}", broken=True)
            key, node = found
            path = (*path, key)
            if not isinstance(node, Scalar):
                if self._replaced(path):
                    return Kept(f"{dotted(path)} is given by an override")
                continue
            if self._touched(path):
                return Kept(f"{dotted(path)} is given by an override")
            result = self.scalar(node, path)
            rest = keys[number + 1 :]
            if not rest or isinstance(result, Kept):
                return result
            if isinstance(result, Value):
                return _inside(result, rest, path)
            return self._select(result.path, rest)
        return Reached(node, path)

    # --- resolvers

    def _call(self, call: Call, container: Path) -> Result:
        name = self._name(call.name, container)
        if isinstance(name, Kept):
            return name
        resolver = name[0]
        if resolver not in ("art", "manifest") and resolver not in ARITHMETIC:
            if resolver == "oc.env" and self._environ is not None:
                return self._environment(call, container)
            return Kept(f"the resolver {resolver} is known only to the job")
        if resolver == "art" and not 1 <= len(call.args) <= 2:
            raise self._error(
                f"to resolve {self._source(call)}",
                f"art takes NAME and FIELD, here are {len(call.args)} arguments",
                "Write ${art:NAME,FIELD}",
            )
        arguments: list[Any] = []
        ours = False
        for argument in call.args:
            result = self.element(argument, container)
            if isinstance(result, Kept):
                if result.broken and resolver in ("art", "manifest"):
                    raise self._error(f"to resolve {self._source(call)}", result.why, "Correct the interpolation")
                if resolver == "art" and not arguments:
                    self.undecided.append(self._scalar[-1])
                return result
            if isinstance(result, Reached):
                return Kept(f"{dotted(result.path)} is no scalar")
            arguments.append(result.value)
            ours = ours or result.ours
        if resolver == "art":
            return self._artifact(call, str(arguments[0]), str(arguments[1]) if len(arguments) > 1 else "path")
        if resolver == "manifest":
            return self._manifest(call, arguments)
        if len(arguments) != 2 or _result_size(resolver, arguments) > _MAX_RESULT:
            return Kept(f"{resolver} takes two numbers")
        try:
            return Value(ARITHMETIC[resolver](*arguments), ours)
        except Exception as error:  # noqa: BLE001 - the operands may raise any exception
            if ours:
                raise self._error(
                    f"to resolve {self._source(call)}", f"{type(error).__name__}: {error}", "Correct the operands"
                ) from None
            return Kept(f"{resolver} fails: {error}", broken=True)

    def _artifact(self, call: Call, key: str, field: str) -> Result:
        self.used.setdefault(key, self._scalar[-1])
        if self.artifacts is None:
            return Kept("not resolved yet")
        artifact = self.artifacts.get(key)
        if artifact is None:
            raise self._error(
                f"to resolve {self._source(call)}",
                f"run.{key} names no artifact that was resolved",
                f"Keys under run that do: {', '.join(sorted(self.artifacts)) or 'none'}",
            )
        try:
            return Value(artifact.field(field), ours=True)
        except UnknownFieldError as error:
            from nemotron_exec.nearest import did_you_mean

            raise self._error(
                f"to resolve {self._source(call)}",
                f"{artifact.qualified_name} has no field {field!r}",
                " ".join(filter(None, (did_you_mean(field, error.args[0]), f"Its fields: {', '.join(error.args[0])}"))),
            ) from None

    def _manifest(self, call: Call, arguments: list[Any]) -> Result:
        """The value of `${manifest:DIRECTORY,KEY}`, read like nemo_runspec/config/resolvers.py `_manifest_resolver`."""
        wanted = f"to resolve {self._source(call)}"
        if len(arguments) != 2:
            raise self._error(
                wanted, f"manifest takes DIRECTORY and KEY, here are {len(arguments)} arguments", "Correct the call"
            )
        if self.artifacts is None:
            return Kept("not resolved yet")
        path = os.path.join(str(arguments[0]), "manifest.json")
        try:
            with open(path, encoding="utf-8") as stream:
                content = json.load(stream)
        except (OSError, ValueError) as error:
            raise self._error(wanted, f"{path} cannot be read: {error}", "Run the data preparation first") from None
        key = str(arguments[1])
        if not isinstance(content, dict) or key not in content:
            from nemotron_exec.nearest import did_you_mean

            names = sorted(content) if isinstance(content, dict) else []
            remedy = " ".join(filter(None, (did_you_mean(key, names), f"Its keys: {', '.join(names) or 'none'}")))
            raise self._error(wanted, f"{path} has no key {key!r}", remedy)
        return Value(str(content[key]), ours=True)

    def _environment(self, call: Call, container: Path) -> Result:
        assert self._environ is not None
        arguments = []
        for argument in call.args:
            result = self.element(argument, container)
            if not isinstance(result, Value):
                return result
            arguments.append(result.value)
        if not 1 <= len(arguments) <= 2:
            return Kept("oc.env takes a name and a default", broken=True)
        name = str(arguments[0])
        if _SECRET.search(name):
            return Kept(f"the variable {name} looks like a secret, and would be written down", broken=True)
        if name in self._environ:
            return Value(self._environ[name], ours=False)
        if len(arguments) > 1:
            default = arguments[1]
            return Value(default if default is None else str(default), ours=False)
        return Kept(f"the environment has no {name}", broken=True)

    def _source(self, call: Call) -> str:
        return self._scalar[-1].value[call.start : call.end]

    def _error(self, wanted: str, found: str, remedy: str) -> LaunchError:
        return LaunchError(f"{wanted} ({self._scalar[-1].origin})", found, remedy)


def _inside(container: Value, keys: list[str], path: Path) -> Result:
    """A value inside an artifact's own mapping or list. Such a value is data: its interpolations are not replaced."""
    value = container.value
    for key in keys:
        found = _child(value, key)
        if found is None:
            return Kept(f"{dotted(path)} has no {key}", broken=True)
        value = found[1]
    return Value(value, container.ours)


def _result_size(resolver: str, arguments: list[Any]) -> int:
    """Length of the string or list that `mul` would make. The caller refuses a length that would fill the memory."""
    if resolver == "mul":
        for one, other in (arguments, reversed(arguments)):
            if isinstance(one, (str, list)) and isinstance(other, int):
                return len(one) * max(other, 0)
    return 0


def dotted(path: Path) -> str:
    """A path as people write it: `a.b.0`."""
    return ".".join(str(key) for key in path)
