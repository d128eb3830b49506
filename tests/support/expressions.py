"""Hypothesis strategies for OmegaConf expressions, and the two depths at which properties are tried."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

_ANY = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
]
QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=_ANY)
"""On a person's machine: the same examples in every run."""
THOROUGH = settings(QUICK, max_examples=1000, phases=[Phase.explicit, Phase.generate])
"""On CI, with `@pytest.mark.ci`; a counterexample is not shrunk there, which can take minutes."""

NAMES = ["a", "b", "seq_len", "run", "data", "x-y", "0", "1"]
WORDS = [
    *NAMES,
    "path",
    "12",
    "-3",
    "+4",
    "1_000",
    "0123",
    "1e-5",
    "1.5",
    ".5",
    "1.",
    "-inf",
    "NaN",
    "true",
    "False",
    "null",
    "NULL",
    "/data/x.json",
    "a:b",
    "a b",
    "1 2",
    "-",
    "$",
    "$x",
    "a$",
    "50%",
    "*",
    "a@b",
    "?",
    "x|y",
    "+",
    "\\,",
    "\\ ",
    "a\\:b",
    "é",
    "~",
    "",
]
TEXTS = [
    "",
    " ",
    "x",
    "/",
    "/data",
    "\\",
    "\\\\",
    "$",
    "$$",
    "{",
    "}",
    "'",
    '"',
    ":",
    "é",
    "\n",
    "\\$",
    "${",
    "\\${",
    "]",
]


class Writer:
    """Writes expressions, drawing every choice."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def one(self, choices: list[str]) -> str:
        return self._draw(st.sampled_from(choices))

    def number(self, most: int, least: int = 0) -> int:
        return self._draw(st.integers(least, most))

    def space(self) -> str:
        return self.one(["", "", "", "", " ", "\t", "  "])

    def interpolation(self, depth: int) -> str:
        return self.ref(depth) if self.number(1) or depth <= 0 else self.call(depth)

    def key(self, depth: int) -> str:
        return self.interpolation(depth - 1) if depth > 0 and not self.number(3) else self.one(NAMES)

    def ref(self, depth: int) -> str:
        text = "${" + self.space() + self.one(["", "", "", ".", "..", "..."]) + self.key(depth)
        for _ in range(self.number(2)):
            key = self.key(depth)
            text += "." + key if self.number(2) else "[" + key + "]"
        return text + self.space() + "}"

    def text(self, depth: int) -> str:
        pieces = [
            self.interpolation(depth - 1) if not self.number(2) and depth else self.one(TEXTS)
            for _ in range(self.number(3))
        ]
        return "".join(pieces)

    def scalar(self, depth: int) -> str:
        quote = self.one(["", "", "'", '"'])
        if quote:
            return quote + self.text(depth) + quote
        words = [
            self.interpolation(depth - 1) if not self.number(2) and depth else self.one(WORDS)
            for _ in range(self.number(2, 1))
        ]
        return "".join(words)

    def element(self, depth: int) -> str:
        kind = self.number(7)
        if kind > 1:
            return self.scalar(depth)
        items = [self.scalar(depth) for _ in range(self.number(2))]
        if kind:
            return "[" + ",".join(items) + "]"
        return "{" + ",".join(f"{self.one(NAMES)}:{self.space()}{item}" for item in items) + "}"

    def call(self, depth: int) -> str:
        name = self.one(["art", "mul", "oc.env", "oc.select", "f", "ns.g-h", "0x"])
        arguments = ",".join(self.space() + self.element(depth) + self.space() for _ in range(self.number(3)))
        return "${" + self.space() + name + self.space() + ":" + arguments + "}"


@st.composite
def expressions(draw: st.DrawFn) -> str:
    writer = Writer(draw)
    pieces = [writer.interpolation(3) if writer.number(2) else writer.one(TEXTS) for _ in range(writer.number(4, 1))]
    return "".join(pieces)


AWKWARD = [
    "1e-5",
    "1e5",
    "on",
    "NO",
    "y",
    "2026-03-11",
    "2026-03-11T10:00:00Z",
    "null",
    "~",
    "",
    " ",
    "a\nb",
    "\n",
    "a\r\nb",
    "it's",
    'say "x"',
    "é",
    "日本",
    "😀",
    "\u2028",
    "\x85",
    "\xa0",
    "\x07",
    "\ufeff",
    "\uffff",
    "=",
    "<<",
    "0x1F",
    "0o17",
    "017",
    "1:30",
    "1_000",
    "12",
    "-.inf",
    ".nan",
    "nan",
    "- a",
    "? a",
    "a: b",
    "a #b",
    "#",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "`a",
    "{a",
    "[a",
    "a,b",
    "---",
    "...",
    "${oc.env:HOME}",
    "${art:x}",
    "\\${a}",
    "\\\\${a}",
    "$${a",
    "a\\",
    "\\",
    "/lustre/team/x:v3",
    "s3://bucket/x y",
    "C:\\data",
    "\t",
    "True",
    "none",
    "entity/project/name:v3",
]

strings = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.text(st.sampled_from("ab01.:-_/ \\${}'\"#,[]\n\téeE+"), max_size=8),
).filter(lambda text: text != "???")
numbers = st.one_of(
    st.integers(),
    st.sampled_from([10**30, -(10**25), 2**63, 0, 4096]),
    st.floats(),
    st.sampled_from([1e-5, 1e16, 1e300, 5e-324, float("inf"), float("nan"), -0.0, 1.0]),
)
scalars = st.one_of(strings, strings, numbers, st.booleans(), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(strings, inner, max_size=3)),
    max_leaves=5,
)
"""What an artifact's metadata may hold: everything that JSON can say."""
