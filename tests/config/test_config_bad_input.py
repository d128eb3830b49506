"""Each bad config gives one error with file and line. No config hangs the launcher or fills the memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.document.parse import MAX_BYTES
from nemotron_exec.errors import LaunchError

RUN = "run: {data: D:v1, model: M:v1}\n"


def start(path: Path, *words: str, **metadata: object) -> None:
    config = read(
        [ConfigArgument(0, "", str(path), explicit=True)],
        parse_overrides(words, 1),
        environ={},
        run_wandb=Injected(),
        resolve="artifacts",
    )
    found = {
        item.key: Artifact(
            item.key,
            item.text,
            "manifest",
            item.key,
            "v1",
            "",
            "/a",
            f"{item.key}:v1",
            None,
            None,
            {"n": 4, **metadata},
        )
        for item in config.references
    }
    config.render(found, directory=str(path.parent / "resolved"), header=Header("now"))


#    name: text after the run section, line, words of the message
TABLE = {
    "a circle": ("a: ${art:${b},path}\nb: ${c}\nc: ${b}\n", 2, ["circle", "b -> c -> b"]),
    "a circle with itself": ("a: ${art:${.a},path}\n", 2, ["circle"]),
    "a missing key": ("a: 1\nb: ${art:${nowhere},path}\n", 3, ["nowhere"]),
    "a missing key in a list": ("l: [1]\nb: ${art:${l[3]},path}\n", 3, ["l.3"]),
    "a relative key above the root": ("b: ${art:${....x},path}\n", 2, ["leaves the config"]),
    "a value to be given": ("x: ???\nb: ${art:${x},path}\n", 3, ["???"]),
    "no argument": ("b: ${art:}\n", 2, ["art takes NAME and FIELD"]),
    "three arguments": ("b: ${art:data,path,x}\n", 2, ["3 arguments"]),
    "a resolver that raises": ("b: ${div:${art:data,n},0}\n", 2, ["ZeroDivisionError"]),
    "operands that do not fit": ("b: ${add:${art:data,path},${art:data,n}}\n", 2, ["TypeError"]),
    "an unknown key": ("b: ${art:nope,path}\n", 2, ["nope", "data, model"]),
    "an unknown field": ("b: ${art:data,nope}\n", 2, ["nope", "path"]),
    "a manifest that is not there": ("b: ${manifest:/nowhere,x}\n", 2, ["/nowhere/manifest.json"]),
    "an unclosed expression": ("b: ${art:data,path\n", 2, ["art"]),
    "a second document": ("---\nb: 1\n", 2, ["second"]),
    "a tab": ("b:\n\t- 1\n", 3, []),
    "an alias without anchor": ("b: *x\n", 2, ["*x"]),
    "an alias inside its anchor": ("b: &x [1, *x]\n", 2, ["*x"]),
    "a merge of no mapping": ("b: {<<: 1}\n", 2, ["<<"]),
    "a control character": ("b: \x07\n", 2, ["control characters"]),
    "levels": ("b: " + "[" * 300 + "]" * 300 + "\n", 2, ["200 levels"]),
    "values that double": (
        "k0: ${art:data}\n" + "".join(f"k{i + 1}: ${{k{i}}}${{k{i}}}\n" for i in range(60)), 21, ["too long"]
    ),
    "a long value many times": (
        "k0: ${art:data}\n" + "".join(f"k{i + 1}: ${{k{i}}}${{k{i}}}\n" for i in range(17))
        + "".join(f"x{i}: ${{k17}}\n" for i in range(400)), 208, ["too long"]
    ),
    "a run section that is a list": ("a: ${art:data,path}\nrun: [D:v1]\n", 3, ["a list"]),
    "a value that means missing": ("b: ${art:data,missing}\n", 2, ["???"]),
    "half a surrogate pair": ("b: ${art:data,half}\n", 2, ["surrogate"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), TABLE.values(), ids=TABLE)
def test_a_bad_config_is_one_error_with_file_and_line(tmp_path, text, line, words):
    path = tmp_path / "cfg.yaml"
    path.write_text(RUN + text)
    with pytest.raises(LaunchError) as caught:
        start(path, missing="???", half="\ud800")
    message = str(caught.value)
    assert f"cfg.yaml:{line}" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_users_own_missing_key_is_the_scripts_to_report(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text(
        RUN + "a: ${nowhere}\nb: ${c}\nc: ${b}\nd: ${mul:${nowhere},2}\ne: ${art:data,path}\nf: ${unclosed\n"
    )
    start(path)


def test_text_that_is_not_utf8_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_bytes(RUN.encode() + b"a: \xff\n")
    with pytest.raises(LaunchError, match="line 2"):
        start(path)


def test_an_override_without_a_config_is_an_error():
    with pytest.raises(LaunchError, match=r"run\.data=x"):
        read([], parse_overrides(["run.data=x"]), environ={}, run_wandb=Injected(), resolve="artifacts")


def test_a_bad_override_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text(RUN)
    with pytest.raises(LaunchError, match=r"run\.data=\["):
        start(path, "run.data=[")


EXPLOSION = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
DEEP_CHAIN = "".join(f"k{n}: ${{k{n + 1}}}\n" for n in range(3000)) + "k3000: 1\nx: ${art:${k0},path}\n"
HUGE = {
    "50 MB": lambda: RUN + "x: y  # " + "z" * (50 * 1024 * 1024),
    "aliases that explode": lambda: RUN + EXPLOSION,
    "a chain of 3000 interpolations": lambda: RUN + DEEP_CHAIN,
    "an expression of 200 kB": lambda: RUN + "x: ${art:data,path}" + "${a:[" * 40_000 + "\n",
    "ten thousand open brackets": lambda: RUN + "x: " + "[" * 10_000,
    "a hundred thousand dashes": lambda: RUN + "x:\n" + "- " * 100_000,
    "a string times a billion": lambda: RUN + "x: ${mul:${art:data,path},1000000000}\n",
}


@pytest.mark.parametrize("name", [name for name in HUGE if name != "a string times a billion"])
def test_nothing_hangs_and_nothing_fills_the_memory(tmp_path, name):
    path = tmp_path / "cfg.yaml"
    path.write_text(HUGE[name]())
    script = f"""
import resource, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from pathlib import Path
import test_config_bad_input as tests
from nemotron_exec.errors import LaunchError
try:
    tests.start(Path({str(path)!r}))
except LaunchError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cfg.yaml" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_product_that_would_fill_the_memory_is_left_to_the_script(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text(HUGE["a string times a billion"]())
    start(path)


def test_a_config_may_have_a_few_megabytes(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text(RUN + "a: ${art:data,path}\n" + "# comment\n" * 200_000)
    assert path.stat().st_size < MAX_BYTES
    start(path)
