"""The precedence of all sources in one table, the same as in docs/configuration.md, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

CONFIG = "run: {RUN}\nproject: ${run.wandb.project}\ncontainer: ${run.env.container}\n"
ENV_TOML = """\
[wandb]
project = "of-file"

[artifacts.manifest]
root = "{ROOT}/of-file"

[base]
container = "of-base"
[base.wandb]
project = "of-profile"
[base.artifacts.manifest]
root = "{ROOT}/of-profile"

[cluster]
extends = "base"
nodes = 2
"""

# Sources, the strongest first. Each row has the sources that are set, and the winner for each kind of setting.
SOURCES = ["command line", "config", "profile", "env.toml", "environment"]


def launch(nemotron_exec, tmp_path: Path, sources: list[str]) -> dict[str, str]:
    """Set the named sources; returns the values in the resolved config and in the answer."""
    run = {"env": {}}
    if "config" in sources:
        run = {"wandb": {"project": "of-config"}, "env": {"container": "of-config"}}
    tail = f"artifacts: {{manifest: {{root: {tmp_path}/of-config}}}}\n" if "config" in sources else ""
    (tmp_path / "cfg.yaml").write_text(CONFIG.replace("{RUN}", json.dumps(run)) + tail)
    if {"profile", "env.toml"} & set(sources):
        (tmp_path / "env.toml").write_text(ENV_TOML.replace("{ROOT}", str(tmp_path)))
    env = {}
    if "environment" in sources:
        env = {"WANDB_PROJECT": "of-environment", "NEMO_ARTIFACT_ROOT": f"{tmp_path}/of-environment"}
    options = ["--backend", "manifest"]
    words = ["true", "cfg.yaml"]
    if "profile" in sources:
        options += ["--run", "cluster"]
    if "command line" in sources:
        options += ["--store", f"{tmp_path}/of-command-line"]
        words += ["run.wandb.project=of-command-line", "++run.env.container=of-command-line"]
    done = nemotron_exec(*options, "--resolve-only", *words, env=env)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    resolved = next((item["resolved"] for item in answer["configs"]), tmp_path / "cfg.yaml")
    content = yaml.safe_load(Path(resolved).read_text())
    return {
        "run.wandb.project": content["project"],
        "run.env.container": content["container"],
        "manifest store": str(Path(answer["store"]).name),
    }


TABLE = [
    # set                                                      run.wandb.project  run.env.container  manifest store
    (SOURCES, "of-command-line", "of-command-line", "of-command-line"),
    (["config", "profile", "env.toml", "environment"], "of-config", "of-base", "of-config"),
    (["config", "env.toml", "environment"], "of-config", "of-config", "of-config"),
    (["profile", "env.toml", "environment"], "of-profile", "of-base", "of-profile"),
    (["env.toml", "environment"], "of-file", "${run.env.container}", "of-file"),
    (["environment"], "of-environment", "${run.env.container}", "of-environment"),
]


@pytest.mark.parametrize("row", TABLE, ids=[" > ".join(row[0]) for row in TABLE])
def test_the_strongest_source_wins(nemotron_exec, tmp_path: Path, row: tuple[list[str], str, str, str]) -> None:
    sources, project, container, store = row
    assert launch(nemotron_exec, tmp_path, sources) == {
        "run.wandb.project": project,
        "run.env.container": container,
        "manifest store": store,
    }


def test_the_documentation_lists_the_sources_in_this_order() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    found = [
        next(name for name in SOURCES if row.startswith(name)) for row in rows[1:] if row.startswith(tuple(SOURCES))
    ]
    assert found == SOURCES
