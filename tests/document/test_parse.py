"""YAML text as a tree that knows its lines, bounded in size, depth and expansion."""

from __future__ import annotations

import fractions

import pytest
import yaml

from nemotron_exec.document import parse as module
from nemotron_exec.document.document import Document, Mapping, Scalar, Sequence, tag_of
from nemotron_exec.document.parse import MAX_BYTES, MAX_DEPTH, load, parse_text
from nemotron_exec.errors import LaunchError


def nodes(node):
    yield node
    if isinstance(node, Mapping):
        for pair in node.pairs:
            for inner in pair:
                yield from nodes(inner)
    elif isinstance(node, Sequence):
        for inner in node.items:
            yield from nodes(inner)


def test_every_node_knows_its_line_and_its_place():
    text = "a: 'x'\nb:\n  - {c: !!str 1, d: [2]}\n  - &e |\n    text\nf: *e\n"
    root = parse_text(text, "c.yaml").root
    found = [
        (type(node).__name__, node.line, text[node.start : node.end].strip().splitlines()[0]) for node in nodes(root)
    ]
    assert found == [
        ("Mapping", 1, "a: 'x'"),
        ("Scalar", 1, "a"),
        ("Scalar", 1, "'x'"),
        ("Scalar", 2, "b"),
        ("Sequence", 3, "- {c: !!str 1, d: [2]}"),
        ("Mapping", 3, "{c: !!str 1, d: [2]}"),
        ("Scalar", 3, "c"),
        ("Scalar", 3, "!!str 1"),
        ("Scalar", 3, "d"),
        ("Sequence", 3, "[2]"),
        ("Scalar", 3, "2"),
        ("Scalar", 4, "&e |"),
        ("Scalar", 6, "f"),
        ("Scalar", 4, "&e |"),
    ]
    scalars = {node.value: node.flow for node in nodes(root) if isinstance(node, Scalar)}
    assert scalars == {"a": False, "x": False, "b": False, "c": True, "1": True, "d": True, "2": True, "text\n": False,
                       "f": False}  # fmt: skip
    assert [node.flow for node in nodes(root) if not isinstance(node, Scalar)] == [False, False, True, True]


#  text: its tag to OmegaConf, to YAML 1.1, and its value
TAGS = {
    "1": ("int", "int", 1),
    "1e-5": ("float", "str", 1e-5),
    "1e5": ("float", "str", 1e5),
    "1.5": ("float", "float", 1.5),
    ".5": ("float", "float", 0.5),
    ".inf": ("float", "float", float("inf")),
    "2001-01-01": ("str", "timestamp", "2001-01-01"),
    "on": ("bool", "bool", True),
    "null": ("null", "null", None),
    "~": ("null", "null", None),
    "": ("null", "null", None),
    "x": ("str", "str", "x"),
    "'1'": ("str", "str", "1"),
    "! 1": ("str", "str", "1"),
    "!!str 1": ("str", "str", "1"),
    "!!int '1'": ("int", "int", 1),
    "=": ("value", "value", "="),
    "0o7": ("str", "str", "0o7"),
    "1:30": ("int", "int", 90),
}


@pytest.mark.parametrize("text", TAGS)
def test_the_tag_and_the_value_of_a_scalar(text):
    ((_, node),) = parse_text(f"a: {text}\n", "c.yaml").root.pairs
    omegaconf, yaml_1_1, value = TAGS[text]
    assert tag_of(node).rpartition(":")[2] == omegaconf
    assert tag_of(node, yaml_1_1=True).rpartition(":")[2] == yaml_1_1
    if text != "=":
        assert repr(node.construct()) == repr(value)


@pytest.mark.parametrize("text", TAGS)
def test_the_parser_of_a_pyyaml_without_libyaml_gives_the_same_tags(text, monkeypatch):
    monkeypatch.setattr(module, "_Parser", yaml.SafeLoader)
    test_the_tag_and_the_value_of_a_scalar(text)


@pytest.mark.parametrize("text", ["!!int x", "!!bool x", "!thing x", "!!timestamp x", "!!float x"])
def test_a_tag_that_does_not_fit_is_an_error_of_one_line(text):
    ((_, node),) = parse_text(f"a: {text}\n", "c.yaml").root.pairs
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        node.construct()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${a}", True),
        ("'${a}'", True),
        ("!!str ${a}", True),
        ("! ${a}", True),
        ("!!int ${a}", False),
        ("!thing ${a}", False),
        ("$a", False),
    ],
)
def test_what_is_an_interpolation(text, expected):
    ((_, node),) = parse_text(f"a: {text}\n", "c.yaml").root.pairs
    assert node.is_expression == expected


def tree(text):
    """As plain data."""

    def plain(node):
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        return [plain(item) for item in node] if isinstance(node, list) else node.construct()

    return plain(parse_text(text, "c.yaml").tree())


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n",
        "a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\n",
        "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {z: 0, <<: [*a, *b], w: 1}\n",
        "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n",
        "a: {'<<': 1}\n",
        "a: {x: 1, x: 2}\n",
        "a: [&b [1], *b, {c: *b}]\n",
        "1: a\ntrue: b\n1.5: c\nnull: d\n",
    ],
)
def test_merges_and_aliases_are_those_of_pyyaml(text):
    assert repr(tree(text)) == repr(yaml.safe_load(text))


def test_a_node_that_is_repeated_is_one():
    found = parse_text("a: &a {x: 1}\nb: *a\nc: &c [1]\nd: *c\n", "c.yaml").tree()
    assert found["a"] is found["b"]
    assert found["c"] is found["d"]


def test_an_empty_file_is_an_empty_mapping():
    document = parse_text("# nothing\n", "c.yaml")
    assert (document.root, document.tree()) == (None, {})
    assert document.tree() is document.tree()


@pytest.mark.parametrize(("text", "newline"), [("a: 1\n", "\n"), ("a: 1\r\n", "\r\n"), ("", "\n")])
def test_the_line_break_of_a_file(text, newline):
    assert Document("c", text).newline == newline


#  text: the line, what was found, what to do
WRONG = {
    "a: 1\nb: [1\n": (3, "while parsing a flow sequence did not find expected ',' or ']'", "Correct the YAML"),
    "a: 1\n\tb: 2\n": (2, "the line is indented with a tab", "Indent it with spaces: YAML takes no tabs there"),
    "a:\n  b: 1\n \t c: 2\n": (3, "the line is indented with a tab", "Indent it with spaces: YAML takes no tabs there"),
    "a:\tb: c\n": (1, "mapping values are not allowed in this context", "Correct the YAML"),
    "a: 'x": (1, "while scanning a quoted scalar found unexpected end of stream", "Correct the YAML"),
    "a: 1\nb: @x\n": (
        2,
        "while scanning for the next token found character that cannot start any token",
        "Correct the YAML",
    ),
    "a: 1\nb: *x\n": (2, "the alias *x has no anchor", "Correct the YAML"),
    "a: 1\nb: &x\n  - *x\n": (3, "the alias *x stands inside its own anchor", "Write the value out"),
    "a: 1\n---\nb: 1\n": (2, "a second one begins here", "Keep one document in a config"),
    "\nb: \x07\n": (2, "unacceptable character #x0007: control characters are not allowed", "Correct the YAML"),
    "a: 1\n\tb: 2": (2, "the line is indented with a tab", "Indent it with spaces: YAML takes no tabs there"),
    "a: 1\nb: \x07\n": (2, "unacceptable character #x0007: control characters are not allowed", "Correct the YAML"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_yaml_is_named_with_its_line(text):
    line, found, remedy = WRONG[text]
    with pytest.raises(LaunchError) as caught:
        parse_text(text, "c.yaml")
    assert caught.value.wanted.endswith(f"(c.yaml:{line})")
    assert caught.value.found == found
    assert caught.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("a: 1\nb:\n  <<: 1\n", 3, "its value is not one"),
        ("a: 1\nb:\n  <<: [{c: 1}, 2]\n", 3, "its value is not one"),
        ("a: 1\n? [x]\n: 2\n", 2, "one of its keys is a collection"),
        ("a: 1\n? {x: 1}\n: 2\n", 2, "one of its keys is a collection"),
        ("a: 1\n!!int x: 2\n", 2, "invalid literal for int() with base 10: 'x'"),
    ],
)
def test_what_is_no_mapping_is_named_with_its_line(text, line, found):
    with pytest.raises(LaunchError) as caught:
        parse_text(text, "c.yaml").tree()
    assert caught.value.wanted.endswith(f"(c.yaml:{line})")
    assert caught.value.found == found


def test_the_depth_is_bounded():
    assert parse_text("[" * MAX_DEPTH + "]" * MAX_DEPTH, "c.yaml").root is not None
    assert parse_text("- [a]\n" * (MAX_DEPTH + 1), "c.yaml").root is not None
    with pytest.raises(LaunchError, match=f"it is nested more than {MAX_DEPTH} levels deep") as caught:
        parse_text("a: 1\nb:\n " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "c.yaml")
    assert "(c.yaml:3)" in caught.value.wanted


def test_what_aliases_stand_for_is_bounded(monkeypatch):
    text = "a: &a [" + ", ".join("1" * 99) + "]\nb: [" + ", ".join(["*a"] * 9) + "]\n"
    # 99 items and their list, two keys, `b` with nine more lists, and the root.
    there, expanded = 99 + 1 + 2 + 1 + 1, 100 + 2 + 1 + 900 + 1
    monkeypatch.setattr(module, "_MAX_EXPANDED", expanded)
    assert parse_text(text, "c.yaml").root is not None
    monkeypatch.setattr(module, "_MAX_EXPANDED", expanded - 1)
    with pytest.raises(LaunchError, match=f"{there} nodes would become {expanded}"):
        parse_text(text, "c.yaml")
    monkeypatch.setattr(module, "_MAX_EXPANDED", 10**6)
    monkeypatch.setattr(module, "_MAX_RATIO", 9)
    monkeypatch.setattr(module, "_MIN_RATIO_NODES", expanded)
    assert parse_text(text, "c.yaml").root is not None
    monkeypatch.setattr(module, "_MIN_RATIO_NODES", expanded - 1)
    with pytest.raises(LaunchError, match=f"{there} nodes would become {expanded}"):
        parse_text(text, "c.yaml")
    monkeypatch.setattr(module, "_MAX_RATIO", 10)
    assert parse_text(text, "c.yaml").root is not None
    monkeypatch.setattr(module, "_MAX_RATIO", fractions.Fraction(expanded, there))  # as many are allowed
    assert parse_text(text, "c.yaml").root is not None
    # Without an alias nothing is counted.
    monkeypatch.setattr(module, "_MAX_EXPANDED", 1)
    assert parse_text("[1, 2, 3]", "c.yaml").root is not None


def test_the_bounds_are_those_of_the_pages():
    assert (MAX_BYTES, MAX_DEPTH) == (10 * 2**20, 200)
    assert (module._MAX_EXPANDED, module._MAX_RATIO, module._MIN_RATIO_NODES) == (10**6, 100, 10**4)


def test_a_file_is_read_with_its_mark_and_one_that_is_none_is_an_error(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = load(str(path))
    assert (document.path, document.mark, document.text) == (str(path), "\ufeff", "a: 1\n")
    path.write_bytes(b"a: 1\n")
    assert load(str(path)).mark == ""
    for content, wanted, found in (
        (b"a: 1\nb: \xff\n", f"to read the config {path} (line 2)", "it is not UTF-8: invalid start byte"),
        (b"\xff", f"to read the config {path} (line 1)", "it is not UTF-8: invalid start byte"),
        (b"#" * (MAX_BYTES + 1), f"to read the config {path}", "it is larger than 10 MiB"),
    ):
        path.write_bytes(content)
        with pytest.raises(LaunchError) as caught:
            load(str(path))
        assert (caught.value.wanted, caught.value.found) == (wanted, found)
    path.write_bytes(b"#" * MAX_BYTES)
    assert load(str(path)).root is None
    for missing, found in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(LaunchError) as caught:
            load(str(missing))
        assert (caught.value.wanted, caught.value.found) == (f"to read the config {missing}", found)
