"""`make demo`: an artifact, two stages under the real torchrun, their lineage; and README shows what it prints.

One run of the demo serves all tests of the file, so one worker runs them (conftest.TOGETHER).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from places import ROOT

BIN = Path(sys.executable).parent
_BLOCK = re.compile(r"^```console\b[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")

pytestmark = [pytest.mark.ci, pytest.mark.torch, pytest.mark.timeout(900)]


class Demo(NamedTuple):
    """The output of the demo and its directory."""

    printed: str
    directory: Path


_done: list[Demo] = []


@pytest.fixture
def demo(tmp_path_factory) -> Demo:
    """The one run of the demo."""
    if not _done:
        directory = tmp_path_factory.mktemp("work") / "demo"
        done = subprocess.run(
            ["sh", "examples/demo.sh", str(BIN), str(directory)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "MASTER_PORT": str(_free_port())},
            timeout=800,
        )
        assert done.returncode == 0, done.stdout
        _done.append(Demo(done.stdout, directory))
    return _done[0]


def test_the_demo_runs_two_stages_and_prints_their_lineage(demo):
    # The second stage has read the first stage's model, by the path of its artifact.
    assert "/pretrained/model/pretrain/iter_0000020/model.pt" in demo.printed
    for name in ("demo-blend", "pretrain", "sft"):
        assert re.search(rf"\b{name}\b", demo.printed)
    shown = json.loads(
        subprocess.run(
            [sys.executable, "-m", "nemotron_exec.artifact_cli", "show", "sft", "--json"],
            env={**os.environ, "NEMOTRON_EXEC_STORE": str(demo.directory.resolve() / "artifacts")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert "pretrain:v2" in json.dumps(shown)
    assert "demo-blend:v1" in json.dumps(shown)


def test_the_excerpt_of_readme_is_what_the_demo_prints(demo):
    printed = _TIME.sub("TIME", demo.printed.replace(str(demo.directory), "/tmp/demo")).splitlines()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    excerpt = next(text for text in _BLOCK.findall(text) if "\n$ nemotron-artifact graph" in text)
    at, left_out = 0, True
    for line in filter(None, _TIME.sub("TIME", excerpt).splitlines()):
        if line == "…":
            left_out = True
            continue
        # `…` in a line stands for an omitted part.
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        found = next((number for number in range(at, len(printed)) if pattern.fullmatch(printed[number])), None)
        assert found is not None, f"{line!r} is not printed: {demo.printed}"
        assert left_out or line.startswith("$ ") or found == at, f"there is more output before {line!r}"
        at, left_out = found + 1, False


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
