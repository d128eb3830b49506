"""`${art:…}` in an override: Hydra and OmegaConf read the filled word as they would have read the original."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from expressions import QUICK, THOROUGH
from nemotron_exec.config.override_value import fill
from nemotron_exec.document.edit import Retext, Whole

VALUES = {
    "path": "/artifacts/m1",
    "size": 4096,
    "ratio": 1e-5,
    "yes": True,
    "none": None,
    "text": "4096",
    "null": "null",
    "empty": "",
    "odd": "a b,c",
    "equal": "epoch=1.ckpt",
    "quote": "it's",
    "slash": "a\\b",
    "dollar": "x${y}",
    "list": [1, "a b"],
    "wide": " x ",
}
PARSER = OverridesParser.create()


def replace(expression):
    """The launcher's values: it knows the fields above, and no other resolver."""
    if expression.startswith("${art:d,"):
        return Whole(VALUES[expression[len("${art:d,") : -1]])
    return None


@pytest.fixture(autouse=True, scope="module")
def _resolvers():
    OmegaConf.register_new_resolver("art", lambda _, field: VALUES[field], replace=True)
    OmegaConf.register_new_resolver("other", lambda text: f"<{text}>", replace=True)
    yield
    OmegaConf.clear_resolvers()


def value_of(override):
    config = OmegaConf.create({"known": "k", "x": override.value()})
    return OmegaConf.to_container(config, resolve=True)["x"]


def jobs(text):
    """The value of x in each job that Hydra starts for `+x=TEXT`."""
    (override,) = PARSER.parse_overrides([f"+x={text}"])
    if not override.is_sweep_override():
        return [value_of(override)]
    return [value_of(PARSER.parse_overrides([word])[0]) for word in override.sweep_string_iterator()]


def dotlist(text):
    """The value of x that OmegaConf reads."""
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"x={text}"]), resolve=True)["x"]


FIELDS = st.sampled_from(sorted(VALUES)).map(lambda name: f"${{art:d,{name}}}")
INTERPOLATIONS = st.one_of(FIELDS, FIELDS, FIELDS, st.sampled_from(["${known}", "${other:z}"]))
UNQUOTED = st.sampled_from(
    ["a", "Z_9", "1", "-2", "1e5", ".5", "null", "true", "nan", "/", "-", "+", ".", "$", "%", "*", "@", "?", "|", ":"]
    + ["\\=", "\\,", "\\(", "\\]", "\\{", "\\:", "\\ ", "\\\\", " ", "\\"]
)
BARE = st.lists(st.one_of(INTERPOLATIONS, UNQUOTED), min_size=1, max_size=4).map("".join)
QUOTED = st.tuples(
    st.sampled_from("'\""),
    st.lists(
        st.one_of(
            INTERPOLATIONS,
            st.sampled_from(["a", " ", ",", "=", "(", "]", "1", "\\", "é", "\\'", '\\"', "'", '"', "\t", "#"]),
        ),
        max_size=3,
    ),
).map(lambda pair: pair[0] + "".join(pair[1]) + pair[0])
PRIMITIVE = st.one_of(BARE, BARE, QUOTED)


def _containers(element):
    items = st.lists(element, max_size=3)
    pairs = st.lists(st.tuples(st.sampled_from(["k", "k2", "\\:"]), element), max_size=2)
    calls = st.sampled_from(
        ["choice", "choice", "choice", "extend_list", "str", "int", "bool", "float", "sort", "json_str"]
        + ["shuffle", "tag", "glob", "range", "interval"]
    )
    return st.one_of(
        items.map(lambda found: f"[{','.join(found)}]"),
        pairs.map(lambda found: "{" + ", ".join(f"{key}: {value}" for key, value in found) + "}"),
        st.tuples(calls, items).map(lambda call: f"{call[0]}({', '.join(call[1])})"),
    )


ELEMENT = st.recursive(PRIMITIVE, _containers, max_leaves=4)
TEXTS = st.one_of(ELEMENT, st.lists(ELEMENT, min_size=2, max_size=3).map(",".join))


FEW = settings(QUICK, max_examples=30)  # ANTLR of Hydra and OmegaConf is slow; CI tries more examples


def the_same_in_every_job(text):
    try:
        expected = jobs(text)
    except Exception:  # noqa: BLE001  # Hydra does not read the override, or the job cannot resolve it
        assume(False)
    assert repr(jobs(fill(text, replace, hydra=True))) == repr(expected)


@FEW
@given(TEXTS)
@example("${art:d,path},${art:d,size}")
@example("choice(${art:d,path},/plain)")
@example("${art:d,path}/epoch\\=1.ckpt")
@example('"${art:d,size}"')
@example("{a: x:${art:d,size}}")
@example("1${art:d,size}")
@example("str(${art:d,size})")
@example("${art:d,odd}/z,b")
@example("\\${art:d,size}")
@example("a\\\\${art:d,size}")
@example("${art:d,dollar} ")
@example("${art:d,list} ")
@example("${art:d,empty} ${art:d,empty}")
def test_hydra_finds_the_same_in_every_job(text):
    the_same_in_every_job(text)


@pytest.mark.ci
@THOROUGH
@given(TEXTS)
def test_hydra_finds_the_same_in_every_job_thoroughly(text):
    the_same_in_every_job(text)


def the_same_in_a_dot_list(text):
    try:
        expected = dotlist(text)
    except Exception:  # noqa: BLE001  # no YAML
        assume(False)
    assert repr(dotlist(fill(text, replace, hydra=False))) == repr(expected)


@FEW
@given(TEXTS)
@example("${art:d,path},${art:d,size}")
@example("${art:d,path}/epoch\\=1.ckpt")
@example('"${art:d,size}"')
@example("2024-01-0${art:d,yes}")
@example("${art:d,slash}")
@example("choice(),${art:d,dollar}")
@example("${art:d,dollar},[${art:d,dollar},'${art:d,none}']")  # found by hypothesis
@example("'${art:d,size}',a")
@example("choice(),'${art:d,none}'")
@example("${known}|${art:d,yes}:,${known}|${art:d,yes}:")
@example("a${art:d,size}: b")
@example("x(a)${art:d,odd}")
@example("x(a)/${art:d,wide}")
@example("x(a)${art:d,empty}")
def test_a_dot_list_finds_the_same(text):
    the_same_in_a_dot_list(text)


@pytest.mark.ci
@THOROUGH
@given(TEXTS)
def test_a_dot_list_finds_the_same_thoroughly(text):
    the_same_in_a_dot_list(text)


FILLED = {
    "${art:d,path},${art:d,size}": "/artifacts/m1,4096",
    "choice(${art:d,path},/plain)": "choice(/artifacts/m1,/plain)",
    "tag(t, choice(${art:d,path}, ${art:d,odd}))": 'tag(t, choice(/artifacts/m1, "a b,c"))',
    "${art:d,path}/epoch\\=1.ckpt": "/artifacts/m1/epoch\\=1.ckpt",
    "${art:d,equal}/a\\=1": "epoch\\=1.ckpt/a\\=1",
    '"${art:d,size}"': "4096",
    "a\\=,${art:d,odd}": 'a\\=,"a b,c"',
    "'${art:d,path}/x y'": "'/artifacts/m1/x y'",
    "${art:d,size},8": "4096,8",
    "[${art:d,path},{k: ${art:d,size}}]": "[/artifacts/m1,{k: 4096}]",
    "1${art:d,size}": '"14096"',
    "${art:d,text}": '"4096"',
    "${art:d,empty} x": '" x"',
    "${other:z}/${art:d,path}": "${other:z}//artifacts/m1",
    # These stay: a cast would get another text, and the backslash would escape another character.
    "str(${art:d,size})": "str(${art:d,size})",
    "a\\\\${art:d,size}": "a\\\\${art:d,size}",
    "\\${art:d,size}": "\\${art:d,size}",
    "${art:d,quote}\\=": "${art:d,quote}\\=",
}


@pytest.mark.parametrize(("text", "filled"), FILLED.items())
def test_every_other_byte_stays(text, filled):
    assert fill(text, replace, hydra=True) == filled


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("x(a)${art:d,path}", "x(a)/artifacts/m1"),
        ("x(a)/b${art:d,path}", "x(a)/b/artifacts/m1"),
        ("x(\\${art:d,size})${art:d,path}", "x(\\${art:d,size})/artifacts/m1"),
        # YAML takes quotes behind other text as part of the value.
        ("x(a)${art:d,odd}", "x(a)${art:d,odd}"),
    ],
)
def test_an_artifact_behind_a_bracket_of_a_text_is_filled_in_without_quotes(text, filled):
    assert fill(text, replace, hydra=False) == filled


@pytest.mark.parametrize(
    ("text", "new", "filled"),
    [
        ("${own:1}", "${own:'/a'}", "${own:'/a'}"),
        ("'${own:1}'", "${own:/a}", "'${own:/a}'"),
        ("'${own:1}'", "${own:'/a'}", "'${own:1}'"),  # its quote would end the element
        ('"${own:1}"', "${own:'/a'}", "\"${own:'/a'}\""),
    ],
)
def test_an_interpolation_that_stays_gets_its_artifacts_where_its_quotes_allow_it(text, new, filled):
    assert fill(text, lambda _: Retext(new), hydra=True) == filled
