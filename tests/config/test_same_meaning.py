"""Tests the basic property: the resolved config has the same meaning as the original.

It holds for every config and every set of overrides. Load the resolved file and apply the overrides; load the original
with nemotron-exec's resolvers registered and apply the overrides: both give the same values. Overrides are applied by
real hydra-core, as NeMo-RL does (nemo_rl/utils/config.py `parse_hydra_overrides`).
"""

from __future__ import annotations

import contextlib
import copy
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf

from expressions import AWKWARD, QUICK, THOROUGH, Writer
from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.evaluate import ARITHMETIC
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.document.literal import yaml_double_quoted
from nemotron_exec.errors import LaunchError


def artifacts(weird: Any = "x") -> dict[str, Artifact]:
    metadata = {"pack_size": 4096, "weird": weird, "splits": {"x": 1, "y": [2, "z"]}, "which": "x", "half": 0.5}
    return {
        key: Artifact(
            key,
            f"{key}:v3",
            "manifest",
            f"{key}-name",
            "v3",
            "model",
            f"/artifacts/{key}",
            f"{key}:v3",
            100,
            None,
            metadata,
        )
        for key in ("data", "model")
    }


@contextlib.contextmanager
def our_resolvers(found: dict[str, Artifact]) -> Iterator[None]:
    OmegaConf.register_new_resolver("art", lambda name, field="path": found[name].field(field), replace=True)
    for name, function in ARITHMETIC.items():
        OmegaConf.register_new_resolver(name, lambda a, b, function=function: function(a, b), replace=True)
    try:
        yield
    finally:
        OmegaConf.clear_resolver("art")
        for name in ARITHMETIC:
            OmegaConf.clear_resolver(name)


_OVERRIDES = OverridesParser.create()


def override(config: DictConfig, words: list[str]) -> DictConfig:
    OmegaConf.set_struct(config, True)
    parsed = _OVERRIDES.parse_overrides(overrides=words)
    ConfigLoaderImpl._apply_overrides_to_config(overrides=parsed, cfg=config)
    return config


_CONTAINER_IN_TEXT = re.compile(r"""[{\[]\\*['"\[{]""")


def meaning(node: Any, depth: int = 0) -> Any:
    """Every value as the script would get it; an error where the script would get one."""
    if depth > 6:
        return "…"
    if isinstance(node, DictConfig):
        return {str(key): look(node, key, depth) for key in node}
    if isinstance(node, ListConfig):
        return [look(node, index, depth) for index in range(len(node))]
    if isinstance(node, dict):  # a resolver may return a plain mapping
        return {str(key): meaning(value, depth + 1) for key, value in node.items()}
    if isinstance(node, list):
        return [meaning(value, depth + 1) for value in node]
    text = repr(node)
    # OmegaConf writes a mapping or list inside a text with its interpolations unresolved.
    return "…" if isinstance(node, str) and _CONTAINER_IN_TEXT.search(text) else text


def look(container: Any, key: Any, depth: int) -> Any:
    try:
        return meaning(container[key], depth + 1)
    except Exception as error:  # noqa: BLE001 - a resolver may raise anything
        return type(error).__name__


@dataclass
class Case:
    """A config, the overrides of the command, and an artifact's awkward metadata."""

    text: str
    words: list[str] = field(default_factory=list)
    weird: Any = "x"
    resolve: str = "artifacts"


def means_the_same(case: Case) -> None:
    found = artifacts(case.weird)
    with tempfile.TemporaryDirectory() as directory, our_resolvers(found):
        path = Path(directory, "config.yaml")
        path.write_text(case.text, encoding="utf-8", newline="")
        try:
            original = OmegaConf.load(path)
        except Exception:  # noqa: BLE001
            return  # OmegaConf refuses the text also without nemotron-exec
        assert isinstance(original, DictConfig)
        before = copy.deepcopy(original)
        try:
            original = override(original, case.words)
        except Exception:  # noqa: BLE001
            return  # the script refuses the overrides also without nemotron-exec
        expected = meaning(original)
        try:
            config = read(
                [ConfigArgument(0, "", str(path), explicit=True)],
                parse_overrides(case.words, 1),
                environ={},
                run_wandb=Injected(),
                resolve=case.resolve,  # type: ignore[arg-type]
            )
            rendered = config.render(found, directory=directory + "/resolved", header=Header("now"))
        except LaunchError:
            # An error is right only if the script could not resolve the config either.
            assert "Error" in repr(meaning(before)) + repr(expected) or "Unsupported" in repr(expected)
            return
        text = rendered.files[0].text.decode() if rendered.files else case.text
        rest = [word for index, word in enumerate(case.words, 1) if index not in rendered.dropped]
        assert meaning(override(OmegaConf.create(text), rest)) == expected, text


EXPRESSIONS = [
    "${art:data,path}",
    "${art:data,pack_size}",
    "${art:data,weird}",
    "${art:data,weird}",
    "${art:data,splits}",
    "${art:model}",
    "${art:${run.which},path}",
    "${art:${a.x},path}",
    "${mul:${art:data,pack_size},2}",
    "${mul:${c},2}",
    "${add:${a.y},${.x}}",
    "${div:${art:data,pack_size},${run.n}}",
    "${max:${l[0]},${art:data,half}}",
    "${oc.select:a.${run.which},${art:data,path}}",
    "${oc.select:a.x,'${art:data,weird}'}",
    "${oc.decode:'${art:data,pack_size}'}",
    "${oc.decode:\"[1, '${run.which}']\"}",
    "${oc.create:{p: ${art:data,path}, q: [${c}]}}",
    "${oc.dict.values:a}",
    "${oc.env:NEMOTRON_EXEC_ABSENT,${art:data,weird}}",
    "${run.which}",
    "${run.n}",
    "${a.${run.which}}",
    "${a.x}",
    "${a.y}",
    "${b.x.y}",
    "${b.x}",
    "${c}",
    "${.x}",
    "${.y}",
    "${..c}",
    "${..a.x}",
    "${l[1]}",
    "${l.0}",
    "${nowhere}",
    "${.${art:data,which}}",
    "${a.${art:data,which}}",
]
TEXTS = ["/x", " ", "\\", "\\\\", "$", "\\${c}", "'", '"', "é", "{", "}", ": ", " #", "\n", "-", "0"]
CONSTANTS = ["1", "2", "true", "null", "x", "y", "data", "1e-3", "1.5", "'12'", "???", "2026-03-11", "~", "''", "off"]


class ConfigWriter(Writer):
    """Writes a config with all constructs of real configs."""

    anchors = 0

    def expression(self) -> str:
        if self.number(2):
            return self.one([*EXPRESSIONS, "${a}"])
        pieces = [self.one(EXPRESSIONS) if self.number(1) else self.one(TEXTS) for _ in range(self.number(4, 1))]
        return "".join(pieces)

    def leaf(self, indent: int, *, flow: bool = False) -> str:
        if not self.number(3):
            return " " + self.one(CONSTANTS)
        if self.anchors and not self.number(5):
            return f" *k{self.number(self.anchors, 1)}"
        anchor = ""
        if not self.number(6):
            self.anchors += 1
            anchor = f" &k{self.anchors}"
        text = self.expression()
        style = self.one(["plain", "plain", "single", "double", "literal", "folded"])
        if style == "plain" and not flow and is_plain(text):
            return f"{anchor} {text}{self.one(['', '  # comment'])}"
        if style == "single" and text.isprintable():
            return f"{anchor} '" + text.replace("'", "''") + "'"
        if style in ("literal", "folded") and not flow and text.strip() and not text.startswith((" ", "\n")):
            pad = " " * (indent + 2)
            mark = "|" if style == "literal" else ">"
            lines = text.split("\n")
            return f"{anchor} {mark}{self.one(['', '-', '+'])}\n" + "\n".join(
                pad + line if line else "" for line in lines
            )
        return f"{anchor} " + yaml_double_quoted(text)

    def section(self, indent: int) -> str:
        pad = " " * indent
        keys = ["x", "y"]
        if not self.number(4):
            return " {" + ", ".join(f"{key}:{self.leaf(indent, flow=True)}" for key in keys) + "}"
        return "\n" + "\n".join(f"{pad}{key}:{self.leaf(indent)}" for key in keys)

    def config(self) -> str:
        which, n = self.one(["x", "y", "data", "x"]), self.one(["2", "0", "4.0"])
        lines = [f"run:\n  data: D:v1\n  model: M:v2\n  which: {which}\n  n: {n}"]
        lines.append(f"a:{self.section(2)}")
        lines.append(f"b:\n  x:{self.section(4)}" if self.number(1) else f"b:\n  x:{self.leaf(2)}\n  y:{self.leaf(2)}")
        lines.append(f"c:{self.leaf(0)}")
        lines.append("l:\n" + "\n".join(f"  -{self.leaf(2)}" for _ in range(2)))
        order = self._draw(st.permutations(range(len(lines)))) if not self.number(3) else range(len(lines))
        return "\n".join(lines[index] for index in order) + "\n"

    def words(self) -> list[str]:
        paths = [
            "a.x",
            "a.y",
            "a",
            "b.x",
            "b.x.y",
            "c",
            "l",
            "l.0",
            "run.which",
            "run.n",
            "d",
            "a.z",
            "c.x",
        ]
        values = ["1", "x", "y", "[1,2]", "{x: 4}", "'a b'", "null", "model", "/p/q", "${a.x}", "0.5"]
        words = []
        for _ in range(self.number(3)):
            path = self.one(paths)
            sign = self.one(["", "", "++", "+", "~"])
            words.append(f"~{path}" if sign == "~" else f"{sign}{path}={self.one(values)}")
        return words


def is_plain(text: str) -> bool:
    try:
        node = yaml.compose(f"k: {text}\n", Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return False
    value = node.value[0][1]
    return isinstance(value, yaml.ScalarNode) and value.value == text and value.tag.endswith(":str")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    writer = ConfigWriter(draw)
    weird = (
        writer.one([*AWKWARD, "x", "y"])
        if writer.number(3)
        else writer._draw(st.sampled_from([1, 1e-5, None, True, 0]))
    )
    return Case(writer.config(), writer.words(), weird, writer.one(["artifacts", "all"]))


@settings(QUICK, max_examples=50)  # ANTLR is slow on the original's side
@given(cases())
@example(Case("run: {data: D:v1}\na: ${art:data,path}\n", ["a=1"]))
# Found by hypothesis.
@example(Case("run: {data: D:v1, n: 0}\na: ${run.n}\n", ["run.n='a b'", "~run.n"]))
@example(Case("run: {data: D:v1, n: 0}\na: ${run.n}\n", ["~run.n", "+run.n=4"]))
@example(Case("run: {data: D:v1}\na: ${art:data,splits}\nb: 'x${a}'\n"))
@example(Case("run: {data: D:v1, which: x}\na: {x: y}\nb: ${run.which}\n", ["run.which=${a.x}"], "...", "all"))
@example(Case("run: {data: D:v1, n: 0}\na: {x: y}\nb: ${run.n}\n", ["run.n='${art:data,weird}-${a.x}'", "a.x=2"]))
@example(
    Case("run: {data: D:v1, n: 0}\na: {x: y}\nb: ${run.n}\n", ["run.n={p: '${art:data,pack_size}', q: ['${a.x}']}"])
)
@example(Case("run: {data: D:v1}\na: 1\nc: ${art:data,splits}\nb: '${oc.create:{p: ${a}, q: [${c}]}}'\n", ["a=2"]))
@example(Case("run: {data: D:v1}\nc: ${art:data,splits}\n", ["c={x: 4}"]))
@example(Case("run: {data: D:v1}\nc: ${art:data,splits}\n", ["++c.x=x"]))
@example(Case("run: {data: D:v1}\nc: ['${art:data,splits}', 1]\nd: ${art:data,path}\n", ["c.0.x=x", "++d.x=x"]))
def test_the_resolved_config_means_what_the_original_means(case: Case) -> None:
    means_the_same(case)


@pytest.mark.ci
@pytest.mark.timeout(1800)
@THOROUGH
@given(cases())
def test_the_resolved_config_means_what_the_original_means_thoroughly(case: Case) -> None:
    means_the_same(case)
