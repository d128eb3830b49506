"""A path of a person or a framework means the file that the kernel opens, in a config and in a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemotron_exec.sitecustomize.payload.paths.absolute import absolute, user_path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """`home/scratch` leads to `real/deep/me`; the working directory is the top."""
    (tmp_path / "real/deep/me/sub").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/scratch").symlink_to("../real/deep/me")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


PATHS = {
    "home/scratch/../cfg.yaml": "real/deep/cfg.yaml",
    "home/scratch/sub/../../x": "real/deep/x",
    "home/scratch/./x//y/": "home/scratch/x/y",
    "home/scratch": "home/scratch",
    "real/../home/x": "home/x",
    "home/scratch/../../deep/me/new/../x": "real/deep/me/x",
    "loop/../x": "x",
    ".": "",
    "/..//etc/./passwd": "/etc/passwd",
}


@pytest.mark.parametrize("given", PATHS)
def test_absolute(tree, given):
    expected = os.path.join(str(tree), PATHS[given]).rstrip("/")
    assert absolute(given) == expected
    if "new" not in given and "loop" not in given:
        assert os.path.realpath(given) == os.path.realpath(expected)


def test_tilde_is_home_or_nothing(tree):
    assert user_path("~/a/../b", {"HOME": "/home/me"}) == "/home/me/b"
    assert user_path("a~", {}) == f"{tree}/a~"


def test_the_job_gets_the_config_that_the_kernel_opens_with_the_parent_that_it_names(nemotron_exec, tree):
    for place, rate in (("real/deep", "0.1"), ("home", "999")):
        (tree / place / "base.yaml").write_text(f"lr: {rate}\n")
        (tree / place / "cfg.yaml").write_text(f"defaults: base.yaml\nrun: {{data: 'd:v1'}}\nmine: {rate}\n")
    (tree / "child.yaml").write_text("defaults: home/scratch/../cfg.yaml\np: ${art:data,path}\n")
    (tree / "data").mkdir()
    environ = {"NEMO_ARTIFACT_ROOT": str(tree / "store")}
    words = ["add", "d", "data"]
    subprocess.run(
        [sys.executable, "-m", "nemotron_exec.artifact_cli", *words], env={**os.environ, **environ}, check=True
    )
    look = (
        "import sys, yaml, os\n"
        "def load(p):\n"
        "    c = yaml.safe_load(open(p)); d = c.pop('defaults', None)\n"
        "    return {**(load(os.path.join(os.path.dirname(p), d)) if d else {}), **c}\n"
        "print(load(sys.argv[1]))\n"
    )
    for config in ("home/scratch/../cfg.yaml", "child.yaml"):
        done = nemotron_exec(sys.executable, "-c", look, config, env=environ)
        assert done.returncode == 0, done.stderr
        assert "'lr': 0.1" in done.stdout, (config, done.stdout)
        assert "'mine': 0.1" in done.stdout


def test_a_save_behind_a_link_is_found_again_by_the_next_job(nemotron_exec, tree):
    package = tree / "framework/megatron/bridge/training/utils"
    package.mkdir(parents=True)
    for directory in (package, *package.parents[:3]):
        (directory / "__init__.py").write_text("")
    (package / "wandb_utils.py").write_text(
        "def on_save_checkpoint_success(checkpoint_path, save_dir, iteration, wandb_writer): pass\n"
    )
    (tree / "train.py").write_text(
        "import os, sys\n"
        "from megatron.bridge.training.utils.wandb_utils import on_save_checkpoint_success as saved\n"
        "for step in (10, 20):\n"
        "    path = f'{sys.argv[1]}/iter_{step:07}'; os.makedirs(path); open(path + '/w', 'w').write('x')\n"
        "    saved(path, sys.argv[1], step, None)\n"
    )
    environ = {"NEMO_ARTIFACT_ROOT": str(tree / "store"), "PYTHONPATH": str(tree / "framework")}
    # An older run lies at the place that the path has as text.
    (tree / "home/ckpt/iter_0000099").mkdir(parents=True)
    done = nemotron_exec(sys.executable, "train.py", "home/scratch/../ckpt", env=environ)
    assert done.returncode == 0, done.stderr
    versions = sorted((tree / "store/ckpt").glob("v*"))
    assert [path.name for path in versions] == ["v1", "v2"]
    assert not list((tree / "store").rglob("pruned"))
    fields = json.loads((versions[-1] / "metadata.json").read_text())
    assert fields["absolute_path"] == str(tree / "real/deep/ckpt")
