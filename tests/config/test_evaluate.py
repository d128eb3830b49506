"""What an expression means in its place, and why it has no value here."""

from __future__ import annotations

import itertools
import sys

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.config import evaluate
from nemotron_exec.config.evaluate import Evaluator, Kept, Reached, Value, select_plain
from nemotron_exec.config.root import node_at
from nemotron_exec.document.parse import parse_text
from nemotron_exec.errors import LaunchError

DATA = Artifact("data", "d:v1", "manifest", "d", "v1", "dataset", "/d", "d:v1", metadata={"n": 3, "l": [1, {"k": "v"}]})
TEXT = """\
run: {data: 'd:v1', note: x, own: "${a.n}", deep: {n: 7}}
a: {n: 2, f: 1.5, s: 'text', l: [1, 2, {m: 5}], none: null, missing: '???', date: !!timestamp 2001-01-01,
  here: "${.n}", up: "${..top}", over: "${...top}", far: "${....top}", bad: !!int x, b: {up2: "${..n}"}}
top: 9
loop: ${loop2}
loop2: ${loop}
to_map: ${a}
name: n
art: ${art:data}
list: ${art:data,l}
text: x${a.n}y${art:data,path}
"""


def evaluator(text=TEXT, artifacts={"data": DATA}, **more):  # noqa: B006  # never changed
    return Evaluator(parse_text(text, "c.yaml").tree(), artifacts, **more)


def value(expression, *path, **more):
    """What an expression means that stands at a path."""
    path = path or ("x",)
    ours = evaluator(**more)
    return ours.scalar(parse_text(f"x: {expression}", "c.yaml").tree()["x"], path)


def known(value, ours=False):
    return Value(value, ours)


def broken(why):
    return Kept(why, broken=True)


#  expression: what it means
ROWS = {
    "plain": known("plain"),
    "1": known(1),
    "'???'": broken("x is ???, to be given by somebody else"),
    "!!int x": broken("invalid literal for int() with base 10: 'x'"),
    "!!set {}": None,
    "${a.n}": known(2),
    "${a.s}": known("text"),
    "${a.none}": known(None),
    "${a.l[0]}": known(1),
    "${a.l.1}": known(2),
    "${a.l[-1].m}": known(5),
    "${a.l[-3]}": known(1),
    "${a.l[3]}": broken("there is no a.l.3"),
    "${a.l[-4]}": broken("there is no a.l.-4"),
    "${a.l.x}": broken("there is no a.l.x"),
    "${a.gone}": broken("there is no a.gone"),
    "${gone.n}": broken("there is no gone"),
    "${a.n.x}": broken("a.n has no x"),
    "${a.missing}": broken("a.missing is ???, to be given by somebody else"),
    "${a.date}": Kept("a.date is a date"),
    "${a.bad}": broken("invalid literal for int() with base 10: 'x'"),
    "${a.${name}}": known(2),
    "${a.${a.n}}": broken("an interpolation inside a name gives no string"),
    "${${a}}": broken("an interpolation inside a name gives no string"),
    "${a.${gone}}": broken("there is no gone"),
    "${to_map.n}": known(2),
    "${to_map.l[2].m}": known(5),
    "${loop}": broken("the interpolations run in a circle: loop -> loop2 -> loop"),
    "${run.note}": known("x", ours=True),
    "${run.own}": known(2, ours=True),
    "${run.deep.n}": known(7, ours=True),
    "${art:data}": known("/d", ours=True),
    "${art:data,n}": known(3, ours=True),
    "${art:data,l}": known([1, {"k": "v"}], ours=True),
    "${art:${run.key2}}": None,
    "${list[1].k}": known("v", ours=True),
    "${list[1].z}": broken("list has no z"),
    "${art.x}": broken("art has no x"),
    "x${a.n}y": known("x2y"),
    "x${run.note}y": known("xxy", ours=True),
    "${text}": known("x2y/d", ours=True),
    "x${a}": Kept("a is no scalar"),
    "x${gone}": broken("there is no gone"),
    "x${f:1}": Kept("the resolver f is known only to the job"),
    "${oc.env:HOME}": Kept("the resolver oc.env is known only to the job"),
    "${f:${art:data}}": Kept("the resolver f is known only to the job"),
    "${${name}:1}": Kept("the resolver n is known only to the job"),
    "${${a.n}:1}": broken("an interpolation inside a name gives no string"),
    "${add:1,2}": known(3),
    "${add:a,b}": known("ab"),
    "${add:[1],[2]}": known([1, 2]),
    "${mul:${art:data,n},2}": known(6, ours=True),
    "${mul:2,${art:data,n}}": known(6, ours=True),
    "${div:3,2}": known(1.5),
    "${max:3,2}": known(3),
    "${max:2,${run.deep.n}}": known(7, ours=True),
    "${mul:ab,3}": known("ababab"),
    "${mul:ab,-3}": known(""),
    "${mul:3,ab}": known("ababab"),
    "${mul:[1],2}": known([1, 1]),
    "${mul:abcdefghij,100000}": known("abcdefghij" * 100_000),
    "${mul:abcdefghij,100001}": Kept("mul takes two numbers"),
    "${mul:100001,abcdefghij}": Kept("mul takes two numbers"),
    "${mul:1}": Kept("mul takes two numbers"),
    "${mul:1,2,3}": Kept("mul takes two numbers"),
    "${div:1,0}": broken("div fails: division by zero"),
    "${add:1,a}": broken("add fails: unsupported operand type(s) for +: 'int' and 'str'"),
    "${add:${a},1}": Kept("a is no scalar"),
    "${add:[${a}],1}": Kept("a container as an argument"),
    "${add:[${gone}],1}": broken("there is no gone"),
    "${add:[${art:data,n}],[1]}": known([3, 1], ours=True),
    "${add:'${a.n}',b}": known("2b"),
    "${add:${a.n}${a.n},b}": known("22b"),
    "${max:{a: 1},{a: 1}}": broken("max fails: '>' not supported between instances of 'dict' and 'dict'"),
    "${": None,
}


@pytest.mark.parametrize("expression", [row for row, expected in ROWS.items() if expected is not None])
def test_what_an_expression_means(expression):
    expression_ = (
        expression if expression[0] in "'!" else f"'{expression}'" if "'" not in expression else f'"{expression}"'
    )
    expression_ = "1" if expression == "1" else expression_
    assert value(expression_) == ROWS[expression]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("a", "here"), known(2)),
        (("a", "up"), known(9)),
        (("a", "over"), broken("...top leaves the config")),
        (("a", "far"), broken("....top leaves the config")),
        (("a", "b", "up2"), known(2)),
    ],
)
def test_a_relative_one_counts_from_its_place(path, expected):
    ours = evaluator()
    assert ours.scalar(node_at(ours.tree, path), path) == expected


def test_what_leads_on_too_far_from_one_place_has_its_value_from_a_nearer_one():
    far, near = sys.getrecursionlimit() // 4, sys.getrecursionlimit() // 8
    ours = evaluator("a0: 1\n" + "".join(f"a{number + 1}: ${{a{number}}}\n" for number in range(far)))
    assert ours.scalar(ours.tree[f"a{far}"], (f"a{far}",)) == broken("the interpolations lead on too far")
    assert ours.scalar(ours.tree[f"a{near}"], (f"a{near}",)) == known(1)


def test_a_value_that_many_others_ask_for_is_found_once():
    names = [f"a{number}" for number in range(12)]
    lines = [f"{name}: ${{max:${{{below}}},${{{below}}}}}" for below, name in itertools.pairwise(names)]
    looked_at = []
    ours = evaluator("a0: 1\n" + "\n".join(lines), touched=looked_at.append)
    assert ours.scalar(ours.tree["a11"], ("a11",)) == known(1)
    assert len(looked_at) == 22  # twice for each of the eleven, not two to the power of eleven


def test_the_last_entry_of_a_list_is_the_one_that_an_override_changes():
    touched = {("l", 1), ("m", 1), ("m", 1, "k")}.__contains__
    for name, why in (("l[-1]", "l.1"), ("m[-1].k", "m.1.k"), ("l[1]", "l.1")):
        found = value(f"'${{{name}}}'", text="l: [1, 2]\nm: [{k: 1}, {k: 2}]\n", touched=touched)
        assert found == Kept(f"{why} is given by an override")


def test_whole_mappings_and_lists_are_those_of_the_config():
    found = value("'${a.l}'")
    assert isinstance(found, Reached)
    assert (found.path, found.tree) == (("a", "l"), evaluator().tree["a"]["l"]) or found.path == ("a", "l")
    assert value("'${to_map}'").path == ("a",)


def test_a_value_of_run_is_decided_by_the_launcher_wherever_it_is_read():
    ours = evaluator()
    assert ours.scalar(ours.tree["run"]["own"], ("run", "own")) == known(2, ours=True)
    assert ours.scalar(ours.tree["run"]["note"], ("run", "note")) == known("x", ours=True)
    assert value("plain", "run", "y") == known("plain", ours=True)


#  expression: what stops the start
ERRORS = {
    "${art:gone}": ("run.gone names no artifact that was resolved", "Keys under run that do: data"),
    "${art:data,pth}": ("d:v1 has no field 'pth'", "Did you mean path? Its fields: "),
    "${art:}": ("art takes NAME and FIELD, here are 0 arguments", "Write ${art:NAME,FIELD}"),
    "${art:a,b,c}": ("art takes NAME and FIELD, here are 3 arguments", "Write ${art:NAME,FIELD}"),
    "${art:${gone}}": ("there is no gone", "Correct the interpolation"),
    "${manifest:/x,${gone}}": ("there is no gone", "Correct the interpolation"),
    "${manifest:/x}": ("manifest takes DIRECTORY and KEY, here are 1 arguments", "Correct the call"),
    "${manifest:/x,y,z}": ("manifest takes DIRECTORY and KEY, here are 3 arguments", "Correct the call"),
    "${manifest:/gone,y}": ("/gone/manifest.json cannot be read", "Run the data preparation first"),
    "${div:${art:data,n},0}": ("ZeroDivisionError: division by zero", "Correct the operands"),
    "${add:${art:data,n},a}": ("TypeError: ", "Correct the operands"),
}


@pytest.mark.parametrize("expression", ERRORS)
def test_what_an_artifact_cannot_be_is_one_error(expression):
    found, remedy = ERRORS[expression]
    with pytest.raises(LaunchError) as caught:
        value(f"'{expression}'")
    assert caught.value.wanted == f"to resolve {expression} (c.yaml:1)"
    assert found in caught.value.found
    assert caught.value.remedy.startswith(remedy)


def test_without_artifacts_their_keys_are_collected():
    ours = evaluator("x: '${art:a}${art:${f:1}}${art:b,${f:2}}'\ny: '${art:a,n}'\n", artifacts=None)
    x, y = ours.tree["x"], ours.tree["y"]
    assert ours.scalar(x, ("x",)) == Kept("not resolved yet")
    assert ours.scalar(y, ("y",)) == Kept("not resolved yet")
    assert ours.used == {"a": x}
    assert ours.undecided == [x]
    with pytest.raises(LaunchError, match="Keys under run that do: none"):
        value("'${art:a}'", artifacts={})


@pytest.mark.parametrize(
    ("content", "found", "remedy"),
    [
        ('{"a": 1, "b": {"c": [1]}}', None, None),
        ('{"aa": 1}', "has no key 'a'", "Did you mean aa? Its keys: aa"),
        ("{}", "has no key 'a'", "Its keys: none"),
        ("[1]", "has no key 'a'", "Its keys: none"),
        ("{", "cannot be read", "Run the data preparation first"),
    ],
)
def test_a_key_of_a_manifest_is_its_text(tmp_path, content, found, remedy):
    (tmp_path / "manifest.json").write_text(content)
    expression = f"${{manifest:{tmp_path},a}}"
    assert value(expression, artifacts=None) == Kept("not resolved yet")
    if found is None:
        assert value(expression) == known("1", ours=True)
        assert value(f"${{manifest:{tmp_path},b}}") == known("{'c': [1]}", ours=True)
        return
    with pytest.raises(LaunchError) as caught:
        value(expression)
    assert found in caught.value.found
    assert caught.value.remedy == remedy


ENVIRON = {"NAME": "n", "MY_TOKEN": "t", "EMPTY": ""}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("${oc.env:NAME}", known("n")),
        ("${oc.env:NAME,x}", known("n")),
        ("${oc.env:EMPTY,x}", known("")),
        ("${oc.env:GONE,x}", known("x")),
        ("${oc.env:GONE,3}", known("3")),
        ("${oc.env:GONE,null}", known(None)),
        ("${oc.env:GONE}", broken("the environment has no GONE")),
        ("${oc.env:MY_TOKEN}", broken("the variable MY_TOKEN looks like a secret, and would be written down")),
        ("${oc.env:my_key,x}", broken("the variable my_key looks like a secret, and would be written down")),
        ("${oc.env:NAME,x,y}", broken("oc.env takes a name and a default")),
        ("${oc.env:}", broken("oc.env takes a name and a default")),
        ("${oc.env:${gone}}", broken("there is no gone")),
        ("${oc.env:${name},x}", known("x")),
    ],
)
def test_a_variable_of_the_environment(expression, expected):
    assert value(f"'{expression}'", environ=ENVIRON) == expected


def test_what_an_override_says_is_not_known_here():
    def touched(*paths):
        exact = set(paths)
        return {"replaced": exact.__contains__, "touched": exact.__contains__}

    given = "is given by an override"
    assert value("'${a.n}'", **touched(("a", "n"))) == Kept(f"a.n {given}")
    assert value("'${a.n}'", **touched(("a",))) == Kept(f"a {given}")
    assert value("'${a.l[0]}'", **touched(("a", "l", 0))) == Kept(f"a.l.0 {given}")
    assert value("'${a.gone}'", **touched(("a", "gone"))) == Kept(f"a.gone {given}")
    assert value("'${a.n}'", **touched(("a", "s"))) == known(2)
    assert value("'${..x}'", "a", "x", **touched(("",))) == broken("there is no x")
    assert value("'${...x}'", "a", "x", **touched(("",))) == Kept("its place in the config is not known")
    assert value("'${.x}'", "gone", "x") == broken("gone was replaced")
    assert value("'${.x}'", "gone", "x", **touched(("gone",))) == Kept("gone was replaced")


def test_values_that_are_too_long_are_an_error_where_an_artifact_decides_them(monkeypatch):
    monkeypatch.setattr(evaluate, "_MAX_RESULT", 4)
    assert value("'${a.s}${a.n}'") == Kept("it would be too long")
    assert value("'${a.s}'") == known("text")
    assert value("'${a.s}${a.s}'") == Kept("it would be too long")
    assert value("'abcdef${a.n}'") == known("abcdef2")  # only what is repeated counts
    assert value("'${a.n}${a.n}${a.n}${a.n}'") == known("2222")
    for expression in ("${run.note}${a.s}", "${a.s}${a.n}${run.note}"):
        if expression.startswith("${run"):
            with pytest.raises(LaunchError) as caught:
                value(f"'{expression}'")
            assert caught.value.wanted == f"to resolve {expression} (c.yaml:1)"
            assert caught.value.found == "the values that it leads to are too long"
        else:
            assert value(f"'{expression}'") == Kept("it would be too long")


def test_how_much_one_config_may_lead_to(monkeypatch):
    monkeypatch.setattr(evaluate, "_MAX_TOTAL", 10)
    ours = evaluator()
    scalar = parse_text("x: '${a.s}'", "c.yaml").tree()["x"]
    (part,) = scalar.expression.parts
    assert [ours.within(scalar, part, ()) for _ in range(2)] == [known("text")] * 2
    with pytest.raises(LaunchError, match="the values that it leads to are too long"):
        ours.within(scalar, part, ())
    for most in (8, 11):  # each is four characters long, and what has no value has no length
        monkeypatch.setattr(evaluate, "_MAX_TOTAL", most)
        ours = evaluator()
        other = parse_text("x: '${gone}'", "c.yaml").tree()["x"]
        assert [ours.within(scalar, part, ()) for _ in range(2)] == [known("text")] * 2
        assert ours.within(other, other.expression.parts[0], ()) == broken("there is no gone")
        with pytest.raises(LaunchError, match="the values that it leads to are too long"):
            ours.within(scalar, part, ())


@pytest.mark.parametrize(
    ("keys", "expected"),
    [((), "tree"), (("a", "l"), [1]), (("a", "l", "0"), 1), (("a", "l", "-1"), 1), (("a", "l", "1"), None),
     (("b",), None), (("a", "l", "0", "x"), None), (("a", "l", "x"), None)],
)  # fmt: skip
def test_what_stands_at_a_path(keys, expected):
    tree = {"a": {"l": [1]}}
    assert select_plain(tree, keys) == (tree if expected == "tree" else expected)


def test_interpolations_that_lead_on_too_far_are_an_error_and_those_further_on_are_not():
    text = "".join(f"x{number}: '${{x{number + 1}}}'\n" for number in range(300)) + "x300: 1\nart: ${art:${x0}}\n"
    ours = evaluator(text)
    assert ours.scalar(ours.tree["x0"], ("x0",)) == broken("the interpolations lead on too far")
    assert ours.scalar(ours.tree["x200"], ("x200",)) == known(1)
    with pytest.raises(LaunchError, match="the interpolations lead on too far"):
        ours.scalar(ours.tree["art"], ("art",))
    (part,) = ours.tree["x0"].expression.parts
    assert evaluator(text).within(ours.tree["x0"], part, ()) == broken("the interpolations lead on too far")
