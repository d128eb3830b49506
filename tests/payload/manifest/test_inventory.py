"""A checkpoint that was cut or has lost files is not loaded."""

from __future__ import annotations

import os

import pytest

from nemotron_exec.sitecustomize.payload.manifest import inventory, listing, names, read, register


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def save(tmp_path, store):
    """`save(iteration)`: a registered checkpoint of three files, with its inventory; its directory."""

    def save(iteration):
        path = tmp_path / f"iter_{iteration}"
        (path / "shards").mkdir(parents=True)
        for name in ("metadata.json", "shards/0.distcp", "shards/1.distcp"):
            (path / name).write_bytes(b"x" * 10)
        version = register.register(store, "model", type="model", path=str(path), metadata={"iteration": iteration})
        inventory.record(store, version.directory, str(path))
        return path

    return save


def lose(path):
    (path / "shards/1.distcp").unlink()


def cut(path):
    (path / "shards/0.distcp").write_bytes(b"x" * 4)


def lose_all(path):
    for one in path.rglob("*"):
        if one.is_file():
            one.unlink()


DAMAGE = {
    "lost": (lose, "has lost 1 of its 3 files (shards/1.distcp)"),
    "cut": (cut, "is cut: shards/0.distcp has 4 of 10 bytes"),
    "empty": (lose_all, "has lost 3 of its 3 files"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_latest_passes_over_a_damaged_checkpoint_and_says_what_is_wrong(store, save, damage, said):
    save(1)
    damage(save(2))
    skipped = []
    found = read.read_version(store, "model", on_skip=lambda number, reason: skipped.append((number, reason)))
    assert found.number == 1
    ((number, reason),) = skipped
    assert number == 2
    assert said in reason


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_the_launcher_refuses_a_damaged_checkpoint_that_is_named(nemotron_exec, tmp_path, store, save, damage, said):
    damage(save(1))
    (tmp_path / "cfg.yaml").write_text("run: {model: 'model:v1'}\npath: ${art:model,path}\n")
    done = nemotron_exec("--store", store, "cat", "cfg.yaml")
    assert done.returncode == 125
    assert said in done.stderr


def test_further_and_longer_files_are_no_damage(store, save):
    path = save(1)
    (path / "hf").mkdir()
    (path / "hf/config.json").write_text("{}")
    (path / "metadata.json").write_bytes(b"x" * 99)
    assert read.read_version(store, "model").number == 1


def test_a_version_without_an_inventory_is_not_compared(store, save):
    path = save(1)
    (path.parent / "store/model/v1/inventory.json").unlink()
    lose_all(path)
    assert read.read_version(store, "model").number == 1


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 9, "files": {}}', '{"schema": 1, "files": {"a": "b"}}']
)
def test_a_damaged_inventory_refuses_nothing(tmp_path, store, save, content):
    save(1)
    (tmp_path / "store/model/v1/inventory.json").write_text(content)
    assert read.read_version(store, "model").number == 1


def test_the_outbox_is_no_part_of_a_checkpoint(save):
    path = save(1)
    (path / ".nemotron-exec/outbox").mkdir(parents=True)
    (path / ".nemotron-exec/outbox/checkpoint-1.json").write_text("{}")
    assert len(inventory.take(str(path))) == 3


def test_links_are_not_followed_out_of_the_checkpoint(tmp_path, store, save):
    path = save(1)
    os.symlink("/", path / "elsewhere")
    os.symlink(path / "nowhere", path / "dangling")
    assert sorted(inventory.take(str(path))) == ["metadata.json", "shards/0.distcp", "shards/1.distcp"]


def test_digests_are_recorded_at_a_bounded_rate_and_show_other_bytes(tmp_path, store, save, monkeypatch):
    path = save(1)
    slept = []
    monkeypatch.setattr(inventory.time, "sleep", slept.append)
    directory = f"{store}/model/v1"
    inventory.add_digests(store, directory, str(path), rate=1e-3)
    assert len(slept) == 3
    assert all(seconds > 1000 for seconds in slept)
    found = inventory.read(listing.open_files(store), directory)
    assert inventory.damage(found, str(path), digests=True) is None
    (path / "metadata.json").write_bytes(b"y" * 10)
    assert inventory.damage(found, str(path)) is None
    assert "other bytes" in inventory.damage(found, str(path), digests=True)


def test_an_inventory_of_no_version_is_an_error(tmp_path, store):
    with pytest.raises(names.StoreError, match="there is no such version"):
        inventory.record(store, f"{store}/model/v1", str(tmp_path))


def test_nemotron_artifact_verify_compares_data_on_request(tmp_path, store, save):
    import subprocess
    import sys

    lose(save(1))
    words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "verify", "--store", store]
    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    assert plain.returncode == 0, plain.stderr
    done = subprocess.run(
        [*words, "--data"], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 1
    assert "has lost 1 of its 3 files" in done.stdout


def test_what_we_keep_beside_checkpoints_is_no_file_of_a_version(tmp_path):
    (tmp_path / ".nemotron-exec/outbox").mkdir(parents=True)
    (tmp_path / ".nemotron-exec/outbox/checkpoint-1.json").write_text("{}")
    (tmp_path / "weights").write_text("w")
    assert inventory.take(str(tmp_path)) == {"weights": 1}
