"""Lists every message that a user may see, from the code: python docs/tools/catalogue.py [--check|--incomplete|--sites]

Writes docs/errors.md with all errors (subclasses of LaunchError and StoreError in any file), and with the other lines
that launcher, injector and image build print. A message has the text of its call site, with `…` for parts that only the
run knows. The tool follows a variable, a parameter or a call to the texts that the code gives for it.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("entrypoint/nemotron_exec", "sitecustomize", "docker")
PAGE = ROOT / "docs/errors.md"

_CODES = {"UsageError": "2", "TemporaryError": "75", "CommandNotExecutableError": "126", "CommandNotFoundError": "127"}
_BASES = ("LaunchError", "StoreError")
_PARTS = ["wanted", "found", "remedy"]
_LEVELS = ("info", "warning", "error")
# Marks for alternatives inside a text. They are private characters, which no message has.
_OPEN, _OR, _CLOSE = "\ue000", "\ue001", "\ue002"
_UNKNOWN = "…"
_DEPTH = 3  # the number of variables and parameters to follow in a row


class Message(NamedTuple):
    """The message of one call site. An error has three parts (wanted, found, what to do), another line has one."""

    file: str
    line: int
    kind: str
    parts: tuple[str, ...]

    @property
    def says_something(self) -> bool:
        """Whether the message has words of its own: `raise LaunchError(*parts)` only passes words on."""
        return any(re.search(r"\w", part) for part in self.parts)

    def pattern(self) -> re.Pattern[str]:
        """A pattern that matches the error, without the program's name and the level."""
        text = "{}: {}. {}".format(*self.parts)
        if "payload/manifest/" in self.file or self.file.endswith("fsspec_files.py"):
            text = f"{_OPEN}{_UNKNOWN}: {_OR}{_CLOSE}{text}"  # the launcher puts the place of the reference before it
        text = re.escape(text).replace(_OPEN, "(?:").replace(_OR, "|").replace(_CLOSE, ")")
        return re.compile(text.replace(re.escape(_UNKNOWN), ".*"), re.DOTALL)


class _File:
    """A source file with its calls and the values of its names."""

    def __init__(self, path: Path) -> None:
        self.path = str(path.relative_to(ROOT))
        self.name = self.path.removeprefix("entrypoint/nemotron_exec/")
        self.tree = ast.parse(path.read_text(encoding="utf-8"))

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        return {
            node.targets[0].id: node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }

    @cached_property
    def calls(self) -> list[tuple[ast.Call, _Path]]:
        """All calls, each with its path. The target of a thread counts as a call, too."""
        found = [(node, path) for node, path in self._nodes if isinstance(node, ast.Call)]
        for call, path in list(found):
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            if "target" in named and isinstance(given := named.get("args"), ast.Tuple):
                found.append((ast.Call(named["target"], given.elts, []), path))
        return found

    @cached_property
    def calls_by_name(self) -> dict[str, list[tuple[ast.Call, _Path]]]:
        """The calls, by the name of what they call."""
        return _by_name(self.calls)

    @cached_property
    def modules(self) -> set[str]:
        """The names of modules that the file imports: `os`, for instance."""
        found = [node for node, _ in self._nodes if isinstance(node, ast.Import)]
        return {one.asname or one.name.partition(".")[0] for node in found for one in node.names}

    @cached_property
    def imports(self) -> dict[str, str]:
        """The launcher's functions that the file imports, each with the file that defines it."""
        found = [node for node, _ in self._nodes if isinstance(node, ast.ImportFrom) and not node.level]
        return {
            one.asname or one.name: f"entrypoint/{node.module.replace('.', '/')}.py"
            for node in found
            if node.module and node.module.startswith("nemotron_exec.")
            for one in node.names
        }

    @cached_property
    def methods(self) -> set[ast.FunctionDef]:
        """The functions of all classes in the file."""
        return {child for node in self.classes for child in node.body if isinstance(child, ast.FunctionDef)}

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """All classes in the file."""
        return [node for node, _ in self._nodes if isinstance(node, ast.ClassDef)]

    def returned(self, name: str) -> list[tuple[ast.expr, _Path]]:
        """The expressions that functions of this name return."""
        return [(value, path) for value, path in self._returns if path.function and path.function.name == name]

    @cached_property
    def _returns(self) -> list[tuple[ast.expr, _Path]]:
        return [(node.value, path) for node, path in self._nodes if isinstance(node, ast.Return) and node.value]

    @cached_property
    def _nodes(self) -> list[tuple[ast.AST, _Path]]:
        found: list[tuple[ast.AST, _Path]] = []

        def walk(node: ast.AST, path: _Path) -> None:
            found.append((node, path))
            for _, value in ast.iter_fields(node):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    for index, child in enumerate(value):
                        inside = _Path(self, node, ()) if isinstance(node, ast.FunctionDef) else path
                        walk(child, inside._replace(before=(*inside.before, value[:index])))
                else:
                    for child in value if isinstance(value, list) else [value]:
                        if isinstance(child, ast.AST):
                            walk(child, path)

        walk(self.tree, _Path(self, None, ()))
        return found


class _Path(NamedTuple):
    """The place of a call: its function, and the statements before it in each block, the outermost block first."""

    file: _File
    function: ast.FunctionDef | None
    before: tuple[list[ast.stmt], ...]

    def assigned(self, name: str) -> list[tuple[ast.expr, _Path]]:
        """The values that a variable may have there: of the nearest assignment, and of the branches after that."""
        for depth in range(len(self.before), 0, -1):
            found: list[tuple[ast.expr, _Path]] = []
            for index in range(len(self.before[depth - 1]) - 1, -1, -1):
                statement = self.before[depth - 1][index]
                where = _Path(self.file, self.function, (*self.before[: depth - 1], self.before[depth - 1][:index]))
                values = [
                    (value, where)
                    for node in ast.walk(statement)
                    if isinstance(node, ast.Assign)
                    for target in node.targets
                    if (value := _value_of(name, target, node.value)) is not None
                ]
                found += values
                if values and isinstance(statement, ast.Assign):
                    break
            if found and self.function is not None:
                return found
        return []

    def given(self, name: str, calls: dict[str, list[tuple[ast.Call, _Path]]]) -> list[tuple[ast.expr, _Path]]:
        """The arguments that calls of the function, out of these, give for its parameter of this name."""
        if self.function is None:
            return []
        taken = self.function.args
        method = self.function in self.file.methods
        names = [argument.arg for argument in taken.args if argument.arg not in ("self", "cls")]
        found = []
        if name not in names + [argument.arg for argument in taken.kwonlyargs]:
            return []
        for call, path in calls.get(self.function.name, ()):
            # A method is called on an object: neither `open(…)` nor `os.open(…)` calls a method called `open`.
            on = _name(call.func.value) if isinstance(call.func, ast.Attribute) else None
            if not (method and (on is None or on in path.file.modules)):
                found += [(one.value, path) for one in call.keywords if one.arg == name]
                found += [(one, path) for index, one in enumerate(call.args) if names[index : index + 1] == [name]]
        return found


class Catalogue:
    """The messages of the sources."""

    def __init__(self) -> None:
        paths = sorted(path for source in SOURCES for path in (ROOT / source).rglob("*.py"))
        self.files = [_File(path) for path in paths if "entrypoint/nemotron_exec/sitecustomize/" not in str(path)]
        self._constants = {
            name: value for file in self.files for name, value in file.constants.items() if name.lstrip("_").isupper()
        }
        self._calls = _by_name([call for file in self.files for call in file.calls])
        self.errors = self._error_classes()
        self.makers = self._makers()

    def _error_classes(self) -> set[str]:
        """The direct and indirect subclasses of LaunchError and StoreError."""
        found = set(_BASES)
        while True:
            more = {
                node.name
                for file in self.files
                for node in file.classes
                if any(_name(base) in found for base in node.bases)
            }
            if more <= found:
                return found
            found |= more

    def _makers(self) -> dict[str, str]:
        """Functions that make an error out of (wanted, found, what to do), with their text for `wanted`: "… (…)"."""
        return {
            path.function.name: self._words(call.args[0], file)
            for file in self.files
            for call, path in file.calls
            if path.function is not None and self._kind(call) == "LaunchError" and path.function.name != "__init__"
            if [argument.arg for argument in path.function.args.args if argument.arg != "self"][:3] == _PARTS
        }

    def _kind(self, call: ast.Call) -> str:
        """The name of the error class that the call instantiates, or ""."""
        return _name(call.func) if isinstance(call.func, ast.Name) and _name(call.func) in self.errors else ""

    def sites(self) -> list[tuple[_File, ast.Call]]:
        """All calls that make a message, also those that pass on words of another call site."""
        return [(file, call) for file in self.files for call, _ in file.calls if self._message(call, file)[0]]

    def messages(self) -> list[Message]:
        """All messages, in the order of the files."""
        found = []
        for file in self.files:
            for call, path in file.calls:
                kind, arguments = self._message(call, file)
                if not kind or (path.function and path.function.name in self.makers):
                    continue
                parts = tuple(self._part(argument, file, path, _DEPTH) for argument in arguments)
                if len(parts) == 3 and not self._kind(call):
                    parts = (self.makers[_name(call.func)].replace(_UNKNOWN, parts[0], 1), *parts[1:])
                found.append(Message(file.name, call.lineno, kind, parts))
        return found

    def _message(self, call: ast.Call, file: _File) -> tuple[str, list[ast.expr]]:
        """The kind of message that a call makes and its expressions; "" and an empty list if it makes none."""
        name = _name(call.func)
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in self.makers and len(call.args) >= len(_PARTS):
            return "125", call.args[:3]
        if self._kind(call):
            arguments = [*call.args, *(named[part] for part in _PARTS if part in named)]
            temporary = arguments[3] if len(arguments) > 3 else named.get("temporary")
            code = _CODES.get(name, "125")
            if temporary is not None:
                code = "75" if isinstance(temporary, ast.Constant) and temporary.value else "125 / 75"
            return code, arguments[:3]
        receiver = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if name in _LEVELS and ("essages" in receiver or receiver == "notice"):
            return name, call.args[:1]
        if name == "GivenUpError":
            return "warning", [ast.BinOp(ast.Constant("checkpoint …: "), ast.Add(), call.args[0])]
        if name == "Status" and len(call.args) == 3 and _name(call.args[1]) == "STOOD_DOWN":
            return "warning", [ast.BinOp(ast.Constant("patch … stands down: "), ast.Add(), call.args[2])]
        if receiver == "sys" and name == "exit" and file.name.startswith("docker/"):
            return "error", [argument for argument in call.args if not isinstance(argument, ast.Call)]
        if receiver == "sys.stderr" and name == "write" and not file.name.endswith("message.py"):
            return "warning", call.args
        return "", []

    def _part(self, node: ast.expr, file: _File, path: _Path, depth: int) -> str:
        """The text of an argument. A variable is followed to the function's assignments or the callers' arguments."""
        match node:
            case ast.IfExp(body=body, orelse=orelse):
                return _either([self._part(body, file, path, depth), self._part(orelse, file, path, depth)])
            case ast.BoolOp(values=values):
                return _either([self._part(value, file, path, depth) for value in values])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._part(left, file, path, depth) + self._part(right, file, path, depth)
            case ast.Call(func=called) if depth and (texts := self._returned(_name(called), file)):
                return _either([self._part(value, where.file, where, depth - 1) for value, where in texts])
            case ast.Subscript(value=ast.Call(func=called), slice=ast.Constant(value=int(index))) if depth:
                texts = [
                    (value.elts[index], where)
                    for value, where in self._returned(_name(called), file)
                    if isinstance(value, ast.Tuple) and not _is_none(value.elts[index])
                ]
                if texts:
                    return _either([self._part(value, where.file, where, depth - 1) for value, where in texts])
            case ast.Name(id=name) if depth:
                if given := path.assigned(name) or self._given(name, path):
                    return _either([self._part(value, where.file, where, depth - 1) for value, where in given])
        return self._words(node, file)

    def _returned(self, name: str, file: _File) -> list[tuple[ast.expr, _Path]]:
        """The expressions that a function returns, which the file defines or imports."""
        elsewhere = [one for one in self.files if one.path == file.imports.get(name)]
        return file.returned(name) or [value for one in elsewhere for value in one.returned(name)]

    def _given(self, name: str, path: _Path) -> list[tuple[ast.expr, _Path]]:
        """The callers' arguments for a parameter. For a private function, only callers in its file count."""
        here = path.given(name, path.file.calls_by_name)
        if here and (path.function not in path.file.methods or path.function.name.startswith("_")):
            return here
        return path.given(name, self._calls)

    def _words(self, node: ast.expr, file: _File) -> str:
        """The text of an expression, as far as the source tells it. Of names, only constants are known."""

        def words(part: ast.expr) -> str:
            return self._words(part, file)

        match node:
            case ast.Constant(value=str(value)):
                return value
            case ast.FormattedValue(value=value):
                return words(value)
            case ast.JoinedStr(values=values):
                return "".join(map(words, values))
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return words(left) + words(right)
            case ast.BinOp(left=left, op=ast.Mod(), right=right):
                values = right.elts if isinstance(right, ast.Tuple) else [right]
                return _filled(r"%(?:[-+ 0#]*[\d.]*)([sdrgf%])", words(left), [words(value) for value in values])
            case ast.Call(func=ast.Attribute(value=template, attr="format"), args=values):
                return _filled(r"\{[^{}]*\}", words(template), [words(value) for value in values])
            case ast.IfExp(body=body, orelse=orelse):
                return _either([words(body), words(orelse)])
            case ast.Name(id=name) if name.lstrip("_").isupper():
                value = file.constants.get(name, self._constants.get(name))
                return words(value) if value is not None else _UNKNOWN
        return _UNKNOWN


def _value_of(name: str, target: ast.expr, value: ast.expr) -> ast.expr | None:
    """The value that an assignment gives to `name`; for `a, b = f()` an item of the call's result."""
    if _name(target) == name:
        return value
    if isinstance(target, ast.Tuple):
        for index, one in enumerate(target.elts):
            if _name(one) == name:
                return value.elts[index] if isinstance(value, ast.Tuple) else ast.Subscript(value, ast.Constant(index))
    return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _by_name(calls: list[tuple[ast.Call, _Path]]) -> dict[str, list[tuple[ast.Call, _Path]]]:
    found: dict[str, list[tuple[ast.Call, _Path]]] = {}
    for call, path in calls:
        found.setdefault(_name(call.func), []).append((call, path))
    return found


def _name(node: ast.expr) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def _either(texts: list[str]) -> str:
    """A text with these alternatives."""
    flat = [one for text in texts for one in (text[1:-1].split(_OR) if _is_group(text) else [text])]
    flat = sorted(dict.fromkeys(flat), key=lambda one: not one)  # the empty text goes last, and the page omits it
    if len(flat) == 1:
        return flat[0]
    return _OPEN + _OR.join(flat) + _CLOSE


def _is_group(text: str) -> bool:
    return text.startswith(_OPEN) and text.endswith(_CLOSE) and text.count(_OPEN) == 1


def _filled(places: str, template: str, values: list[str]) -> str:
    rest = iter(values)
    return re.sub(places, lambda place: "%" if place[0] == "%%" else next(rest, _UNKNOWN), template)


@cache
def _catalogue() -> Catalogue:
    return Catalogue()


@cache
def messages() -> list[Message]:
    """All messages with words of their own."""
    return [message for message in _catalogue().messages() if message.says_something]


def incomplete() -> list[str]:
    """The errors without all three parts, each with its call site."""
    lines = (*_LEVELS, "")
    found = [one for one in messages() if one.kind not in lines and (len(one.parts) != 3 or not all(one.parts))]
    return [f"{message.file}:{message.line}: {message.parts}" for message in found]


def sites() -> list[str]:
    """The call sites of all messages, `FILE:LINE`."""
    return [f"{file.path}:{call.lineno}" for file, call in _catalogue().sites()]


def patterns() -> list[re.Pattern[str]]:
    """The pattern of each error, except patterns with so few words that they would match any error."""
    errors = [message for message in messages() if len(message.parts) == 3]
    return [message.pattern() for message in errors if len(re.findall(r"\w", "".join(message.parts))) > 10]


def text() -> str:
    """The page."""
    lines = [
        "<!-- Written by docs/tools/catalogue.py from the code; `make reference` writes it again. -->\n",
        "# All messages\n\n",
        "Sorted by the text, without regard to `to` at its beginning and to what is filled in. `…` is known only\n",
        "when it happens, and `/` stands between what may be said. An error says what was wanted, what was found and\n",
        "what to do, and ends the program with the code beside it; `-v` adds the traceback. Other lines have a\n",
        "level: `-q` hides those of info. Files below `sitecustomize/` speak inside the job, which goes on. Not\n",
        "here: what `--doctor` finds, and how a command line is wrong (code 2).\n",
    ]
    found = messages()
    errors = sorted({(one.parts, one.kind, one.file) for one in found if len(one.parts) == 3}, key=_order)
    others = sorted({(one.parts, one.kind, one.file) for one in found if len(one.parts) == 1}, key=_order)
    lines.append("\n## Errors\n")
    last = ""
    for parts, code, file in errors:
        first = _first(parts[0])
        if first != last:
            lines += [f"\n### {first}\n", "| wanted | found | what to do | code | file |\n|---|---|---|---|---|\n"]
            last = first
        lines.append(f"| {' | '.join(map(_cell, parts))} | {code} | {_cell(file)} |\n")
    lines += ["\n## Other lines\n", "| line | level | file |\n|---|---|---|\n"]
    for parts, level, file in others:
        lines.append(f"| {_cell(parts[0].removeprefix(f'nemotron-exec: {level}: '))} | {level} | {_cell(file)} |\n")
    return "".join(lines)


def _order(row: tuple[tuple[str, ...], str, str]) -> tuple[bool, str, tuple[str, ...], str, str]:
    parts, kind, file = row
    return _first(parts[0]) == "…", re.sub(r"\W+", " ", parts[0]).strip().lower().removeprefix("to "), parts, kind, file


def _first(text: str) -> str:
    """The letter under which the page lists a message; `…` if the message begins with a variable part."""
    plain = _cell(text).lstrip("\\'\"` ").removeprefix("to ")
    return plain[:1].upper() if plain[:1].isalpha() else "…"


def _cell(words: str) -> str:
    plain = " ".join(words.replace(_OR + _CLOSE, "").replace(_OR, " / ").replace(_OPEN, "").replace(_CLOSE, "").split())
    for special in "\\|<>*_[]`":
        plain = plain.replace(special, {"<": "&lt;", ">": "&gt;"}.get(special, "\\" + special))
    return plain


def main() -> int:
    """Write the page; or compare it, list the errors without three parts, or the call sites. Returns the exit code."""
    if "--sites" in sys.argv[1:]:
        print("\n".join(sites()))
        return 0
    if "--incomplete" in sys.argv[1:]:
        found = incomplete()
        print("\n".join(found))
        return int(bool(found))
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text())
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
