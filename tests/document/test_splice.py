"""Edits of a YAML text. Every written text is read again before it is returned."""

from __future__ import annotations

import itertools
import math

import pytest
import yaml

from nemotron_exec.document import splice as module
from nemotron_exec.document.edit import Retext, Whole
from nemotron_exec.document.parse import parse_text
from nemotron_exec.document.splice import Changes, splice
from nemotron_exec.errors import LaunchError

TEXT = """\
a: old
list: [1, 2]
inner: {b: 1, c: text}
shared: &one {d: 1}
again: *one
"""


def value_of(document, name):
    return next(value for key, value in document.root.pairs if key.value == name)


def changed(text, name, edit):
    document = parse_text(text, "cfg.yaml")
    changes = Changes()
    scalar = value_of(document, name)
    changes.scalars[id(scalar)] = (scalar, edit)
    return document, changes


WRONG = {
    "no YAML any more": lambda text: text + "x: [1\n",
    "a value that is another": lambda text: text.replace("new", "other"),
    "a value that comes before it": lambda text: text.replace("new", "a"),
    "a value that is no text any more": lambda text: text.replace("new", "1"),
    "a value beside it that is another": lambda text: text.replace("c: text", "c: texts"),
    "a value beside it that has got quotes": lambda text: text.replace("b: 1", "b: '1'"),
    "a list that is longer": lambda text: text.replace("[1, 2]", "[1, 2, 3]"),
    "a list that is shorter": lambda text: text.replace("[1, 2]", "[1]"),
    "a mapping that is longer": lambda text: text + "more: 1\n",
    "a mapping that is shorter": lambda text: text.replace(", c: text", ""),
    "a key that is another": lambda text: text.replace("c: text", "e: text"),
    "a list that is a mapping": lambda text: text.replace("[1, 2]", "{1: 2}"),
    "a list that is a text": lambda text: text.replace("[1, 2]", "12"),
    "an alias that is a copy": lambda text: text.replace("*one", "{d: 1}"),
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("edit", [Whole("new"), Retext("new")], ids=["whole", "text"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_text_that_reads_as_something_else_is_not_given_out(wrong, edit, monkeypatch):
    document, changes = changed(TEXT, "a", edit)
    apply = module._apply
    monkeypatch.setattr(module, "_apply", lambda text, pieces: WRONG[wrong](apply(text, pieces)))
    with pytest.raises(
        LaunchError, match="to write the resolved config so that it reads as the original does"
    ) as caught:
        splice(document, changes)
    if wrong == "no YAML any more":  # no line of the original is to blame
        assert caught.value.wanted.endswith("(cfg.yaml)")


@pytest.mark.parametrize("before", ["", f"before: {'x' * 300}\n"], ids=["short", "long"])
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("s: {a}\n", "s: {a: new}\n"),
        ("s: {b: 1, a}\n", "s: {b: 1, a: new}\n"),
        ("s: {a, b: 1}\n", "s: {a: new, b: 1}\n"),
        ("s: {a: , b: 1}\n", "s: {a: new, b: 1}\n"),
        ("s:\n  a:\n  b: 1\n", "s:\n  a: new\n  b: 1\n"),
        ("s:\n  a: # none\n  b: 1\n", "s:\n  a: new # none\n  b: 1\n"),
        ('s: {"a":1}\n', 's: {"a": new}\n'),
        ("s: {? a}\n", "s: {? a: new}\n"),
        ("s: {a # b: c\n }\n", "s: {a: new # b: c\n }\n"),
        ("s:\n  ? a\n", "s:\n  ? a\n  : new\n"),
        ("s:\n  ? a # b: c\n  # d\n  ? b\n", "s:\n  ? a\n  : new # b: c\n  # d\n  ? b\n"),
        ("s:\n  ? a\n  # b\n  :\n", "s:\n  ? a\n  # b\n  : new\n"),
        ("s:\n  ? b\n  ? a", "s:\n  ? b\n  ? a\n  : new"),
        ("s:\r\n  ? a\r\n", "s:\r\n  ? a\r\n  : new\r\n"),
        ("s: {b: 1, a:\nx}\n", "s: {b: 1, a:\nnew}\n"),
        ("s: {a:\n     [x]}\n", "s: {a:\n     new}\n"),
        ("s:\n  a:\n  - x\n", "s:\n  a:\n   new\n"),
    ],
)
def test_a_key_takes_another_value_or_its_first(before, text, written):
    document = parse_text(before + text, "cfg.yaml")
    (pair,) = [pair for pair in value_of(document, "s").pairs if pair[0].value == "a"]
    changes = Changes()
    changes.replaced[id(pair[0])] = (*pair, "new")
    assert splice(document, changes) == before + written


BLOCK = [
    "{}: 1",
    "{}:",
    "{}: {{x: 1}}",
    "{}:\n    x: 1",
    "{}: |\n    t",
    "{}: |+\n    t",
    "? {}",
    "? {}\n  : 1",
    "{}: *one",
]
BLOCK += ["{}: b?", "'{}': # none", "{}:\n  - x: 1\n    y: 2", "{}:\n    - *one", "{}:\n    <<: *one"]
FLOW = ["{}: 1", "{}: ", "{}", "? {}", "? {} : 1", '"{}":1', "{}: *one", "{}: [x, y]", "{}: {{x: 1}}"]


def mappings():
    """Mappings of one to three keys, each written in one of the forms."""
    for forms, text in (
        (BLOCK, "one: &one {{d: 1}}\ns:\n  {}\nz: 1\n"),
        (FLOW, "one: &one {{d: 1}}\ns: {{{}}}\nz: 1\n"),
    ):
        between = ", " if forms is FLOW else "\n  "
        for size in (1, 2, 3):
            for chosen in itertools.product(forms, repeat=size):
                if size < 3 or len(set(chosen)) == 2:
                    yield text.format(between.join(form.format(key) for form, key in zip(chosen, "abc", strict=False)))


def read(text):
    return yaml.load(text, Loader=yaml.CSafeLoader)


def test_a_key_in_any_form_takes_a_value_goes_and_gets_a_neighbour():
    for text in mappings():
        before = read(text)
        document = parse_text(text, "cfg.yaml")
        mapping = value_of(document, "s")
        for key, value in mapping.pairs:
            changes = Changes()
            changes.replaced[id(key)] = (key, value, "new")
            assert read(splice(document, changes)) == {**before, "s": {**before["s"], key.value: "new"}}, text
            changes = Changes()
            changes.removed[id(key)] = (mapping, key)
            rest = {name: value for name, value in before["s"].items() if name != key.value}
            assert read(splice(document, changes)) == {**before, "s": rest}, text
        changes = Changes()
        changes.added[id(mapping)] = (mapping, {"n": 1, "m": "x"})
        after = read(splice(document, changes))
        assert after == {**before, "s": {"n": 1, "m": "x", **before["s"]}}, text
        assert list(after["s"])[:2] == ["n", "m"]


def test_what_reads_as_it_should_is_given_out():
    document, changes = changed(TEXT, "a", Whole("new"))
    assert splice(document, changes) == TEXT.replace("old", "new")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "a: .nan\n"),
        (math.inf, "a: .inf\n"),
        (-math.inf, "a: -.inf\n"),
        ([math.nan, {"k": math.nan}], "a: [.nan, {k: .nan}]\n"),
        ("nan", 'a: "nan"\n'),
        (".nan", 'a: ".nan"\n'),
    ],
    ids=str,
)
def test_what_is_no_number_and_what_only_looks_like_it(value, text):
    document, changes = changed("a: old\n", "a", Whole(value))
    written = splice(document, changes)
    assert written == text
    assert repr(yaml.safe_load(written)["a"]) == repr(value)


def test_a_number_is_no_other_one_because_it_compares_equal(monkeypatch):
    # 1, 1.0 and true are equal in Python, but three values in a config.
    document, changes = changed("a: old\n", "a", Whole(1))
    for other in ("1.0", "true"):
        monkeypatch.setattr(module, "_apply", lambda text, pieces, other=other: f"a: {other}\n")
        with pytest.raises(LaunchError, match="reads back differently"):
            splice(document, changes)


def test_a_number_that_reads_as_none_is_not_given_out(monkeypatch):
    document, changes = changed("a: old\n", "a", Whole(1.5))
    assert splice(document, changes) == "a: 1.5\n"
    monkeypatch.setattr(module, "_apply", lambda text, pieces: "a: .nan\n")
    with pytest.raises(LaunchError, match="reads back differently"):
        splice(document, changes)
    document, changes = changed("a: old\n", "a", Whole(math.nan))
    monkeypatch.setattr(module, "_apply", lambda text, pieces: "a: 1.5\n")
    with pytest.raises(LaunchError, match="reads back differently"):
        splice(document, changes)


#  text, the edit of `a`: the text then
EDITED = [
    ("a: x\n", Whole("new"), "a: new\n"),
    ("a: 'x'\n", Whole(5), "a: 5\n"),
    ("a: &k x\nb: *k\n", Whole("new"), "a: &k new\nb: *k\n"),
    ("a: !!str &k x\nb: *k\n", Whole("new"), "a: &k new\nb: *k\n"),
    ("a: &k 'x'\nb: *k\n", Retext("new"), "a: &k 'new'\nb: *k\n"),
    ("a: !!str x\n", Retext("new"), "a: !!str new\n"),
    ("a: ! x\n", Retext("new"), "a: ! new\n"),
    ("a: !!int 5\n", Retext("new"), "a: new\n"),
    ("a: x # c\n", Whole([1, "b:c"]), 'a: [1, "b:c"] # c\n'),
    ("a: x\n", Whole({"${b}": 1, 2: "c"}), 'a: {"${b}": 1, 2: c}\n'),
    ("a: x\n", Retext("${b}\n"), 'a: "${b}\\n"\n'),
    ("a: |\n  x\nb: 1\n", Whole("new"), "a: new\nb: 1\n"),
    ("a: |\n  x\n", Whole("new"), "a: new\n"),
    ("a: >\n  x\n\nb: 1\n", Whole(5), "a: 5\n\nb: 1\n"),
    ("{a: x, b: 1}\n", Whole("n:w"), '{a: "n:w", b: 1}\n'),
    ("{a: x, b: 1}\n", Retext("n:w"), '{a: "n:w", b: 1}\n'),
    ("a: x\n", Retext("n:w"), "a: n:w\n"),
    ("a: x\n", Retext("new word"), "a: new word\n"),
    ("a: x\n", Retext("/p/q.r"), "a: /p/q.r\n"),
    ("a: x\n", Retext("${b}/c d"), "a: ${b}/c d\n"),
    ("{a: x}\n", Retext("${b}"), '{a: "${b}"}\n'),
    ("a: x\n", Retext(""), 'a: ""\n'),
    ("a: x\n", Retext("5"), 'a: "5"\n'),
    ("a: x\n", Retext("on"), 'a: "on"\n'),
    ("a: x\n", Retext("none"), 'a: "none"\n'),
    ("a: x\n", Retext("1e-5"), 'a: "1e-5"\n'),
    ("a: x\n", Retext("2001-01-01"), 'a: "2001-01-01"\n'),
    ("a: x\n", Retext("2001-01-01 10:00:00"), 'a: "2001-01-01 10:00:00"\n'),
    ("a: x\n", Retext("="), 'a: "="\n'),
    ("a: x\n", Retext("a: b"), 'a: "a: b"\n'),
    ("a: x\n", Retext("a #b"), 'a: "a #b"\n'),
    ("a: x\n", Retext("a:"), 'a: "a:"\n'),
    ("a: x\n", Retext("a "), 'a: "a "\n'),
    ("a: x\n", Retext("- a"), 'a: "- a"\n'),
    ("a: x\n", Retext("@a"), 'a: "@a"\n'),
    ("a: x\n", Retext("a\nb"), 'a: "a\\nb"\n'),
    ("a: x\n", Retext("é è"), 'a: "é è"\n'),
    ("a: 'x'\n", Retext("é\u2028"), 'a: "é\\u2028"\n'),
    ("a: 'x'\n", Retext("é"), "a: 'é'\n"),
    ("a: 'x'\n", Retext("it's"), 'a: "it\'s"\n'),
    ("a: 'x'\n", Retext("a\tb"), 'a: "a\\tb"\n'),
    ("a: 'x'\n", Retext("a\\b"), 'a: "a\\\\b"\n'),
    ("a: 'it''s'\n", Retext("new"), 'a: "new"\n'),
    ('a: "x"\n', Retext("it's"), 'a: "it\'s"\n'),
    ('a: "x"\n', Retext('a"b'), 'a: "a\\"b"\n'),
    ("a: 'x\n  y'\n", Retext("new"), 'a: "new"\n'),
    ("a: x\n  y\n", Retext("new"), 'a: "new"\n'),
    ("a: |\n  x\n  y\nb: 1\n", Retext("x\nnew\n"), "a: |\n  x\n  new\nb: 1\n"),
    ("a: |\n    x\n    y\n", Retext("new\ny\n"), "a: |\n    new\n    y\n"),
    ("a: |\n\n  x\n", Retext("\nnew\n"), "a: |\n\n  new\n"),
    ("a: |\r\n  x\r\n  y\r\n", Retext("new\ny\n"), "a: |\r\n  new\r\n  y\r\n"),
    ("a: |-\n  x\n  y", Retext("x\nnew"), "a: |-\n  x\n  new"),
    ("a: |+\n  x\n\nb: 1\n", Retext("new\n\n"), "a: |+\n  new\n\nb: 1\n"),
    ("a: | # 3\n  x\n", Retext("new\n"), "a: | # 3\n  new\n"),
    ("a: |2\n  x\nb: 1\n", Retext("new\n"), 'a: "new\\n"\nb: 1\n'),
    ("a: |\n  x\nb: 1\n", Retext("x\nnew\n"), 'a: "x\\nnew\\n"\nb: 1\n'),
    ("a: |\n  x\n  y\nb: 1\n", Retext("new\n"), 'a: "new\\n"\nb: 1\n'),
    ("a: |\n  x\nb: 1\n", Retext(" new\n"), 'a: " new\\n"\nb: 1\n'),
    ("a: |\n  x\nb: 1\n", Retext("\tnew\n"), 'a: "\\tnew\\n"\nb: 1\n'),
    ("a: |\n  x\n  y\nb: 1\n", Retext("x\n new\n"), "a: |\n  x\n   new\nb: 1\n"),
    ("a: |\n  x\n  y\nb: 1\n", Retext("x\n \n"), 'a: "x\\n \\n"\nb: 1\n'),
    ("a: |\n  x\nb: 1\n", Retext("n\x07w\n"), 'a: "n\\x07w\\n"\nb: 1\n'),
    ("a: >\n  x\nb: 1\n", Retext("new\n"), 'a: "new\\n"\nb: 1\n'),
    # YAML 1.1 ends a line at U+0085, too: the value has more lines than the text of the file.
    ("a: |\n  x\x85  y\x85  z\nb: 1\n", Retext("x\ny\nnew\n"), 'a: "x\\ny\\nnew\\n"\nb: 1\n'),
    ("a: |\n  x\x85  y\nb: 1\n", Retext("new\ny\n"), 'a: "new\\ny\\n"\nb: 1\n'),
]


@pytest.mark.parametrize(("text", "edit", "expected"), EDITED)
def test_a_scalar_keeps_its_style_where_that_can_hold_the_new_text(text, edit, expected):
    document, changes = changed(text, "a", edit)
    written = splice(document, changes)
    assert written == expected
    value = edit.value if isinstance(edit, Whole) else edit.text
    assert yaml.load(written, Loader=yaml.CSafeLoader)["a"] == value


def test_a_value_without_a_form_is_one_error_with_its_line():
    document, changes = changed("b: 1\na: ${x}\n", "a", Whole("\ud800"))
    with pytest.raises(LaunchError) as caught:
        splice(document, changes)
    assert caught.value.wanted == "to write the value of ${x} (cfg.yaml:2)"
    assert caught.value.remedy == "Choose another field"


@pytest.mark.parametrize(
    ("text", "added", "expected"),
    [
        ("", {"run": {"a": 1}}, "run: {a: 1}\n"),
        ("# c", {"run": 1}, "# c\nrun: 1\n"),
        ("# c\n", {"run": 1, "x": 2}, "# c\nrun: 1\nx: 2\n"),
        ("a: 1\n", {"run": 1}, "run: 1\na: 1\n"),
        ("# c\n\na: 1\n", {"run": 1}, "# c\n\nrun: 1\na: 1\n"),
        ("{a: 1}\n", {"run": 1}, "{run: 1, a: 1}\n"),
        ("{}\n", {"run": 1}, "{run: 1}\n"),
        ("--- {}\n", {"run": 1}, "--- {run: 1}\n"),
        ("a: 1\r\n", {"run": 1}, "run: 1\r\na: 1\r\n"),
        ("? a\n: 1\n", {"run": 1}, "run: 1\n? a\n: 1\n"),
    ],
)
def test_keys_at_the_top_are_added_before_the_first(text, added, expected):
    document = parse_text(text, "cfg.yaml")
    changes = Changes()
    changes.root |= added
    assert bool(changes)
    assert splice(document, changes) == expected


def test_without_changes_a_text_is_itself():
    for text in ("", "# c\n", "a: 1\n", "[1, 2]\n"):
        assert splice(parse_text(text, "cfg.yaml"), Changes()) == text
    assert not Changes()


WRONG_ADDED = {
    "another key": lambda text: text.replace("new", "newer"),
    "another value": lambda text: text.replace("7", "8"),
    "a text": lambda text: text.replace("7", "'7'"),
    "one more": lambda text: text.replace("new: 7", "new: 7, m: 1"),
    "none": lambda text: text.replace("new: 7", ""),
    "a list": lambda text: text.replace("{<<: *one, new: 7}", "[7]").replace("[1, b]", "7"),
}


@pytest.mark.parametrize("wrong", WRONG_ADDED)
@pytest.mark.parametrize("kind", ["added", "wrapped", "replaced"])
def test_a_key_that_reads_as_something_else_is_not_given_out(wrong, kind, monkeypatch):
    document = parse_text("one: &one {d: 1}\nlast: *one\nb: {c: x}\n", "cfg.yaml")
    changes = Changes()
    keys = {key.value: (key, value) for key, value in document.root.pairs}
    if kind == "added":
        changes.added[id(keys["b"][1])] = (keys["b"][1], {"new": 7})
    elif kind == "wrapped":
        changes.wrapped[id(keys["last"][0])] = (keys["last"][0], {"new": 7})
    else:
        changes.replaced[id(keys["b"][0])] = (*keys["b"], {"new": 7})
    assert "new: 7" in splice(document, changes)
    apply = module._apply
    wrongly = {"added": "{new: 7, c: x}", "replaced": "{new: 7}", "wrapped": "{<<: *one, new: 7}"}[kind]
    spoil = (lambda text: text.replace(wrongly, "[7]")) if wrong == "a list" else WRONG_ADDED[wrong]
    monkeypatch.setattr(module, "_apply", lambda text, pieces: spoil(apply(text, pieces)))
    with pytest.raises(LaunchError, match="to write the resolved config so that it reads as the original does"):
        splice(document, changes)
