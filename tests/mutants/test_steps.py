"""The list of safety steps fits the code: `make mutants` removes each of them (steps.toml)."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

spec = importlib.util.spec_from_file_location("nemotron_exec_mutants", HERE / "run.py")
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)

STEPS = run.read_steps()


@pytest.fixture(scope="module")
def code():
    return run.read_code(ROOT)


@pytest.fixture(scope="module")
def functions():
    return run.test_functions(ROOT)


@pytest.mark.parametrize("row", STEPS, ids=[row["step"] for row in STEPS])
def test_a_listed_step_is_in_the_code_once_and_its_tests_exist(row, code, functions):
    path = run.place_of(row["text"], code)
    mutant = code[path].replace(row["text"], run.without(row))
    assert mutant != code[path]
    ast.parse(mutant)
    assert row["killed_by"]
    for name in row["killed_by"]:
        assert run.node_of(name, functions)


def test_every_listed_equivalent_says_why():
    assert all(len(why) > 10 for why in run.read_equivalent().values())


def test_every_listed_equivalent_changes_lines_that_the_code_has(code):
    there = {line.strip() for content in code.values() for line in content.splitlines()}
    for lines in run.read_equivalent():
        assert {line[1:].strip() for line in lines if line[0] == "-"} - {""} <= there, lines


def test_a_mutant_is_tried_with_the_tests_that_run_its_statement_the_modules_own_and_the_quickest_first():
    code = "import re\n\ndef f(a):\n    if (\n        a\n    ):\n        return 1\n    return 2\n"
    lines = run.Lines()
    lines.add(
        {
            "tests": {
                "test_m.py::slow": 2.0,
                "test_m.py::quick": 1.0,
                "test_other.py::t": 0.1,
                "test_m.py::none": 0.1,
                "tests/place/test_rank.py::t": 0.2,
                "tests/place/test_bounds.py::t": 0.2,
            },
            "failed": [],
            "lines": {
                "m.py": {
                    1: [""],
                    4: ["test_m.py::slow", "test_m.py::quick"],
                    5: ["test_other.py::t"],
                    7: ["test_m.py::slow"],
                }
            },
        }
    )
    assert lines.of("m.py", code, 7) == ["test_m.py::slow"]
    assert lines.of("m.py", code, 5) == ["test_m.py::quick", "test_m.py::slow", "test_other.py::t"]  # the whole head
    everything = [*lines.of("m.py", code, 5), "tests/place/test_bounds.py::t"]
    assert sorted(lines.of("m.py", code, 1)) == sorted(everything)  # runs on import: every test of the module
    assert lines.of("m.py", code, 8) == lines.of("m.py", code, 1)  # no test runs it
    # A module of definitions alone: the package's tests.
    assert lines.of("x/place/tree.py", code, 8) == ["tests/place/test_bounds.py::t", "tests/place/test_rank.py::t"]


def test_a_step_is_noticed_only_if_each_of_its_tests_fails():
    nodes = ["test_a.py::one", "test_b.py::two[x]"]
    assert run.judge_step(nodes, {"failed": ["test_a.py::one[p]", "test_b.py::two[x]"], "passed": []}) == "killed"
    came = {"failed": ["test_a.py::one"], "passed": ["test_b.py::two[x]"]}
    assert run.judge_step(nodes, came) == "survived test_b.py::two[x]"
    assert run.judge_step(nodes, {"failed": ["test_a.py"], "passed": []}) == "broken test_a.py::one"


def test_the_table_counts_what_has_an_effect():
    table = run.Table()
    for came in ("killed", "killed", "survived", "equivalent", "not tried"):
        table.add("config/hydra", came, "a change")
    table.add("place/job", "killed", "another")
    assert table.total == (4, 0.75)
    assert [" ".join(row.split()) for row in table.lines("sample")] == [
        "sample noticed survived broken equivalent not tried score",
        "config/hydra 2 1 1 1 67%",
        "place/job 1 100%",
        "all 3 1 1 1 75%",
    ]


def test_a_mutant_whose_tests_are_late_is_tried_again_alone_and_only_then_counts_as_noticed():
    tries = {"late once": ["slow", "survived"], "without an end": ["slow", "slow"], "red": ["killed"]}
    patience = []

    def what(tree, piece, *more):
        patience.append(more)
        return tries[piece].pop(0)

    found = dict(run.spread(["tree"], list(tries), what, float("inf")))
    assert found == {"late once": "survived", "without an end": "killed", "red": "killed"}
    assert patience == [(), (), (), (3 * run.PATIENCE,), (3 * run.PATIENCE,)]


def test_what_has_no_effect_at_run_time_is_no_mutant(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(
        "TYPE_CHECKING = False\nx = dict(zip(a, b, strict=True))\nTYPE = False\ndef f(x=1 * 2, *, y=3): ...\n"
    )
    assert run.silent_ranges(path) == [((1, 0), (1, 21)), ((4, 13), (4, 18)), ((2, 19), (2, 30))]


def test_a_change_that_the_compiler_refuses_or_warns_of_is_no_mutant():
    assert run.is_python("x = y is z")
    assert not run.is_python('x = y is "c10d"')
    assert not run.is_python("x = (")
    assert not run.is_python(None)
