"""Which process records a checkpoint of Megatron-Bridge, and for which directories, with the function's file alone."""

from __future__ import annotations

import sys
import types

import pytest

from checkpoint_job import TESTS, job, load  # noqa: F401
from nemotron_exec.sitecustomize.payload.patches import megatron_bridge as patch
from nemotron_exec.sitecustomize.payload.status import INSTALLED


@pytest.fixture
def bridge(monkeypatch):
    for name in _megatron():
        monkeypatch.delitem(sys.modules, name)
    module = load(TESTS / "frameworks" / "megatron_module.py").light()
    monkeypatch.setattr(module, "on_save_checkpoint_success", module.on_save_checkpoint_success)
    assert patch.apply(module).state == INSTALLED
    yield module
    # Remove the stand-ins around the file: other tests need the real packages.
    for name in _megatron():
        del sys.modules[name]


def _megatron():
    return [name for name in sys.modules if name.partition(".")[0] == "megatron"]


@pytest.mark.parametrize(("rank", "recorded"), [(0, False), (1, True)])
def test_without_a_run_or_a_writer_only_the_last_rank_records(bridge, job, monkeypatch, rank, recorded):
    distributed = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: rank, get_world_size=lambda: 2
    )
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed)
    bridge.on_save_checkpoint_success(job.save(10), str(job.save_dir), 10, None)
    assert job.numbers() == ([10] if recorded else [])


def test_a_non_persistent_directory_that_is_the_save_directory_holds_checkpoints_that_stay(bridge, job):
    config = types.SimpleNamespace(save=str(job.save_dir), non_persistent_global_ckpt_dir=str(job.save_dir))
    state = types.SimpleNamespace(cfg=types.SimpleNamespace(checkpoint=config))

    def save_checkpoint(state):
        def wandb_finalize_fn():
            bridge.on_save_checkpoint_success(job.save(15), str(job.save_dir), 15, wandb_writer=state and None)

        wandb_finalize_fn()

    save_checkpoint(state)
    assert job.manifest()["metadata"]["transient"] is False


def test_a_checkpoint_beside_the_save_directory_is_not_below_it(job, monkeypatch):
    from nemotron_exec.sitecustomize.payload.checkpoints import describe, settings

    mounted = {"/out/ckpt": "/host/one", "/out/ckpt2/iter_1": "/host/two/iter_1"}
    monkeypatch.setattr(describe.mountinfo, "to_host", lambda path: mounted.get(path, path))
    completed = describe.Completed(
        framework="megatron-bridge",
        versions={},
        save_dir="/out/ckpt",
        checkpoint_path="/out/ckpt2/iter_1",
        number=1,
        alias="iter_1",
        path_is_checkpoint=False,
        transient=False,
        best=None,
        extra={},
    )
    entry = describe.describe(completed, settings.settings())
    assert (entry["path"], entry["checkpoint_path"]) == ("/host/one", "/host/two/iter_1")
    entry = describe.describe(completed._replace(checkpoint_path="/out/ckpt/iter_1"), settings.settings())
    assert entry["checkpoint_path"] == "/host/one/iter_1"
