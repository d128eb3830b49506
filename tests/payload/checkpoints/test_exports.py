"""patches/megatron_export.py and patches/modelopt.py: real exports of Megatron-Bridge 0.6.2 and ModelOpt, on the CPU.

They run in CI only, because the framework's environment has gigabytes (framework_environments.py). One process makes
all exports, because the imports take most of its time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from framework_environments import python_of
from nemotron_exec.sitecustomize.payload import frameworks
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from places import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1200)]

SCRIPT = ROOT / "tests" / "frameworks" / "export_tiny_llama.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The directory in which the script has run under nemotron-exec, the store in it, and the messages."""
    directory = tmp_path_factory.mktemp("exported")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "NEMOTRON_EXEC_STORE": str(directory / "store"),
        "NEMOTRON_EXEC_BACKEND": "manifest",
    }
    command = [sys.executable, "-m", "nemotron_exec", "--", python_of("pretrain-0.6"), str(SCRIPT), str(directory)]
    done = subprocess.run(
        command, env=environ, cwd=directory, capture_output=True, text=True, timeout=1000, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return directory, done.stderr


def manifests(directory, name):
    store = str(directory / "store")
    numbers = listing.versions(store, name)
    return [read.read_version(store, name, number, skip_gone=False).manifest for number in numbers]


def test_a_checkpoint_has_the_export_beside_it_after_an_asynchronous_save_too(exported):
    directory, _ = exported
    (one,) = manifests(directory, "trained")
    assert one["metadata"]["iteration"] == 2
    assert one["metadata"]["format"] == "megatron+hf"
    assert one["metadata"]["hf_path"] == str(directory / "trained/iter_0000002/hf")
    assert (directory / "trained/iter_0000002/hf/model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "kind", "form", "more"),
    [
        ("exported", "model", "hf", {"iteration": 2}),
        ("saved", "model", "hf", {}),
        ("merged", "model", "hf", {"merged_adapter": True}),
        ("adapter", "adapter", "peft", {}),
        ("of-megatron", "model", "hf+modelopt", {"framework": "modelopt"}),
        ("of-transformers", "model", "hf+modelopt", {"framework": "modelopt"}),
    ],
)
def test_an_export_is_an_artifact_that_says_what_it_is(exported, name, kind, form, more):
    directory, said = exported
    (one,) = manifests(directory, name)
    assert (one["type"], one["metadata"]["format"]) == (kind, form)
    assert one["path"] == one["metadata"]["checkpoint_path"] == str(directory / "exports" / name)
    for key, value in {"framework": "megatron-bridge", **more}.items():
        assert one["metadata"][key] == value
    assert ("merged_adapter" in one["metadata"]) == ("merged_adapter" in more)
    assert f"{name}:v1 is the checkpoint {directory}/exports/{name}\n" in said
    assert not (directory / "exports" / name / ".nemotron-exec").exists()


def test_what_an_export_was_made_of_is_said(exported):
    directory, _ = exported
    (one,) = manifests(directory, "exported")
    assert one["metadata"]["exported_from"] == str(directory / "trained/iter_0000002")
    assert "exported_from" not in manifests(directory, "saved")[0]["metadata"]


def test_a_manager_with_a_way_of_its_own_is_named_once_and_one_that_saves_as_megatron_bridge_does_is_recorded(exported):
    directory, said = exported
    warnings = [line for line in said.splitlines() if "nemotron-exec: warning" in line]
    assert len(warnings) == 1, warnings
    assert "custom_manager_class custom_manager.Alone are not recorded" in warnings[0]
    assert [one["metadata"]["iteration"] for one in manifests(directory, "passed-on")] == [2]
    assert listing.versions(str(directory / "store"), "alone") == []


def test_nothing_else_is_an_artifact_and_nothing_is_left_in_an_outbox(exported):
    directory, _ = exported
    assert set(listing.names(str(directory / "store"))) == {
        "adapter", "exported", "merged", "of-megatron", "of-transformers", "passed-on", "saved", "trained",
    }  # fmt: skip
    for place in ("exports", "trained", "passed-on"):
        assert outbox.entries(outbox.directory_of(str(directory / place))) == []


def test_the_witnesses_of_modelopt_are_the_files_that_it_writes(exported):
    directory, _ = exported
    (witness, _) = frameworks.named("megatron-bridge").exports["modelopt"]
    assert (directory / "converted/iter_0000000" / witness).exists()
    for name in ("of-megatron", "of-transformers"):
        config = json.loads((directory / "exports" / name / "hf_quant_config.json").read_text())
        assert config["quantization"]["quant_algo"] == "FP8"
