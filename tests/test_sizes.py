"""Bounds on the size of modules and classes, in lines, for the reader's sake."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "entrypoint" / "nemotron_exec"
PAYLOAD = ROOT / "sitecustomize" / "payload"

# The evaluator of expressions is one recursive function with many cases. Two files would only hide that.
EXEMPT = LAUNCHER / "config" / "evaluate.py"

# The launcher's package has a link to the payload, so skip that path.
MODULES = [path for path in sorted(LAUNCHER.rglob("*.py")) if "sitecustomize" not in path.parts] + [
    *sorted(PAYLOAD.rglob("*.py"))
]


def classes_of(source: str) -> dict[str, int]:
    """Each class with its lines, decorators and docstring included."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in nodes}


def test_the_modules_are_found():
    assert EXEMPT in MODULES
    assert PAYLOAD / "manifest" / "files.py" in MODULES


def test_the_lines_of_a_class_are_counted_to_its_last():
    assert classes_of("class A:\n    x = 1\n\n    def f(self):\n        return 1\n\n\nclass B: ...\n") == {
        "A": 5,
        "B": 1,
    }


def test_no_module_has_over_400_lines_and_no_class_over_200():
    too_long = {}
    for path in MODULES:
        if path == EXEMPT:
            continue
        source = path.read_text()
        found = {name: lines for name, lines in classes_of(source).items() if lines > 200}
        if (lines := len(source.splitlines())) > 400:
            found["module"] = lines
        if found:
            too_long[str(path.relative_to(ROOT))] = found
    assert too_long == {}
