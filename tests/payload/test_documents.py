"""The types of the documents between launcher and injector have the keys that the writers write."""

from typing import get_type_hints

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.options import Options
from nemotron_exec.resolution import handoff
from nemotron_exec.resolution.resolution import ResolvedConfig
from nemotron_exec.sitecustomize.payload import documents
from nemotron_exec.sitecustomize.payload.checkpoints import describe, run_record, settings

WRITTEN_LATER = {"schema", "renamed_from", "ends_with", "sent_by", "registered", "number"}
OF_HOOKS = {"hooks", "best", "end_file", "looked_up_in_wandb"}


def keys(described):
    return set(get_type_hints(described))


def test_the_hand_off(tmp_path):
    artifact = Artifact("data", "d:latest", "manifest", "d", "v1", "dataset", "/d", "d:v1")
    written = handoff.handoff_document(
        job={"id": "j", "source": "--job-id", "environment": {}},
        backend="manifest",
        store=str(tmp_path),
        wandb={"project": None, "entity": None, "resume": None, "tags": []},
        artifacts=[artifact],
        publish=None,
        outputs={},
        checkpoints="all",
        on_checkpoint=[],
        configs=[ResolvedConfig("/a.yaml", "/b.yaml")],
        run_record=None,
    )
    assert set(written) == keys(documents.HandOff) - {"launched"}
    assert set(written["artifacts"][0]) == keys(documents.PinnedArtifact)
    assert set(written["config"][0]) <= keys(documents.ConfigFiles)


def test_an_entry_of_the_outbox_and_the_run_record(tmp_path):
    config = settings.Settings({"job": {"id": "j"}, "wandb": {"project": "p"}, "backend": "wandb"}, {})
    completed = describe.Completed(
        "script", {}, str(tmp_path), str(tmp_path / "iter_1"), 1, "iter_1", False, False, None, {}
    )
    entry = describe.describe(completed, config)
    assert set(entry) | WRITTEN_LATER | OF_HOOKS == keys(documents.Entry)
    assert set(entry["wandb"]) == keys(documents.WandbTarget)
    part = handoff.launched(["python", "train.py"], "/", Options(), {})
    assert set(part) == keys(documents.Launched)
    record = run_record.collect(config, {})
    assert set(record) | keys(documents.Launched) == keys(documents.RunRecord)
