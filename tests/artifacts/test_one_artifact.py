"""An artifact has the same fields for the launcher and for the Python API, in each store."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemotron_exec.sitecustomize.payload.manifest import register

FIELDS = ("path", "version", "name", "type", "iteration", "qualified_name", "pack_size")
API = """
import json, sys
from omegaconf import OmegaConf
from nemotron_exec.resolvers import register_resolvers_from_config
register_resolvers_from_config("cfg.yaml", mode=sys.argv[1])
def value(key, field):
    try:
        return OmegaConf.create({"x": "${art:%s,%s}" % (key, field)}).x
    except Exception as error:
        return "no field" if "has no field" in str(error) else repr(error)
keys = OmegaConf.load("cfg.yaml").run
print(json.dumps({key: {field: value(key, field) for field in sys.argv[2:]} for key in keys}))
"""

#  key: (recorded path, metadata, path for a job, iteration for a job)
CASES = {
    "directory_of_an_iteration": ("{here}/save/iter_0000010", {}, "{here}/save", 10),
    "with_a_slash_at_its_end": ("{here}/save/iter_0000010/", {}, "{here}/save", 10),
    "recorded_iteration": ("{here}/save/iter_0000010", {"iteration": 7}, "{here}/save", 7),
    "recorded_as_text": ("{here}/save/iter_0000010", {"iteration": "7"}, "{here}/save", 7),
    "truth_is_no_iteration": ("{here}/save/iter_0000010", {"iteration": True}, "{here}/save", 10),
    "save_directory": ("{here}/save", {"iteration": 10}, "{here}/save", 10),
    "save_directory_alone": ("{here}/save", {"pack_size": 4096}, "{here}/save", None),
    "other_number_in_the_name": ("{here}/save/step_10", {}, "{here}/save/step_10", None),
}


@pytest.fixture
def here(tmp_path):
    """A directory with the data of all cases, and a config that names each as an artifact."""
    for name in ("iter_0000010", "step_10"):
        (tmp_path / "save" / name).mkdir(parents=True)
    (tmp_path / "cfg.yaml").write_text("run:\n" + "".join(f"  {key}: {key}:latest\n" for key in CASES))
    return tmp_path


# W&B's client takes a second of processor time for each look-up of the API, so only CI looks all up.
SOME = ("directory_of_an_iteration", "recorded_as_text", "save_directory_alone")


def _run(here, environ, *words):
    done = subprocess.run(
        [sys.executable, *words], cwd=here, env=environ, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


def _compare(here, environ, mode, keys=tuple(CASES)):
    launcher = _run(here, environ, "-m", "nemotron_exec", "--resolve-only", "-c", "cfg.yaml")["artifacts"]
    api = _run(here, environ, "-c", API, mode, *FIELDS)
    assert [artifact["key"] for artifact in launcher] == list(keys)
    for artifact in launcher:
        _, _, path, iteration = CASES[artifact["key"]]
        assert (artifact["path"], artifact["iteration"]) == (path.format(here=here), iteration), artifact["key"]
        known = {**artifact["metadata"], **artifact["fields"], **{k: v for k, v in artifact.items() if v is not None}}
        assert api[artifact["key"]] == {field: known.get(field, "no field") for field in FIELDS}


def test_the_manifest_store_says_the_same_to_both(here):
    root = str(here / "store")
    for key, (recorded, metadata, _, _) in CASES.items():
        register.register(root, key, type="model", path=recorded.format(here=here), metadata=metadata)
    _compare(here, {**os.environ, "NEMOTRON_EXEC_STORE": root}, "manifest")


@pytest.mark.parametrize("keys", [SOME, pytest.param(tuple(CASES), marks=pytest.mark.ci)], ids=["some", "all"])
def test_wandb_says_the_same_to_both(here, wandb_backend, wandb_environ, keys):
    (here / "cfg.yaml").write_text("run:\n" + "".join(f"  {key}: {key}:latest\n" for key in keys))
    for key in keys:
        recorded, metadata, _, _ = CASES[key]
        metadata = {**metadata, "absolute_path": recorded.format(here=here)}
        wandb_backend.seed(f"team/nemotron/{key}", type="model", metadata=metadata)
    environ = {**wandb_environ, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "team", "WANDB_SILENT": "true"}
    _compare(here, environ, "pre_init", keys)


@pytest.mark.parametrize("reference", ["pretrain:latest", "pretrain:v1"])
def test_data_that_is_gone_is_an_error_of_the_api_as_well(here, reference):
    root = str(here / "store")
    register.register(root, "pretrain", type="model", path=str(here / "gone"), metadata={})
    (here / "cfg.yaml").write_text(f"run: {{model: '{reference}'}}\npath: ${{art:model,path}}\n")
    done = subprocess.run(
        [sys.executable, "-c", API, "manifest", "path"],
        cwd=here,
        env={**os.environ, "NEMOTRON_EXEC_STORE": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert str(here / "gone") in done.stderr.splitlines()[-1]
