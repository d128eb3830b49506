"""patches/exported.py: the name and the metadata of an export, from any framework."""

from __future__ import annotations

import sys

import pytest

from nemotron_exec.sitecustomize.payload.manifest import listing, read

EXPORT = """
import os, sys
from _nemotron_exec.patches import exported

for name in sys.argv[2:]:
    path = os.path.join("out", name)
    os.makedirs(path, exist_ok=True)
    open(os.path.join(path, "adapter_config.json" if name == "lora" else "config.json"), "w").close()
    exported.record_export("megatron-bridge", path, "ckpt/iter_0000010", {"more": 1})
"""


@pytest.fixture
def export(nemotron_exec, tmp_path):
    """Export into directories of `out`: `export(*NAMES, run=TEXT) -> CompletedProcess`."""

    def run(*names, run="{}", options=(), **more):
        (tmp_path / "export.py").write_text(EXPORT)
        (tmp_path / "cfg.yaml").write_text(f"run: {run}\n")
        environ = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "NEMOTRON_EXEC_BACKEND": "manifest", **more}
        return nemotron_exec(*options, sys.executable, "export.py", "cfg.yaml", *names, env=environ)

    return run


def manifest(tmp_path, name, number=1):
    return read.read_version(str(tmp_path / "store"), name, number, skip_gone=False).manifest


def test_an_export_has_its_directorys_name_and_says_what_it_was_made_of(export, tmp_path):
    done = export("model", "lora")
    assert done.returncode == 0, done.stderr
    model, adapter = manifest(tmp_path, "model"), manifest(tmp_path, "lora")
    assert (model["type"], model["metadata"]["format"]) == ("model", "hf")
    assert (adapter["type"], adapter["metadata"]["format"]) == ("adapter", "peft")
    assert model["metadata"]["iteration"] == 10
    assert model["metadata"]["exported_from"] == str(tmp_path / "ckpt/iter_0000010")
    assert model["metadata"]["more"] == 1


def test_run_publish_names_it_apart_from_the_trainings_checkpoints(export, tmp_path):
    export("model", "lora", run="{publish: 'mine:best'}")
    assert sorted(listing.names(str(tmp_path / "store"))) == ["mine-adapter", "mine-hf"]


def test_a_second_export_into_a_directory_has_overwritten_the_first(export, tmp_path):
    export("model")
    export("model")
    assert listing.versions(str(tmp_path / "store"), "model") == [1, 2]
    assert (tmp_path / "store/model/v1/pruned").exists()


def test_a_part_of_a_checkpoint_of_nemo_rl_and_run_checkpoints_none_register_nothing(export, tmp_path):
    assert export("tmp_step_3/model").returncode == 0
    assert export("model", run="{checkpoints: none}").returncode == 0
    assert not (tmp_path / "store").exists() or listing.names(str(tmp_path / "store")) == []


def test_an_export_that_cannot_be_recorded_is_one_warning(export, tmp_path):
    (tmp_path / "store").write_text("no directory")
    done = export("model", NEMOTRON_EXEC_CHECKPOINT_DRAIN="1")  # it tries for so many seconds at its end
    assert done.returncode == 0
    assert sum("warning" in line for line in done.stderr.splitlines()) >= 1
