"""Calls of the Python API by the document's names: with the launcher, without it, and with NVIDIA's kit installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory
from nemotron_exec.sitecustomize.payload.manifest import register

CONFIG = "run: {data: 'blend:latest'}\npath: ${art:data,path}\nsize: ${art:data,pack_size}\n"
RESOLVE = """
from omegaconf import OmegaConf
from nemotron_exec.resolvers import register_resolvers_from_config
config = OmegaConf.load("cfg.yaml")
names = register_resolvers_from_config(config, artifacts_key="run"{more})
print(config.path, repr(config.size), names)
"""


@pytest.fixture
def python(tmp_path):
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    root = str(tmp_path / "store")
    register.register(root, "blend", type="dataset", path=str(tmp_path / "data"), metadata={"pack_size": 4096})

    def run(code, *, launcher=(), check=True, **environ):
        done = subprocess.run(
            [*launcher, sys.executable, "-c", textwrap.dedent(code)],
            cwd=tmp_path,
            env={**os.environ, "NEMOTRON_EXEC_STORE": root, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    run.directory = tmp_path
    return run


def test_resolves_from_the_manifest_store_without_the_launcher(python):
    assert python(RESOLVE.format(more=", mode='manifest'")).stdout == f"{python.directory}/data 4096 []\n"


@pytest.mark.parametrize("text", ["ubuntu:latest", "redis:7", "blend:9", "cuda:0", "localhost:29500"])
def test_what_the_store_lacks_and_nothing_uses_is_no_artifact(python, tmp_path, text):
    (tmp_path / "cfg.yaml").write_text(CONFIG.replace("run: {", f"run: {{image: '{text}', "))
    done = python(RESOLVE.format(more=""), check=False)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/data 4096" in done.stdout
    assert (f"run.image: {text} is taken for no artifact" in done.stderr) == (
        text in ("ubuntu:latest", "redis:7", "blend:9")
    )
    # A value that an expression uses must be an artifact.
    (tmp_path / "cfg.yaml").write_text(CONFIG.replace("run: {", f"run: {{image: '{text}', ") + "i: ${art:image,path}\n")
    assert python(RESOLVE.format(more=""), check=False).returncode != 0


def test_calling_twice_changes_nothing(python):
    code = RESOLVE.format(more="") + "print(register_resolvers_from_config(config))"
    assert python(code).stdout.splitlines()[1] == "[]"


def test_an_unknown_mode_says_which_there_are(python):
    done = python(RESOLVE.format(more=", mode='pre-init'"), check=False)
    assert "active_run, pre_init, manifest" in done.stderr.splitlines()[-1]


def test_an_unknown_field_says_which_there_are(python):
    code = RESOLVE.format(more="") + "OmegaConf.create({'run': {}, 'x': '${art:data,nope}'}).x"
    assert "name, pack_size, path" in python(code, check=False).stderr


def _handoff(directory):
    artifact = {
        "key": "data",
        "reference": "blend:latest",
        "store": "wandb",
        "name": "blend",
        "version": "v7",
        "path": "/pinned",
        "qualified_name": "team/nemotron/blend:v7",
        "fields": {},
        "metadata": {"pack_size": 1},
    }
    path = directory / "handoff.json"
    path.write_text(json.dumps({"schema": 1, "artifacts": [artifact]}))
    return {
        "PYTHONPATH": injector_directory(),
        "NEMOTRON_EXEC_ACTIVE": __version__,
        "NEMOTRON_EXEC_HANDOFF": str(path),
    }


def test_under_the_launcher_nothing_is_asked_again(python):
    done = python(RESOLVE.format(more=", mode='pre_init'"), **_handoff(python.directory))
    assert done.stdout == "/pinned 1 ['team/nemotron/blend:v7']\n"


def test_a_config_that_no_argument_names_still_finds_its_artifacts(python):
    code = "from omegaconf import OmegaConf; print(OmegaConf.load('cfg.yaml').path)"
    assert python(code, **_handoff(python.directory)).stdout == "/pinned\n"


def test_a_scripts_own_resolver_wins(python):
    code = """
        from omegaconf import OmegaConf
        OmegaConf.register_new_resolver("art", lambda name, field="path": "mine")
        print(OmegaConf.load("cfg.yaml").path)
        try:
            OmegaConf.register_new_resolver("art", lambda name, field="path": "again")
        except ValueError:
            print("refused the second time, as without us")
    """
    done = python(code, **_handoff(python.directory))
    assert done.stdout.splitlines() == ["mine", "refused the second time, as without us"]


WHERE = {"the package": "nemotron_exec", "the kit's names": "nemotron.kit"}


@pytest.mark.parametrize("package", WHERE.values(), ids=WHERE)
def test_a_job_without_the_package_gets_the_api_from_the_injector(python, tmp_path, package):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    code = f"""
        import {package}.resolvers as resolvers, {package}.wandb as wandb
        print(sorted(name for name in resolvers.__all__ + wandb.__all__))
        import _nemotron_exec.resolvers
        assert resolvers.register_resolvers_from_config is _nemotron_exec.resolvers.register_resolvers_from_config
    """
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", textwrap.dedent(code)],
        env={"PATH": os.environ["PATH"], **_handoff(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "patch_wandb_init_for_lineage" in done.stdout


def test_the_installed_package_shares_the_injectors_state(python):
    code = """
        import nemotron_exec.resolvers as ours, _nemotron_exec.resolvers as theirs
        print(ours.register_resolvers_from_config is theirs.register_resolvers_from_config)
    """
    assert python(code, **_handoff(python.directory)).stdout == "True\n"


def test_nvidias_kit_stands_back_with_one_line(python):
    kit = python.directory / "kit" / "nemotron" / "kit"
    kit.mkdir(parents=True)
    (kit.parent / "__init__.py").write_text("")
    (kit / "__init__.py").write_text("")
    (kit / "wandb_kit.py").write_text(
        "def patch_wandb_checkpoint_logging():\n    print('kit')\n"
        "def patch_wandb_init_for_lineage(*, artifact_qualified_names, tags=None):\n    print('kit')\n"
    )
    environ = _handoff(python.directory)
    environ["PYTHONPATH"] += f":{python.directory}/kit"
    code = """
        from nemotron.kit.wandb_kit import patch_wandb_checkpoint_logging, patch_wandb_init_for_lineage
        patch_wandb_checkpoint_logging()
        patch_wandb_checkpoint_logging()
        patch_wandb_init_for_lineage(artifact_qualified_names=["team/nemotron/other:v1"])
        from _nemotron_exec.patches import lineage
        print(lineage.inputs()[0])
    """
    done = python(code, **environ)
    assert done.stdout == "['team/nemotron/blend:v7', 'team/nemotron/other:v1']\n"
    assert done.stderr.count("patch_wandb_checkpoint_logging does nothing here") == 1


def test_pre_init_and_active_run_with_the_real_client(python, wandb_backend, wandb_environ):
    wandb_backend.seed("team/nemotron/blend", files={"a.txt": b"x"}, metadata={"pack_size": 2})
    environ = {**wandb_environ, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "team", "WANDB_SILENT": "true"}
    done = python(RESOLVE.format(more=", mode='pre_init'"), **environ)
    assert done.stdout.strip().endswith("2 ['team/nemotron/blend:v0']")
    code = "import wandb; wandb.init()" + RESOLVE.format(more=", mode='active_run'") + "wandb.finish()"
    done = python(code, **environ)
    assert done.stdout.strip().endswith("2 ['team/nemotron/blend:v0']")
    assert wandb_backend.operations("UseArtifact") == 1


def test_the_documents_training_script_runs_as_it_stands(python, wandb_backend, wandb_environ):
    wandb_backend.seed("team/nemotron/blend", files={"a.txt": b"x"}, metadata={"pack_size": 2})
    code = """
        from omegaconf import OmegaConf
        from nemotron_exec.resolvers import register_resolvers_from_config
        from nemotron_exec.wandb import patch_wandb_init_for_lineage
        config = OmegaConf.load("cfg.yaml")
        qualified_names = register_resolvers_from_config(config, artifacts_key="run", mode="pre_init")
        patch_wandb_init_for_lineage(artifact_qualified_names=qualified_names)
        patch_wandb_init_for_lineage(artifact_qualified_names=qualified_names)
        import wandb
        wandb.init()
        wandb.finish()
    """
    python(code, **{**wandb_environ, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "team", "WANDB_SILENT": "true"})
    assert wandb_backend.operations("UseArtifact") == 1


def _without_answer():
    return {"PYTHONPATH": injector_directory(), "NEMOTRON_EXEC_ACTIVE": __version__}


def test_an_artifact_of_a_config_that_was_not_resolved_says_how_to_name_it(python):
    code = "from omegaconf import OmegaConf; OmegaConf.load('cfg.yaml').path"
    done = python(code, check=False, **_without_answer())
    assert done.returncode == 1
    assert "nemotron-exec -c FILE" in done.stderr
    assert "Unsupported interpolation type" not in done.stderr


def test_a_scripts_own_resolver_wins_where_nothing_was_resolved(python):
    code = """
        from omegaconf import OmegaConf
        print(OmegaConf.has_resolver("art"))
        if not OmegaConf.has_resolver("art"):
            OmegaConf.register_new_resolver("art", lambda name, field="path": "mine")
        print(OmegaConf.load("cfg.yaml").path, OmegaConf.has_resolver("art"), OmegaConf.has_resolver("add"))
    """
    assert python(code, **_without_answer()).stdout.splitlines() == ["False", "mine True False"]
