"""Each group of `make bench` can start: what it imports, at its top or later, is there."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys

import pytest

from places import ROOT

GROUPS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("group", GROUPS)
def test_what_a_group_imports_is_there(group):
    # In a process of its own: a group puts directories in front of sys.path, as `make bench` lets it.
    needs = [*imported(ROOT / "benchmarks" / f"{group}.py")]
    program = (
        f"import importlib, sys\nimport benchmarks.{group}\n"
        f"for module, name in {needs!r}:\n"
        "    found = importlib.import_module(module)\n"
        "    assert hasattr(found, name) or importlib.import_module(f'{module}.{name}'), (module, name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_bench_runs_every_group():
    from benchmarks import __main__ as bench

    shared = {"__main__", "environments", "pairs", "row"}
    assert sorted(bench.GROUPS) == [group for group in GROUPS if group not in shared]


def imported(path):
    """(module, name) of every `from … import …` that names a module of this machine, wherever it stands in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__" and not node.level:
            root = node.module.partition(".")[0]
            if root in ("benchmarks", "nemotron_exec") or importlib.util.find_spec(root) is not None:
                for name in node.names:
                    yield node.module, name.name
