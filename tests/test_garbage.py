"""verify.py and garbage.py: what is wrong in a store, what may go, and what never goes."""

from __future__ import annotations

import os
import time

import pytest

from nemotron_exec.garbage import OLD, collect, find_garbage
from nemotron_exec.inventory import take_inventory
from nemotron_exec.sitecustomize.payload import manifest as layout
from nemotron_exec.stores.manifest import open_files
from nemotron_exec.verify import verify


@pytest.fixture
def store(tmp_path):
    return layout.LocalFiles(tmp_path / "store")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def add(store, data, name="m", used=(), **more):
    number = len(layout.versions(store, name)) + 1
    path = data / f"{name}-{number}"
    path.mkdir()
    layout.register(store, name, type="model", path=str(path), metadata={}, used_artifacts=used, **more)
    return path


def garbage(store, **more):
    found, kept = find_garbage(store, take_inventory(store), **more)
    return [item.subject for item in found], kept


def findings(store):
    return {(finding.level, finding.subject): finding.found for finding in verify(store, take_inventory(store))}


def test_a_sound_store_has_no_findings_and_no_garbage(store, data):
    add(store, data)
    add(store, data, aliases=["best"])
    add(store, data, "n", ["m:v1"])
    assert findings(store) == {}
    assert garbage(store) == ([], [])


def test_versions_without_data_may_go_unless_latest_means_them_or_something_was_made_from_them(store, data):
    paths = [add(store, data) for _ in range(4)]
    add(store, data, "sft", ["m:v2"])
    for path in paths:
        path.rmdir()
    subjects, kept = garbage(store)
    assert subjects == ["m:v1", "m:v3"]
    assert any("m:v2" in line and "sft:v1 was made from it" in line for line in kept)
    assert any("m:v4" in line and "`latest` means it" in line for line in kept)
    assert {subject for level, subject in findings(store) if level == "error"} == {"m:v1", "m:v2", "m:v3", "m:v4"}


def test_pruned_versions_are_a_note_and_may_go(store, data):
    add(store, data)
    add(store, data)
    layout.mark_pruned(store, "m", 1)
    assert list(findings(store)) == [("note", "m:v1")]
    assert garbage(store)[0] == ["m:v1"]


def test_data_whose_parent_is_not_there_is_taken_for_not_mounted(store, data, tmp_path):
    elsewhere = tmp_path / "lustre"
    elsewhere.mkdir()
    add(store, elsewhere)
    add(store, data)
    (elsewhere / "m-1").rmdir()
    elsewhere.rmdir()
    subjects, kept = garbage(store)
    assert subjects == []
    assert "may only not be mounted here" in kept[0]
    assert garbage(store, unmounted=True)[0] == ["m:v1"]


def test_a_number_is_never_given_out_again(store, data):
    add(store, data)
    path = add(store, data, move_latest=False)
    path.rmdir()
    found, _ = find_garbage(store, take_inventory(store))
    collect(store, found)
    assert layout.versions(store, "m") == [1]
    # The empty directory that holds the number is no garbage, as long as it is the highest.
    assert garbage(store, now=time.time() + 2 * OLD)[0] == []
    version = layout.register(store, "m", type="model", path=str(data), metadata={})
    assert version.number == 3
    assert garbage(store, now=time.time() + 2 * OLD)[0] == ["m:v2"]


def test_what_dead_writers_left_goes_after_a_day(store, data):
    add(store, data)
    base = f"{store.root}/m"
    os.mkdir(f"{base}/v2")
    for name in ("v2/metadata.json", f".latest.{'0' * 32}", ".latest_tmp_77", "v1/manifest.json.tmp.77"):
        with open(f"{base}/{name}", "w") as file:
            file.write("x")
    add(store, data)
    assert findings(store) == {("note", "m:v2"): findings(store)["note", "m:v2"]}
    assert garbage(store)[0] == []
    found, _ = find_garbage(store, take_inventory(store), now=time.time() + 2 * OLD)
    assert len(found) == 4
    collect(store, found)
    assert sorted(os.listdir(base)) == ["latest", "v1", "v3"]
    assert sorted(os.listdir(f"{base}/v1")) == ["manifest.json", "metadata.json"]


def test_pointers_to_nothing_are_errors_and_dead_aliases_go(store, data):
    add(store, data, aliases=["best"])
    add(store, data)
    layout.set_alias(store, "m", "good", 9)
    store.write(f"{store.root}/m/latest", b"v7")
    seen = findings(store)
    assert seen["error", "m:latest"].startswith("means v7")
    assert seen["error", "m:good"].startswith("means v9")
    assert garbage(store)[0] == ["m:good"]
    collect(store, find_garbage(store, take_inventory(store))[0])
    assert layout.aliases(store, "m") == {"best": 1}


def test_a_latest_that_fell_behind_is_a_note(store, data):
    add(store, data)
    add(store, data)
    store.write(f"{store.root}/m/latest", b"v1")
    assert "though v2 exists" in findings(store)["note", "m:latest"]
    store.remove(f"{store.root}/m/latest")
    assert "no file `latest`" in findings(store)["note", "m"]


def test_damaged_files_are_errors_that_name_the_file(store, data):
    add(store, data)
    add(store, data)
    store.write(f"{store.root}/m/v1/metadata.json", b"[")
    store.write(f"{store.root}/m/v2/manifest.json", b"[]")
    store.write(f"{store.root}/m/latest", b"nonsense")
    seen = findings(store)
    assert seen["error", "m:v1"].startswith("metadata.json: not JSON")
    assert seen["error", "m:v2"].startswith("manifest.json: JSON that is not an object")
    assert ("error", f"{store.root}/m/latest") in seen
    assert garbage(store)[0] == []


def test_an_input_that_does_not_exist_is_a_note(store, data):
    add(store, data)
    add(store, data, "sft", ["m:v9", "entity/project/x:v3", "m"])
    assert findings(store) == {("note", "sft:v1"): "was made from m:v9, which does not exist"}


def test_it_works_in_memory_too(data):
    files = open_files("memory://garbage/store")
    for _ in range(2):
        layout.register(files, "m", type="model", path=str(data), metadata={})
    layout.mark_pruned(files, "m", 1)
    found, _ = find_garbage(files, take_inventory(files))
    collect(files, found)
    assert layout.versions(files, "m") == [2]
