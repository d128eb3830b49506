"""References that only the job can resolve: the expression stays, and the injector's `art` resolves it in the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# This script acts as NeMo-RL's scripts do, but registers no resolvers.
SCRIPT = """
import json, sys
from omegaconf import OmegaConf
config = OmegaConf.load(sys.argv[1])
config = OmegaConf.merge(config, OmegaConf.from_dotlist(sys.argv[2:]))
sys.stdout.write(json.dumps(OmegaConf.to_container(config, resolve=True)))
"""
CONFIG = """\
run: {data: D:v1, model: M:v2, other: plain}
name: data
field: path
path: ${art:${name},path}/blend.json
twice: ${mul:${art:${name},pack_size},2}
most: ${max:${add:${art:${name},pack_size},1},${div:4,2}}
text: "a ${art:${name},version} and ${art:model,version}"
of: ${art:data,${field}}
default: ${oc.select:nowhere,${art:${name}}}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with D:v1, M:v2 and plain:v1, the script and the config."""
    store = tmp_path / "store"
    for name, version, size in (("D", 1, 8), ("M", 2, 9), ("plain", 1, 10)):
        directory = store / name / f"v{version}"
        directory.mkdir(parents=True)
        (tmp_path / name).mkdir()
        fields = {"path": str(tmp_path / name), "type": "model", "iteration": 7, "metadata": {"pack_size": size}}
        more = {"name": name, "version": version, "created_at": "", "producer": "", "inputs": [], "used_artifacts": []}
        (directory / "manifest.json").write_text(json.dumps({**fields, **more}))
        (directory / "metadata.json").write_text(json.dumps(fields))
        (store / name / "latest").write_text(f"v{version}")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(store))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def launch(job: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "nemotron_exec", sys.executable, "script.py", "config.yaml", *words],
        cwd=job,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "name", "size", "version"),
    [((), "D", 8, "v1"), (("name=model",), "M", 9, "v2"), (("name=other",), "plain", 10, "v1")],
)
def test_an_override_names_the_artifact(job: Path, words: tuple[str, ...], name: str, size: int, version: str) -> None:
    found = launch(job, *words)
    assert found["path"] == f"{job}/{name}/blend.json"
    assert found["twice"] == 2 * size
    assert found["most"] == size + 1
    assert found["text"] == f"a {version} and v2"
    assert found["default"] == f"{job}/{name}"


def test_an_override_names_the_field(job: Path) -> None:
    assert launch(job, "field=pack_size")["of"] == 8
    assert launch(job, "field=version", "name=model")["of"] == "v1"


def test_a_variable_of_the_job_names_the_artifact(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job / "config.yaml").write_text("run: {other: plain}\npath: ${art:${oc.env:WHICH},path}\n")
    monkeypatch.setenv("WHICH", "other")
    assert launch(job)["path"] == f"{job}/plain"


@pytest.mark.parametrize("guard", ["", "if not OmegaConf.has_resolver('mul'): "])
def test_a_script_may_register_the_same_resolvers_itself(job: Path, guard: str) -> None:
    own = "OmegaConf.register_new_resolver('mul', lambda a, b: a * b)\n"
    if not guard:
        own += "OmegaConf.register_new_resolver('art', lambda name, field='path': 1)\n"
    (job / "script.py").write_text(SCRIPT.replace("config = OmegaConf.load", guard + own + "config = OmegaConf.load"))
    assert launch(job, "name=model")["twice"] == (18 if guard else 2)


# The second is 2.4's new method. Before 2.4, a method of that name was deprecated, like the third, and had no
# `replace`.
@pytest.mark.parametrize("method", ["register_new_resolver", "register_resolver", "legacy_register_resolver"])
def test_none_of_omegaconfs_ways_to_register_meets_ours(job: Path, method: str) -> None:
    show = "print(OmegaConf.create({'a': '${mul:1,2}'}).a)\n"
    (job / "script.py").write_text(f"from omegaconf import OmegaConf\nOmegaConf.{method}('mul', lambda *_: 7)\n{show}")
    assert launch(job) == 7


def test_registering_them_warns_of_nothing(job: Path) -> None:
    (job / "script.py").write_text("import warnings\nwarnings.simplefilter('error')\n" + SCRIPT)
    assert launch(job)["twice"] == 16
