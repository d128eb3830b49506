"""Write the table of packages in ARCHITECTURE.md from their docstrings.

`python docs/tools/packages.py` writes the table. `--check` compares: it prints a difference and exits with 1.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from page import write_or_compare

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "ARCHITECTURE.md"
START, END = "<!-- packages: written by docs/tools/packages.py -->\n", "<!-- end of packages -->\n"
HALVES = {"launcher": ROOT / "entrypoint/nemotron_exec", "injector": ROOT / "sitecustomize/payload"}


def _packages(half: Path) -> list[Path]:
    """The directories with an `__init__.py` below a half, without the half itself and the injector's stand-ins."""
    found = (init.parent for init in half.rglob("__init__.py"))
    hidden = {"sitecustomize", "public"}
    return sorted(path for path in found if path != half and not hidden & set(path.relative_to(half).parts))


def _sentence(package: Path) -> str:
    """The docstring's first paragraph on one line.

    Raises:
        SystemExit: The package has no docstring.
    """
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{package}/__init__.py has no docstring: write one sentence")
    return " ".join(docstring.partition("\n\n")[0].split())


def _modules(package: Path) -> str:
    names = sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("__"))
    return ", ".join(names)


def table() -> str:
    """The rows, between the two marks."""
    lines = []
    for half, root in HALVES.items():
        lines += [f"\n| {half} | what it is for | modules |\n", "|---|---|---|\n"]
        for package in _packages(root):
            cells = (f"`{package.relative_to(root)}/`", _sentence(package), _modules(package))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(lines) + "\n"


def text() -> str:
    """The page with the table of the current code.

    Raises:
        ValueError: The page has lost one of the marks.
    """
    written = PAGE.read_text(encoding="utf-8")
    before, rest = written[: written.index(START) + len(START)], written[written.index(END) :]
    return before + table() + rest


if __name__ == "__main__":
    sys.exit(write_or_compare(PAGE, text()))
