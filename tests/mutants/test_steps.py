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


def test_the_tests_of_a_module_run_before_those_of_its_package_and_all_others():
    own, package, rest, far = run.rounds_of_tests(ROOT, "place", "entrypoint/nemotron_exec/place/rank.py")
    assert own[0] == "tests/place/test_rank.py"
    assert "tests/place/test_job.py" in own  # this test file imports the module
    assert package == ["tests/place"]
    assert rest == ["tests/config", "tests/document", "tests/interpolation", "tests/command"]
    assert "tests/resolution/test_pin.py" in far  # elsewhere, and it imports the module
    assert not set(far) & set(own)
    for name in run.PURE:
        for path in (ROOT / "entrypoint/nemotron_exec" / name).glob("*.py"):
            assert all((ROOT / file).is_file() for file in run.rounds_of_tests(ROOT, name, str(path))[0])


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
    path.write_text("TYPE_CHECKING = False\nx = dict(zip(a, b, strict=True))\nTYPE = False\n")
    assert run.silent_ranges(path) == [((1, 0), (1, 21)), ((2, 19), (2, 30))]
