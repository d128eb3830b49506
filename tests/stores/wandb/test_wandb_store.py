"""References in W&B become pinned versions with a path: the real client against a server on the loopback."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import pytest

from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError
from nemotron_exec.origin import Origin
from nemotron_exec.stores.protocol import StoreContext
from nemotron_exec.stores.table import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nemotron_exec.artifacts.artifact import Artifact
    from wandb_backend import Backend

Resolve = "Callable[..., list[Artifact]]"


@pytest.fixture
def resolve(wandb_environ: dict[str, str], tmp_path: Path) -> Callable[..., list[Artifact]]:
    """`resolve("data:latest", …)` with a new store each time, and with the cache of this test."""

    def run(*texts: str, timeout: float = 60, environ: dict[str, str] | None = None, **more: Any) -> list[Artifact]:
        references = [parse_reference(f"key{i}", text, Origin("cfg.yaml", i + 1)) for i, text in enumerate(texts)]
        cache = str(tmp_path / "cache")
        settings = {"project": "nemotron", "environ": {**wandb_environ, **(environ or {})}, **more}
        store = open_store("wandb", StoreContext(root="", cache_dir=cache, **settings))
        return store.resolve(references, progress=lambda *_: None, timeout=timeout)

    return run


def content(directory: str) -> dict[str, bytes]:
    """Every file below a directory, by relative name."""
    found = {}
    for here, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(here, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, directory)] = file.read()
    return found


@pytest.mark.wandb_matrix
def test_every_form_of_a_name_finds_its_version(wandb_backend: Backend, resolve: Resolve) -> None:
    first = wandb_backend.seed("team/nemotron/data", files={"a": b"1"}, aliases=("prod", "latest"))
    wandb_backend.seed("team/nemotron/data", files={"a": b"2"})
    wandb_backend.seed("team/elsewhere/data", files={"a": b"3"})
    wandb_backend.seed("other/nemotron/data", files={"a": b"4"})
    wandb_backend.model.link(first, "model", "base", "prod")
    expected = {
        "data": "team/nemotron/data:v1",
        "data:latest": "team/nemotron/data:v1",
        "data:v0": "team/nemotron/data:v0",
        "data:0": "team/nemotron/data:v0",
        "data:prod": "team/nemotron/data:v0",
        "elsewhere/data:latest": "team/elsewhere/data:v0",
        "other/nemotron/data:v0": "other/nemotron/data:v0",
        "art://data:prod": "team/nemotron/data:v0",
        # The registry's own version is v0, too. Lineage names the source.
        "wandb-registry-model/base:prod": "team/nemotron/data:v0",
        "acme/wandb-registry-model/base:v0": "team/nemotron/data:v0",
    }
    found = resolve(*expected)
    assert {a.reference: a.qualified_name for a in found} == expected
    assert [a.key for a in found] == [f"key{i}" for i in range(len(expected))]
    assert [content(a.path)["a"] for a in found] == [b"2", b"2", b"1", b"1", b"1", b"3", b"4", b"1", b"1", b"1"]
    assert wandb_backend.unknown == []


@pytest.mark.wandb_matrix
def test_all_fields_of_a_downloaded_artifact(wandb_backend: Backend, resolve: Resolve, tmp_path: Path) -> None:
    wandb_backend.seed(
        "team/nemotron/data",
        files={"metadata.json": b'{"pack_size": 4096, "iteration": 12, "metadata": {"inner": 1.5}}', "d/e": b"x"},
        metadata={"pack_size": 1, "tokenizer": "llama"},
    )
    (artifact,) = resolve("data:latest")
    fields = {name: artifact.field(name) for name in artifact.field_names() if name not in ("path", "metadata")}
    assert fields == {
        "version": "v0",
        "name": "data",
        "type": "dataset",
        "qualified_name": "team/nemotron/data:v0",
        "iteration": 12,
        "pack_size": 4096,
        "inner": 1.5,
        "tokenizer": "llama",
    }
    assert artifact.path.startswith(str(tmp_path / "cache" / "wandb"))
    assert artifact.digest == os.path.basename(artifact.path)
    assert artifact.source == f"{wandb_backend.url}/team/nemotron/artifacts/dataset/data/v0"
    assert set(content(artifact.path)) == {"metadata.json", "d/e"}


@pytest.mark.wandb_matrix
def test_data_that_is_here_is_not_downloaded(wandb_backend: Backend, resolve: Resolve, tmp_path: Path) -> None:
    for name in ("save/iter_0000007", "legacy/iter_0000100", "flat"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_bytes(b"w")
        (tmp_path / name / "more").write_bytes(b"m")
    # Registered as nemotron-exec registers a checkpoint: a reference to the save directory, and a small real file.
    wandb_backend.seed(
        "team/nemotron/pretrain",
        type="model",
        files={"metadata.json": b'{"iteration": 7, "path": "x", "seq_length": 4096}'},
        references={"iter_0000007": f"file://{tmp_path}/save/iter_0000007"},
        metadata={"absolute_path": f"{tmp_path}/save", "checkpoint_path": f"{tmp_path}/save/iter_0000007"},
    )
    # Registered as by Megatron-Bridge and NVIDIA's recipes.
    wandb_backend.seed(
        "team/nemotron/legacy", type="model", metadata={"absolute_path": f"{tmp_path}/legacy/iter_0000100"}
    )
    wandb_backend.seed(
        "team/nemotron/bridge",
        type="model",
        references={n: f"file://{tmp_path}/legacy/iter_0000100/{n}" for n in ("weights", "more")},
    )
    wandb_backend.seed(
        "team/nemotron/tree", references={f"d/{n}": f"file://{tmp_path}/flat/{n}" for n in ("weights", "more")}
    )
    wandb_backend.seed("team/nemotron/file", references={"weights": f"file://{tmp_path}/flat/weights"})
    found = {a.name: a for a in resolve("pretrain", "legacy", "bridge", "tree", "file")}
    assert {name: a.path for name, a in found.items()} == {
        "pretrain": f"{tmp_path}/save",
        "legacy": f"{tmp_path}/legacy",
        "bridge": f"{tmp_path}/legacy",
        "tree": f"{tmp_path}/flat",
        "file": f"{tmp_path}/flat",
    }
    assert {name: a.iteration for name, a in found.items()} == {
        "pretrain": 7,
        "legacy": 100,
        "bridge": 100,
        "tree": None,
        "file": None,
    }
    assert found["pretrain"].field("seq_length") == 4096
    downloads = {o.name for o in wandb_backend.find("GET .*") if not o.name.endswith("wandb_manifest.json")}
    assert downloads == {"GET pretrain/metadata.json"}
    assert not (tmp_path / "cache").exists()


def test_paths_are_translated_to_where_they_are_mounted(
    wandb_backend: Backend, resolve: Resolve, tmp_path: Path
) -> None:
    (tmp_path / "here" / "iter_5").mkdir(parents=True)
    wandb_backend.seed("team/nemotron/a", metadata={"absolute_path": "/lustre/job/iter_5"})
    wandb_backend.seed("team/nemotron/b", references={"iter_5": "file:///lustre/job/iter_5"})
    found = resolve("a", "b", localise=lambda path: path.replace("/lustre/job", f"{tmp_path}/here"))
    assert [(a.path, a.iteration) for a in found] == [(f"{tmp_path}/here", 5)] * 2


def test_an_artifact_with_the_newer_digests_is_checked_by_them(wandb_backend: Backend, resolve: Resolve) -> None:
    import xxhash

    version = wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    digest = base64.b64encode(xxhash.xxh3_128(b"1").digest()).decode()
    version.manifest["contents"]["a"].update(digest=digest, extra={"alg": "XXH128"})
    (artifact,) = resolve("data")
    assert content(artifact.path) == {"a": b"1"}


def test_a_uri_is_a_path_as_it_is(wandb_backend: Backend, resolve: Resolve) -> None:
    wandb_backend.seed("team/nemotron/a", metadata={"absolute_path": "s3://bucket/ckpt", "iteration": 3})
    (artifact,) = resolve("a")
    assert (artifact.path, artifact.iteration) == ("s3://bucket/ckpt", 3)


def test_data_that_is_nowhere_is_an_error_that_names_it(wandb_backend: Backend, resolve: Resolve) -> None:
    wandb_backend.seed("team/nemotron/a", metadata={"absolute_path": "/lustre/gone"})
    with pytest.raises(LaunchError, match=r"/lustre/gone.*does not exist here.*Mount") as caught:
        resolve("a")
    assert "cfg.yaml:1" in str(caught.value)
    assert caught.value.exit_code == 125


def test_files_are_downloaded_where_the_recorded_path_is_not_here(wandb_backend: Backend, resolve: Resolve) -> None:
    wandb_backend.seed("team/nemotron/a", files={"w": b"1"}, metadata={"absolute_path": "/lustre/gone"})
    (artifact,) = resolve("a")
    assert content(artifact.path) == {"w": b"1"}


def test_project_and_entity_come_from_reference_then_config_then_environment_then_key(
    wandb_backend: Backend, resolve: Resolve
) -> None:
    for entity, project in (("team", "config"), ("team", "environment"), ("other", "config"), ("third", "environment")):
        wandb_backend.seed(f"{entity}/{project}/data", files={"a": f"{entity}/{project}".encode()})
    environ = {"WANDB_PROJECT": "environment", "WANDB_ENTITY": "third"}
    found = resolve("data", "team/environment/data", project="config", entity="other", environ=environ)
    assert [a.qualified_name for a in found] == ["other/config/data:v0", "team/environment/data:v0"]
    assert [a.qualified_name for a in resolve("data", project=None, environ=environ)] == ["third/environment/data:v0"]
    assert [a.qualified_name for a in resolve("data", project="config")] == ["team/config/data:v0"]
    with pytest.raises(LaunchError, match=r"no project is known.*WANDB_PROJECT"):
        resolve("data", project=None)


def test_one_look_up_for_each_reference(wandb_backend: Backend, resolve: Resolve) -> None:
    for name in ("a", "b", "c"):
        wandb_backend.seed(f"team/nemotron/{name}", files={"f": name.encode(), "g": b"2"})
    resolve("a", "b", "c", "a:latest", "team/nemotron/a")
    assert wandb_backend.operations("ArtifactMembershipByName") == 3
    assert wandb_backend.operations("FetchArtifactManifest") == 3
    viewers = [one for one in wandb_backend.log if one.name == "Viewer" and "W&B" in one.user_agent]
    assert len(viewers) == 1  # a second client would only ask for the cause of an error
    assert len(wandb_backend.find("GET ./[fg]")) == 6


def test_a_second_job_finds_the_download_and_fetches_only_what_a_cleaner_took(
    wandb_backend: Backend, resolve: Resolve
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1" * 100, "b/c": b"2" * 100})
    (first,) = resolve("data")
    assert len(wandb_backend.find("GET data/[ab].*")) == 2
    (second,) = resolve("team/nemotron/data:v0")
    assert second.path == first.path
    assert len(wandb_backend.find("GET data/[ab].*")) == 2
    os.unlink(os.path.join(first.path, "b/c"))
    with open(os.path.join(first.path, "index.idx"), "wb") as file:
        file.write(b"made by a job beside the data")
    resolve("data")
    assert wandb_backend.operations("GET data/b/c") == 2
    assert wandb_backend.operations("GET data/a") == 1
    assert set(content(first.path)) == {"a", "b/c", "index.idx"}


def test_references_and_files_together(wandb_backend: Backend, resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "vocab").write_bytes(b"v")
    wandb_backend.seed(
        "team/nemotron/mixed", files={"blend.json": b"{}"}, references={"t/vocab": f"file://{tmp_path}/vocab"}
    )
    (artifact,) = resolve("mixed")
    assert content(artifact.path) == {"blend.json": b"{}", "t/vocab": b"v"}


def test_what_an_outbox_holds_is_sent_before_the_look_up(wandb_backend: Backend, resolve: Resolve) -> None:
    def flush(references: Any) -> None:
        assert [r.text for r in references] == ["pretrain:latest"]
        wandb_backend.seed("team/nemotron/pretrain", files={"a": b"1"})

    (artifact,) = resolve("pretrain:latest", flush_first=flush)
    assert artifact.version == "v0"


def test_a_file_name_that_would_leave_the_cache_is_refused(wandb_backend: Backend, resolve: Resolve) -> None:
    version = wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    version.manifest["contents"]["../../evil"] = version.manifest["contents"]["a"]
    with pytest.raises(LaunchError, match="evil"):
        resolve("data")


@pytest.mark.parametrize("text", ["super3/rl/rlvr1/data:latest", "rl/rlvr1/data:v0", "rlvr1/data"])
def test_a_name_with_slashes_that_is_unknown_is_the_one_with_dashes(
    wandb_backend: Backend, resolve: Resolve, text: str
) -> None:
    kebab = text.partition(":")[0].replace("/", "-")
    wandb_backend.seed(f"team/nemotron/{kebab}", files={"a": b"1"})
    (found,) = resolve(text, entity="team")
    assert found.qualified_name == f"team/nemotron/{kebab}:v0"


def test_a_name_with_slashes_that_is_there_wins_over_the_one_with_dashes(
    wandb_backend: Backend, resolve: Resolve
) -> None:
    wandb_backend.seed("team/rlvr1/data", files={"a": b"1"})
    wandb_backend.seed("team/nemotron/rlvr1-data", files={"a": b"2"})
    (found,) = resolve("rlvr1/data", entity="team")
    assert found.qualified_name == "team/rlvr1/data:v0"


def test_a_name_that_is_unknown_with_slashes_and_with_dashes_is_the_error_of_the_first(
    wandb_backend: Backend, resolve: Resolve
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    with pytest.raises(LaunchError, match="rlvr1/data"):
        resolve("rlvr1/data", entity="team")
