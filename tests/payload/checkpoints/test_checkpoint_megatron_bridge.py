"""patches/megatron_bridge.py on the real module of megatron-bridge from PyPI, called as the framework calls it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
import types
from pathlib import Path

import pytest

from checkpoint_job import TESTS, job, load, writer  # noqa: F401
from nemotron_exec.sitecustomize.payload.checkpoints import record as checkpoint
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from nemotron_exec.sitecustomize.payload.patches import megatron_bridge as patch
from nemotron_exec.sitecustomize.payload.paths import host
from nemotron_exec.sitecustomize.payload.status import INSTALLED, STOOD_DOWN

pytestmark = pytest.mark.torch

megatron_module = load(TESTS / "frameworks" / "megatron_module.py")


@pytest.fixture(scope="module")
def real():
    return megatron_module.install()


@pytest.fixture
def bridge(real, monkeypatch):
    """The real module, patched for one test."""
    original = real.on_save_checkpoint_success
    monkeypatch.setattr(real, "on_save_checkpoint_success", original)
    assert patch.apply(real).state == INSTALLED
    return real


def test_a_checkpoint_without_wandb_becomes_a_version_of_the_manifest_store(bridge, job):
    job.handoff["artifacts"] = [{"key": "data", "qualified_name": "team/nemotron/blend:v3", "path": "/data"}]
    path = job.save(10)
    bridge.on_save_checkpoint_success(path, str(job.save_dir), 10, None)
    found = job.manifest("v1")
    assert found["type"] == "model"
    assert found["path"] == str(job.save_dir)
    assert found["used_artifacts"] == ["team/nemotron/blend:v3"]
    assert found["aliases"] == ["iter_0000010"]
    assert found["metadata"]["iteration"] == 10
    assert found["metadata"]["absolute_path"] == str(job.save_dir)
    assert found["metadata"]["checkpoint_path"] == path
    assert found["metadata"]["framework"] == "megatron-bridge"
    assert found["metadata"]["framework_version"] == "0.3.1"
    assert found["metadata"]["transient"] is False
    assert listing.read_latest(str(job.store), "pretrain") == 1
    assert listing.aliases(str(job.store), "pretrain") == {"iter_0000010": 1}


def test_the_fields_of_the_next_jobs_art_are_in_metadata_json(bridge, job):
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)
    fields = read.read_version(str(job.store), "pretrain", "latest").metadata
    assert (fields["path"], fields["iteration"], fields["absolute_path"]) == (str(job.save_dir), 10, str(job.save_dir))


def test_nothing_stays_in_the_outbox_when_there_is_no_wandb(bridge, job):
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)
    job.settle()
    assert job.outbox() == []


def test_the_number_comes_from_the_path_because_an_asynchronous_save_says_another(bridge, job, writer):
    bridge.on_save_checkpoint_success(job.save(2), str(job.save_dir), 3, writer)
    assert job.manifest()["metadata"]["iteration"] == 2
    job.settle()
    artifact, aliases = writer.logged[0]
    assert (artifact.metadata["iteration"], aliases) == (2, ["iter_0000002"])


def test_the_frameworks_artifact_keeps_name_alias_reference_and_tracker_file_and_gains_our_metadata(
    bridge, job, writer
):
    path = job.save(10)
    bridge.on_save_checkpoint_success(path, str(job.save_dir), 10, writer)
    job.settle()
    (artifact, aliases), *others = writer.logged
    assert not others
    assert (artifact.name, artifact.type, aliases) == ("pretrain", "model", ["iter_0000010"])
    assert artifact.manifest.entries["common.pt"].ref == f"file://{path}/common.pt"
    assert artifact.metadata["absolute_path"] == str(job.save_dir)
    assert artifact.metadata["checkpoint_path"] == path
    assert (job.save_dir / "latest_wandb_artifact_path.txt").read_text() == "team/nemotron"


def test_the_background_thread_waits_for_the_artifact_that_the_framework_logged(bridge, job, writer):
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, writer)
    job.settle()
    assert writer.logged[0][0].waited.is_set()
    assert job.outbox() == []


def test_our_metadata_json_stands_beside_the_checkpoints_own(bridge, job, writer):
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, writer)
    job.settle()
    artifact = writer.logged[0][0]
    assert artifact.manifest.entries["metadata.json"].ref.endswith("/iter_0000010/metadata.json")
    assert artifact.files["nemotron-exec/metadata.json"]["iteration"] == 10


def test_in_a_container_everything_says_what_the_host_sees(bridge, job, writer, monkeypatch):
    inside = str(job.save_dir)
    monkeypatch.setattr(host, "to_host", lambda path: path.replace(inside, "/lustre/job/pretrain"))
    bridge.on_save_checkpoint_success(job.save(10), inside, 10, writer)
    job.settle()
    artifact = writer.logged[0][0]
    assert artifact.metadata["absolute_path"] == "/lustre/job/pretrain"
    assert artifact.manifest.entries["common.pt"].ref == "file:///lustre/job/pretrain/iter_0000010/common.pt"
    assert job.manifest()["path"] == "/lustre/job/pretrain"
    assert job.manifest()["metadata"]["checkpoint_path"] == "/lustre/job/pretrain/iter_0000010"


def test_what_the_framework_records_by_itself_is_not_overwritten(real, job, writer, monkeypatch):
    def newer(checkpoint_path, save_dir, iteration, wandb_writer):
        artifact = wandb_writer.Artifact("own", type="model", metadata={"absolute_path": "/their/own", "iteration": 7})
        wandb_writer.run.log_artifact(artifact, aliases=["mine"]).wait()
        assert writer.logged

    module = types.ModuleType("newer")
    module.on_save_checkpoint_success = newer
    assert patch.apply(module).state == INSTALLED
    module.on_save_checkpoint_success(job.save(7), str(job.save_dir), 7, writer)
    job.settle()
    (artifact, aliases), *others = writer.logged
    assert not others
    assert (artifact.name, aliases, artifact.metadata["absolute_path"]) == ("own", ["mine"], "/their/own")


def test_a_callback_that_logs_nothing_gets_its_artifact_from_us(job, writer):
    module = types.ModuleType("silent")
    module.on_save_checkpoint_success = lambda checkpoint_path, save_dir, iteration, wandb_writer: None
    patch.apply(module)
    path = job.save(7)
    module.on_save_checkpoint_success(path, str(job.save_dir), 7, writer)
    job.settle()
    (artifact, aliases), *others = writer.logged
    assert not others
    assert (artifact.name, aliases) == ("pretrain", ["iter_0000007", "latest"])
    assert artifact.manifest.entries["common.pt"].ref == f"file://{path}/common.pt"


def test_an_error_of_the_framework_reaches_its_caller_and_the_checkpoint_is_recorded(job, writer):
    # Up to v0.2.2 the body has no try.
    def older(checkpoint_path, save_dir, iteration, wandb_writer):
        raise ValueError("from the framework")

    module = types.ModuleType("older")
    module.on_save_checkpoint_success = older
    patch.apply(module)
    with pytest.raises(ValueError, match="from the framework"):
        module.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, writer)
    assert job.manifest()["metadata"]["iteration"] == 10


def test_an_exception_inside_the_patch_is_one_warning_and_the_frameworks_own_behaviour(
    bridge, job, writer, monkeypatch, capfd
):
    monkeypatch.setattr(checkpoint, "describe", lambda *_: 1 / 0)
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, writer)
    assert [aliases for _, aliases in writer.logged] == [["iter_0000010"]]
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("nemotron-exec: warning")]
    assert len(warnings) == 1
    assert "ZeroDivisionError" in warnings[0]


def test_strict_makes_an_exception_inside_the_patch_fatal(bridge, job, monkeypatch):
    monkeypatch.setenv("NEMOTRON_EXEC_STRICT", "1")
    monkeypatch.setattr(checkpoint, "describe", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)


def test_wrong_arguments_give_the_frameworks_own_error(bridge, job):
    with pytest.raises(TypeError, match="wandb_writer"):
        bridge.on_save_checkpoint_success("/x/iter_0000001", "/x", 1)
    assert not job.store.exists()


def test_those_who_imported_the_name_before_call_the_wrapper_too(real, job, monkeypatch):
    monkeypatch.setattr(real, "on_save_checkpoint_success", real.on_save_checkpoint_success)
    early = types.ModuleType("megatron_user")
    early.saved = real.on_save_checkpoint_success
    monkeypatch.setitem(sys.modules, "megatron_user", early)
    patch.apply(real)
    assert early.saved is real.on_save_checkpoint_success
    early.saved(job.save(10), str(job.save_dir), 10, None)
    assert job.manifest()["metadata"]["iteration"] == 10


def test_applying_twice_records_once(bridge, job):
    assert patch.apply(bridge).state == INSTALLED
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)
    assert listing.versions(str(job.store), "pretrain") == [1]


def test_the_wrapper_looks_like_the_function(bridge):
    wrapped = bridge.on_save_checkpoint_success
    assert wrapped.__module__ == bridge.__name__
    assert list(inspect.signature(wrapped).parameters) == ["checkpoint_path", "save_dir", "iteration", "wandb_writer"]
    assert wrapped.__doc__.startswith("Callback executed after a checkpoint")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (None, "has no on_save_checkpoint_success"),
        (lambda path, state: None, "takes"),
        (lambda checkpoint_path, save_dir, wandb_writer, iteration: None, "takes"),
    ],
    ids=["gone", "other parameters", "other order"],
)
def test_a_changed_function_makes_the_patch_stand_down(function, reason):
    module = types.ModuleType("changed")
    if function is not None:
        module.on_save_checkpoint_success = function
    status = patch.apply(module)
    assert status.state == STOOD_DOWN
    assert reason in status.reason
    assert getattr(module, "on_save_checkpoint_success", None) is function


def test_an_object_that_only_says_that_it_is_a_module_stands_in_nobodys_way(job, monkeypatch):
    class Lib:  # like _cffi_backend.Lib, which cryptography puts into sys.modules
        __slots__ = ()
        __class__ = types.ModuleType

    assert isinstance(Lib(), types.ModuleType)
    monkeypatch.setitem(sys.modules, "_lib", Lib())
    module = types.ModuleType("silent")
    module.on_save_checkpoint_success = lambda checkpoint_path, save_dir, iteration, wandb_writer: None
    assert patch.apply(module).state == INSTALLED


def test_a_later_version_with_more_parameters_is_still_wrapped(job):
    module = types.ModuleType("later")
    seen = []
    module.on_save_checkpoint_success = lambda checkpoint_path, save_dir, iteration, wandb_writer, rank=0: seen.append(
        rank
    )
    assert patch.apply(module).state == INSTALLED
    module.on_save_checkpoint_success(job.save(1), str(job.save_dir), 1, wandb_writer=None, rank=3)
    assert seen == [3]
    assert job.manifest()["metadata"]["iteration"] == 1


def test_parts_of_a_nemo_rl_checkpoint_are_no_checkpoints(bridge, job, tmp_path):
    save_dir = tmp_path / "rl" / "tmp_step_5" / "policy" / "weights"
    bridge.on_save_checkpoint_success(job.save(0, save_dir), str(save_dir), 0, None)
    assert not job.store.exists()
    assert sorted(os.listdir(save_dir)) == ["iter_0000000"]


def test_a_non_persistent_checkpoint_is_marked_and_never_latest(bridge, job):
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)
    save_dir = job.save_dir / "non_persistent"
    bridge.on_save_checkpoint_success(job.save(15, save_dir), str(save_dir), 15, None)
    assert job.manifest("v2")["metadata"]["transient"] is True
    assert job.manifest("iter_0000015")["metadata"]["iteration"] == 15
    assert job.manifest("latest")["metadata"]["iteration"] == 10


def test_a_non_persistent_directory_of_any_name_is_known_from_the_callers_configuration(bridge, job):
    save_dir = job.save_dir.parent / "scratch"
    config = types.SimpleNamespace(save=str(job.save_dir), non_persistent_global_ckpt_dir=str(save_dir))
    state = types.SimpleNamespace(cfg=types.SimpleNamespace(checkpoint=config))

    def save_checkpoint(state):
        def wandb_finalize_fn():
            bridge.on_save_checkpoint_success(job.save(15, save_dir), str(save_dir), 15, wandb_writer=state and None)

        wandb_finalize_fn()

    save_checkpoint(state)
    assert job.manifest("v1", "scratch")["transient"] is True


@pytest.mark.parametrize(
    ("file", "key", "form"),
    [
        ("hf/config.json", "hf_path", "megatron+hf"),
        ("hf/adapter_config.json", "adapter_path", "megatron+peft"),
        ("modelopt_state/metadata.json", "modelopt_path", "megatron+modelopt"),
    ],
)
def test_what_else_is_in_a_checkpoint_is_recorded(bridge, job, file, key, form):
    path = job.save(10)
    Path(path, file).parent.mkdir()
    Path(path, file).write_text("{}")
    bridge.on_save_checkpoint_success(path, str(job.save_dir), 10, None)
    assert job.manifest()["metadata"][key] == f"{path}/{file.partition('/')[0]}"
    assert job.manifest()["metadata"]["format"] == form


def test_a_save_directory_that_is_a_uri_is_recorded_as_it_is(bridge, job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_dir = "msc://profile/bucket/pretrain"
    bridge.on_save_checkpoint_success(save_dir + "/iter_0000010", save_dir, 10, None)
    assert job.manifest()["path"] == save_dir
    assert job.manifest()["metadata"]["checkpoint_path"] == save_dir + "/iter_0000010"
    job.settle()
    assert not (tmp_path / "msc:").exists()
    assert (job.store / ".nemotron-exec" / "outbox").is_dir()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("all", [5, 10]), ("periodic", [10]), ("last", [5, 10]), ("best", [5, 10]), ("none", [])],
)
def test_run_checkpoints_says_which_are_recorded(bridge, job, policy, kept):
    job.handoff["checkpoints"] = policy
    transient = job.save_dir / "non_persistent"
    bridge.on_save_checkpoint_success(job.save(5, transient), str(transient), 5, None)
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)
    assert job.numbers() == kept


def test_run_publish_names_the_artifact_in_both_stores(bridge, job, writer):
    job.handoff["publish"] = "super3/pretrain"
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, writer)
    assert job.manifest("latest", "super3/pretrain")["metadata"]["iteration"] == 10
    job.settle()
    assert writer.logged[0][0].name == "super3-pretrain"


def test_a_checkpoint_that_the_framework_deleted_is_marked_as_pruned(bridge, job):
    first = job.save(10)
    bridge.on_save_checkpoint_success(first, str(job.save_dir), 10, None)
    shutil.rmtree(first)  # as most_recent_k does, on another rank
    bridge.on_save_checkpoint_success(job.save(20), str(job.save_dir), 20, None)
    job.settle()
    assert (job.store / "pretrain" / "v1" / "pruned").exists()
    assert not (job.store / "pretrain" / "v2" / "pruned").exists()


def test_a_checkpoint_that_is_saved_once_more_with_no_step_in_between_counts_once(bridge, job, writer):
    # pretrain() saves the last step once more at its end.
    for number in (10, 20, 20):
        bridge.on_save_checkpoint_success(job.save(number), str(job.save_dir), number, writer)
    job.settle()
    assert job.numbers() == [10, 20]
    assert job.pruned() == []
    events = [artifact.metadata["nemotron_exec_event"] for artifact, _ in writer.logged]
    assert events[1] == events[2]  # equal content: W&B keeps one version


def test_a_checkpoint_that_is_saved_anew_later_is_a_new_version(bridge, job):
    for number in (10, 20, 10):
        bridge.on_save_checkpoint_success(job.save(number), str(job.save_dir), number, None)
    job.settle()
    assert job.numbers() == [10, 20, 10]
    assert job.pruned() == [10]


def test_no_file_of_ours_disturbs_the_frameworks_search_for_checkpoints(bridge, job, monkeypatch):
    # cleanup_old_non_persistent_checkpoint calls save_dir.rglob("iter_*"), and int() on the rest of each name.
    for number in (10, 20):
        bridge.on_save_checkpoint_success(job.save(number), str(job.save_dir), number, None)
    assert sorted(int(path.name[len("iter_") :]) for path in job.save_dir.rglob("iter_*")) == [10, 20]


def test_the_run_record_is_beside_the_checkpoints_and_each_points_at_it(bridge, job, tmp_path):
    resolved = tmp_path / "cfg.yaml"
    resolved.write_text("a: 1\n")
    job.handoff["config"] = [{"original": "cfg.yaml", "resolved": str(resolved)}]
    for number in (10, 20):
        bridge.on_save_checkpoint_success(job.save(number), str(job.save_dir), number, None)
    job.settle()
    pointed = {job.manifest(version)["metadata"]["run_record"] for version in ("v1", "v2")}
    assert len(pointed) == 1
    record = json.loads(Path(*pointed).read_text())
    assert record["job"] == "slurm-4242.0"
    assert record["config"][0]["resolved_sha256"]
    assert set(record["code"]) - {"diff"} == {"ref", "commit", "dirty", "root"}  # a changed tree adds "diff"
    assert record["versions"]["megatron-bridge"] == "0.3.1"


def _saved_by_a_conversion(bridge, job, number=0):
    """Call back as `save_checkpoint` does for `AutoBridge.save_megatron_model`, without a `train` configuration."""
    state = types.SimpleNamespace(cfg=types.SimpleNamespace(train=None, checkpoint=None))
    path = job.save(number)
    bridge.on_save_checkpoint_success(path, str(job.save_dir), number, None)
    del state


@pytest.mark.parametrize("trainer", ["nemo_rl", "megatron.bridge.training.pretrain"])
def test_weights_that_a_training_converts_for_itself_are_no_checkpoint_and_their_cache_stays_as_it_is(
    bridge, job, monkeypatch, trainer
):
    monkeypatch.setitem(sys.modules, trainer, types.ModuleType(trainer))
    _saved_by_a_conversion(bridge, job)
    job.settle()
    assert job.numbers() == []
    assert sorted(path.name for path in job.save_dir.iterdir()) == ["iter_0000000"]


def test_weights_whose_conversion_is_the_job_are_recorded_as_converted(bridge, job, monkeypatch):
    for name in ("nemo_rl", "megatron.bridge.training.pretrain", "megatron.bridge.training.finetune"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    _saved_by_a_conversion(bridge, job)
    assert job.numbers() == [0]
    assert job.manifest()["metadata"]["converted"] is True


def test_a_checkpoint_of_a_training_is_not_taken_for_a_conversion(bridge, job, monkeypatch):
    monkeypatch.setitem(sys.modules, "nemo_rl", types.ModuleType("nemo_rl"))
    state = types.SimpleNamespace(cfg=types.SimpleNamespace(train=object(), checkpoint=None))
    bridge.on_save_checkpoint_success(job.save(2), str(job.save_dir), 2, None)
    del state
    assert job.numbers() == [2]
    assert "converted" not in job.manifest()["metadata"]
