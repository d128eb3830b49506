"""The primitives of an override's value: where each begins and ends, and what stands around it."""

from __future__ import annotations

import pytest

from nemotron_exec.config.override_value import _elements, fill, interpolations_in
from nemotron_exec.document.edit import Retext, Whole

A = "${a}"
#  value: of each element that counts its text, its interpolations, its containers, whether it is odd, or glued
ROWS = {
    A: [(A, 1, "", "")],
    f" {A}\t": [(A, 1, "", "")],
    f"x{A}y{A}": [(f"x{A}y{A}", 2, "", "")],
    f"{A},{A}": [(A, 1, "", ""), (A, 1, "", "")],
    f"a,{A}": [("", 0, "", ""), (A, 1, "", "")],
    "": [("", 0, "", "")],
    f"[{A}, b]": [(A, 1, "[", ""), ("", 0, "", "")],
    f"[a,[{A}]]": [(A, 1, "[[", ""), ("", 0, "", "")],
    f"{{k: {A}, l: {A}}}": [(A, 1, "{", ""), (A, 1, "{", ""), ("", 0, "", "")],
    f"{{{A}: b}}": [(f"{A}: b", 1, "{", ""), ("", 0, "", "")],
    f"{{k: a:{A}}}": [(f"a:{A}", 1, "{", ""), ("", 0, "", "")],
    f"{{k: [x:{A}], l: y:{A}}}": [(f"x:{A}", 1, "{[", ""), (f"y:{A}", 1, "{", ""), ("", 0, "", "")],
    f"{{k: f(x:{A})}}": [(f"x:{A}", 1, "{f", ""), ("", 0, "", "")],
    f"{{k: {{l: m:{A}}}}}": [(f"m:{A}", 1, "{{", ""), ("", 0, "", "")],
    f"[x:{A}]": [(f"x:{A}", 1, "[", ""), ("", 0, "", "")],
    f"choice({A},b)": [(A, 1, "choice", ""), ("", 0, "", "")],
    f"f(k={A})": [(A, 1, "f", ""), ("", 0, "", "")],
    f"f(1={A})": [(f"1={A}", 1, "f", ""), ("", 0, "", "")],
    f"[k={A}]": [(f"k={A}", 1, "[", ""), ("", 0, "", "")],
    f"f([k={A}])": [(f"k={A}", 1, "f[", ""), ("", 0, "", "")],
    f"[f(k={A})]": [(A, 1, "[f", ""), ("", 0, "", "")],
    f"k={A}": [(f"k={A}", 1, "", "")],
    f"x(a){A}": [(A, 1, "", "glued")],
    f"x(a),{A}": [("", 0, "", ""), (A, 1, "", "")],
    f"[a]{A}": [(A, 1, "", "glued")],
    f"[[a]{A}]": [(A, 1, "[", "glued"), ("", 0, "", "")],
    f"[[a],{A}]": [(A, 1, "[", ""), ("", 0, "", "")],
    f"[a][{A}]": [(A, 1, "[", ""), ("", 0, "", "")],
    f"f(f(a){A})": [(A, 1, "f", "glued"), ("", 0, "", "")],
    f"{A}(b)": [(f"{A}(b)", 1, "", "")],
    "(b)": [("", 0, "", "")],
    f"x-1({A})": [(A, 1, "x-1", ""), ("", 0, "", "")],
    "1x(b)": [("", 0, "", "")],
    f"{A}[b]": None,
    f"x{A}[b]": None,
    f"'{A}'": [(f"'{A}'", 1, "", "")],
    f"'x{A}y{A}'": [(f"'x{A}y{A}'", 2, "", "")],
    f"'\\{A}'": [("", 0, "", "odd")],
    f"'{A}\\{A}'": [(f"'{A}\\{A}'", 1, "", "odd")],
    f"'{A}\\\\'": [(f"'{A}\\\\'", 1, "", "odd")],
    f"'{A}\\' '": [(f"'{A}\\' '", 1, "", "")],
    f"'{A},(['": [(f"'{A},(['", 1, "", "")],
    f"x'{A}": [(f"x'{A}", 1, "", "")],
    f"'{A}'b": [(f"'{A}'b", 1, "", "")],
    f"'{A}": None,
    "'${a'": None,
    "'a${b'": None,
    f"''{A}": [(f"''{A}", 1, "", "")],
    f"\\{A}": [("", 0, "", "odd")],
    f"\\\\{A}": [("", 0, "", "odd")],
    f"\\{A}{A}": [(f"\\{A}{A}", 1, "", "odd")],
    f"\\,{A}": [(f"\\,{A}", 1, "", "")],
    f"\\\\,{A}": [("", 0, "", ""), (A, 1, "", "")],
    f"\\\\\\,{A}": [(f"\\\\\\,{A}", 1, "", "")],
    f"{A}\\": [(f"{A}\\", 1, "", "odd")],
    f"\\{A},{A}": [("", 0, "", "odd"), (A, 1, "", "")],
    f"[\\{A},{A}]": [(A, 1, "[", ""), ("", 0, "", "")],
    f"f(\\{A}){A}": [(A, 1, "", "glued")],
    f"\\[{A}": [(f"\\[{A}", 1, "", "")],
    "[a": None,
    "f(a": None,
    "[a)": None,
    "{a]": None,
    "f(a]": None,
    "a]": None,
    "a}": None,
    f"a){A}": [(f"a){A}", 1, "", "")],
    "${": None,
    "a${f:'}'": None,
}


@pytest.mark.parametrize("text", ROWS)
def test_the_elements_of_a_value(text):
    found = _elements(text)
    if ROWS[text] is None:
        assert found is None
        assert interpolations_in(text) == [text]
        assert fill(text, lambda _: Whole("new"), hydra=True) == text
        return
    assert found is not None
    shown = [
        (
            text[one.start : one.end],
            len(one.spans),
            "".join(one.open),
            "odd" * one.odd + "glued" * one.glued,
        )
        for one in found
    ]
    # Only of what holds an interpolation the rest counts.
    assert [row if row[1] else row[:3] for row in shown] == [row if row[1] else row[:3] for row in ROWS[text]]
    assert interpolations_in(text) == [A] * sum(row[1] for row in ROWS[text])
    assert all(text[start:end] == A for one in found for start, end in one.spans)


#  value, edit, to Hydra and to a dot list
FILLED = [
    ("${a}", Whole("w"), "w", "w"),
    ("${a}", Whole("a b"), '"a b"', '"a b"'),
    ("${a}", Whole(""), '""', '""'),
    ("${a}", Whole("it's"), '"it\'s"', '"it\'s"'),
    ("${a}", Whole(1), "1", "1"),
    ("${a}", Whole(True), "true", "true"),
    ("${a}", Whole(None), "null", "null"),
    ("${a}", Whole([1, "b"]), '[1, "b"]', '[1, "b"]'),
    ("${a}", Whole({"k v": 1}), "${a}", "${a}"),
    ("${a}", Whole("${x}"), "'\\${x}'", "'\\${x}'"),
    ("${a}", Whole("a\\b"), "'a\\b'", "'a\\b'"),
    ("${a}", Whole("a'\\b"), '"a\'\\b"', '"a\'\\b"'),
    ("${a}", Whole("a\\"), '"a\\\\"', '"a\\\\"'),
    ("${a}", Whole("5"), '"5"', '"5"'),
    ("${a}", Whole("on"), '"on"', '"on"'),
    ("${a}", None, "${a}", "${a}"),
    ("${a}", Retext("${b}"), "${b}", "${b}"),
    ("'${a}'", Whole("w x"), "'w x'", "'w x'"),
    ("'${a}'", Whole("it's"), '"it\'s"', '"it\'s"'),
    ("'${a}'", Whole(3), "3", "3"),
    ("'${a}'", Whole("a\nb"), '"a\nb"', '"a\nb"'),
    ("'${a}'", Whole("${x}"), "'\\${x}'", "'\\${x}'"),
    ("'${a}'", Retext("${b:'x'}"), "'${a}'", "'${a}'"),
    ("'x${a}'", Whole("w y"), "'xw y'", "'xw y'"),
    ("'x${a}'", Whole("it's"), "'x${a}'", "'x${a}'"),
    ("'x${a}'", Retext("${b:'y'}"), "'x${a}'", "'x${a}'"),
    ("x${a}", Whole("w"), "xw", "xw"),
    ("x${a}", Whole("y z"), '"xy z"', '"xy z"'),
    ("x${a}", Whole("y,z"), '"xy,z"', '"xy,z"'),
    ("x${a}", Whole("y'z"), "x${a}", "x${a}"),
    ("x\\=${a}", Whole("y,z"), "x\\=y\\,z", "x\\=y\\,z"),
    ("x\\=${a}", Whole("y'z"), "x\\=${a}", "x\\=${a}"),
    ("x\\=${a}", Whole(" "), "x\\=${a}", "x\\=${a}"),
    ("x${a}", Whole("y\\z"), "x${a}", "x${a}"),
    ("x${a}", Whole("${z}"), "x${a}", "x${a}"),
    ("x${a}", Retext("${b}"), "x${b}", "x${b}"),
    ("1${a}", Whole("2"), '"12"', '"12"'),
    ("nul${a}", Whole("l"), '"null"', '"null"'),
    ("-${a}", Whole("x"), "-x", "-x"),
    ("x,${a}", Whole("w"), "x,w", "x,w"),
    ("x,${a}", Whole("y z"), 'x,"y z"', "x,${a}"),
    ("x,${a}", Whole(None), "x,null", "x,${a}"),
    ("x,${a}", Whole(5), "x,5", "x,5"),
    ("x,${a}", Whole([1]), "x,[1]", "x,${a}"),
    ("x,'${a}'", Whole(5), "x,5", "x,'${a}'"),
    ("x,'${a}'", Whole("w"), "x,'w'", "x,'w'"),
    ("[${a}]", Whole("y z"), '["y z"]', '["y z"]'),
    ("[x${a}]", Whole("1"), "[x1]", "[x1]"),
    ("{k: ${a}}", Whole("y z"), '{k: "y z"}', '{k: "y z"}'),
    ("choice(${a},b)", Whole("y z"), 'choice("y z",b)', "choice(${a},b)"),
    ("choice(${a},b)", Whole("w"), "choice(w,b)", "choice(w,b)"),
    ("range(${a})", Whole(3), "range(${a})", "range(${a})"),
    ("[range(${a})]", Whole(3), "[range(${a})]", "[range(${a})]"),
    ("${a} ", Whole("y z"), '"y z"', '"y z" '),
    ("[${a}] ", Whole(3), "[3] ", "[3] "),
    ("${a} ", Whole("w"), "w ", "w "),
    ("${a}, b", Whole("y z"), '"y z", b', "${a}, b"),
    ("x: ${a}", Whole("w"), "x: w", "x: ${a}"),
    ("2001-01-0${a}", Whole("1"), "2001-01-01", "2001-01-01"),
    ("0${a}", Whole("x1"), '"0x1"', '"0x1"'),
]


@pytest.mark.parametrize(("text", "edit", "hydra", "dots"), FILLED)
def test_a_value_with_its_artifact_filled_in(text, edit, hydra, dots):
    assert fill(text, lambda _: edit, hydra=True) == hydra
    assert fill(text, lambda _: edit, hydra=False) == dots


def test_of_several_each_is_asked_for_and_those_that_stay_stay():
    asked = []

    def replace(expression):
        asked.append(expression)
        return None if "b" in expression else Whole(expression[2])

    assert fill("x${a}/${b}/${c}, [${d}, ${b}]", replace, hydra=True) == "xa/${b}/c, [d, ${b}]"
    assert asked == ["${a}", "${b}", "${c}", "${d}", "${b}"]
