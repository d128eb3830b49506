"""Hugging Face references under `run:`, and the ids that a config names elsewhere."""

from __future__ import annotations

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.run_section import Injected
from nemotron_exec.errors import LaunchError

COMMIT = "0123456789" * 4
MODEL = Artifact(
    "model", "hf://org/model", "huggingface", "org/model", COMMIT[:12], "model", f"/hf/{COMMIT}",
    f"hf://org/model@{COMMIT}", digest=COMMIT, fields={"id": "org/model", "revision": COMMIT},
)  # fmt: skip


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Read a config; its path is `cfg.yaml`."""
    monkeypatch.chdir(tmp_path)

    def make(text, *words):
        (tmp_path / "cfg.yaml").write_text(text)
        argument = ConfigArgument(0, "", str(tmp_path / "cfg.yaml"))
        return read([argument], parse_overrides(words), environ={}, run_wandb=Injected(), resolve="artifacts")

    return make


@pytest.mark.parametrize(
    ("value", "parts", "alias", "kind"),
    [
        ("hf://org/model", ("org", "model"), "main", "model"),
        ("hf://gpt2", ("gpt2",), "main", "model"),
        ("hf://org/model@v1.0", ("org", "model"), "v1.0", "model"),
        ("hf://org/model@refs/pr/3", ("org", "model"), "refs/pr/3", "model"),
        ("hf://org/model@refs%2Fpr%2F3", ("org", "model"), "refs/pr/3", "model"),
        ("hf://datasets/org/name@main", ("org", "name"), "main", "dataset"),
        ("hf://datasets/squad", ("squad",), "main", "dataset"),
        ("{hf: datasets/org/name}", ("org", "name"), "main", "dataset"),
        ("{hf: org/model, revision: 7}", ("org", "model"), "7", "model"),
        ("org/model", ("org", "model"), "main", "model"),
    ],
)
def test_a_reference_is_read(config, value, parts, alias, kind):
    (reference,) = config(
        f"run: {{model: {value if value[0] == '{' else repr(value)}}}\na: ${{art:model}}\n"
    ).references
    assert (reference.parts, reference.alias, reference.type) == (parts, alias, kind)
    assert reference.store == "huggingface"


@pytest.mark.parametrize(
    ("value", "store"),
    [("project/name:latest", None), ("a/b/c:v1", None), ("name", None), ("art://a/b", None), ("a/b:7", None)],
)
def test_a_reference_of_another_store_stays_one(config, value, store):
    (reference,) = config(f"run: {{model: '{value}'}}\na: ${{art:model}}\n").references
    assert reference.store is store


def test_another_version_by_the_command_is_another_reference(config):
    text = "run: {model: {hf: org/model, revision: v1}}\na: ${art:model}\n"
    assert config(text, "run.model.revision=v2").references[0].alias == "v2"
    assert config(text, "run.model=hf://org/other@v3").references[0].name == "org/other"
    assert config(text).references[0].text != config(text, "run.model.include=[a]").references[0].text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("hf://org/model:v1", "The revision of a Hugging Face repository follows an @"),
        ("hf://", "the hub does not take"),
        ("hf://org/", "the hub does not take"),
        ("hf://org/a b", "the hub does not take"),
        ("hf://org/a--b", "the hub does not take"),
        ("hf://spaces/org/x", "neither a model nor a data set"),
        ("hf://org/model/config.json", "a path inside the repository"),
        ("hf://org/model@../../x", "whose revision '../../x' is not one"),
        ("hf://org/model@", "whose revision '' is not one"),
        ("hf://org/model@a%2F..%2Fb", "is not one"),
        ("{hf: org/model, patterns: x}", "the key 'patterns'. The keys are hf, revision, include, exclude"),
        ("{hf: [a], revision: 1}", "Write `hf: org/name`"),
        ("{hf: org/model, include: {a: b}}", "Write a list of patterns"),
        ("{hf: org/model, include: [1]}", "Write a list of patterns"),
        ("{hf: org/model@v1, revision: v2}", "two revisions"),
        ("{hf: org/model, revision: true}", "Write the name of a branch or tag"),
        ("{hf: org/model, trust_remote_code: 7}", "Write true or false"),
    ],
)
def test_a_bad_reference_is_one_error_that_names_its_line(config, value, said):
    with pytest.raises(LaunchError) as caught:
        config(f"run:\n  model: {value if value[0] == '{' else repr(value)}\na: ${{art:model,path}}\n")
    assert said in str(caught.value)
    assert "cfg.yaml:2" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "kind", "name"),
    [
        ("policy: {model_name: Qwen/Qwen3-8B}", "model", "Qwen/Qwen3-8B"),
        ("tokenizer: {name: other/tokenizer}", "model", "other/tokenizer"),
        ("recipe: {hf_path: nvidia/x}", "model", "nvidia/x"),
        ("recipe: {pretrained_model_name_or_path: gpt2}", "model", "gpt2"),
        ("model: {path: nvidia/x}", "model", "nvidia/x"),
        ("data: {train: {dataset_name: squad}}", "dataset", "squad"),
        ("dataset: {path: org/data}", "dataset", "org/data"),
        ("dataset: {path_or_dataset_id: org/data}", "dataset", "org/data"),
        ("data: {files: 'hf://datasets/org/data/train.parquet'}", "file", "datasets/org/data"),
        ("tokenizer: {name: '${art:model,id}'}", "model", "org/model"),
    ],
)
def test_an_id_is_known_by_its_key_and_form(config, more, kind, name):
    (found,) = config(f"run: {{model: hf://org/model}}\n{more}\n").hub_ids({"model": MODEL})
    assert (found.kind, found.id, found.known) == (kind, name, True)


@pytest.mark.parametrize(
    "more",
    [
        "checkpointing: {checkpoint_dir: results/grpo}",
        "logger: {log_dir: logs/run, wandb: {name: a/b, project: c/d}}",
        "dataset: {path: data/here}",
        "model: {name: '${art:model,path}'}",
        "policy: {model_name: models/local, model_save_dir: a/b}",
        "data: {train: {dataset_name: ResponseDataset, data_path: a/b.jsonl}}",
        "image: nvcr.io/nvidia",
        "policy: {tokenizer: {name: '${policy.other}'}, other: null}",
    ],
)
def test_paths_and_names_of_other_things_are_no_ids(config, tmp_path, more):
    for name in ("data/here", "models/local"):
        (tmp_path / name).mkdir(parents=True)
    assert config(f"run: {{model: hf://org/model}}\n{more}\n").hub_ids({"model": MODEL}) == []


def test_what_the_command_says_counts_and_not_what_it_replaces(config):
    text = "run: {model: hf://org/model}\npolicy: {model_name: other/model}\n"
    (found,) = config(text, "policy.model_name=org/model").hub_ids({"model": MODEL})
    assert found.id == "org/model"
    (added,) = config("run: {model: hf://org/model}\n", "+tokenizer={name: a/b}").hub_ids({"model": MODEL})
    assert (added.id, added.key) == ("a/b", "tokenizer.name")
