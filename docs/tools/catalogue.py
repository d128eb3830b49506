"""Every way in which the launcher refuses, read from the code: python docs/tools/catalogue.py [--check|--incomplete]

Writes docs/errors.md. A message is what its call site says, with `…` for what is only known when it happens.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "entrypoint/nemotron_exec"
PAGE = ROOT / "docs/errors.md"

CODES = {
    "LaunchError": 125,
    "TemporaryError": 75,
    "UsageError": 2,
    "CommandNotFoundError": 127,
    "CommandNotExecutableError": 126,
}


class Message(NamedTuple):
    """One call site; a part that is made elsewhere is `…`."""

    file: str
    line: int
    code: int
    parts: tuple[str, ...]


def messages() -> list[Message]:
    """All call sites of the errors, in the order of the files."""
    found = []
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if "sitecustomize" not in path.parts[len(PACKAGE.parts) :]
    }
    constants = {}
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
                constants.setdefault(node.targets[0].id, node.value)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if name in CODES:
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                given = [*node.args, *(named[part] for part in ("wanted", "found", "remedy") if part in named)]
                parts = tuple(_words(argument, constants) for argument in given)
                found.append(Message(str(path.relative_to(PACKAGE)), node.lineno, CODES[name], parts))
    return found


def _words(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    """What a text expression says, as far as the source says it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), (ast.Constant, ast.JoinedStr, ast.BinOp)):
        return _words(constants[node.id], constants)
    if isinstance(node, ast.FormattedValue):
        return _words(node.value, constants)
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part, constants) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left, constants) + _words(node.right, constants)
    if isinstance(node, ast.IfExp):
        return f"{_words(node.body, constants)} / {_words(node.orelse, constants)}"
    if isinstance(node, ast.BoolOp):
        return " / ".join(_words(value, constants) for value in node.values)
    return "…"


def text() -> str:
    """The page."""
    lines = [
        "<!-- Written by docs/tools/catalogue.py from the code; `make reference` writes it again. -->\n",
        "# All messages\n\n",
        "Each says what was wanted, what was found and what to do; `…` is filled in when it happens. `-v` adds\n",
        "the traceback. Messages of [the manifest store](artifacts.md) that its own module words come beside these.\n",
    ]
    by_file = defaultdict(list)
    for message in messages():
        # `raise LaunchError(*parts)` hands on what is said elsewhere.
        if len(message.parts) == 3 and any(part.strip("… /") for part in message.parts):
            by_file[message.file].append(message)
    for file, found in by_file.items():
        lines.append(f"\n## {file}\n| code | wanted | found | what to do |\n|---|---|---|---|\n")
        for message in sorted({(message.code, message.parts) for message in found}):
            lines.append(f"| {message[0]} | " + " | ".join(_cell(part) for part in message[1]) + " |\n")
    return "".join(lines)


def _cell(words: str) -> str:
    plain = " ".join(words.split())
    for special in "\\|<>*_[]`":
        plain = plain.replace(special, {"<": "&lt;", ">": "&gt;"}.get(special, "\\" + special))
    return plain


def main() -> int:
    """Write the page, or with `--check` compare it, or list the messages without three parts; returns the exit code."""
    if "--incomplete" in sys.argv[1:]:
        incomplete = [message for message in messages() if len(message.parts) != 3 or not all(message.parts)]
        for message in incomplete:
            print(f"{message.file}:{message.line}: {message.parts}")
        return int(bool(incomplete))
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text())
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
