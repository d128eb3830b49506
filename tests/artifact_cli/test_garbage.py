"""verify.py and garbage.py: damage in a store, files that may be removed, and files that never are."""

from __future__ import annotations

import os
import shlex
import sys
import time

import pytest

from mounts import run_with_mounts
from nemotron_exec.artifact_cli.garbage import OLD, collect, find_garbage
from nemotron_exec.artifact_cli.inventory import take_inventory
from nemotron_exec.artifact_cli.verify import verify
from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import listing, register
from nemotron_exec.sitecustomize.payload.paths import mountinfo
from nemotron_exec.stores.manifest import open_files


@pytest.fixture
def store(tmp_path):
    return manifest_files.LocalFiles(tmp_path / "store")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def add(store, data, name="m", used=(), **more):
    number = len(listing.versions(store, name)) + 1
    path = data / f"{name}-{number}"
    path.mkdir()
    more.setdefault("extra", {"file_system": mountinfo.file_system(str(path))})
    register.register(store, name, type="model", path=str(path), metadata={}, used_artifacts=used, **more)
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
    register.mark_pruned(store, "m", 1)
    assert list(findings(store)) == [("note", "m:v1")]
    assert garbage(store)[0] == ["m:v1"]


def test_data_whose_parent_was_removed_on_a_file_system_that_is_here_may_go(store, data, tmp_path):
    elsewhere = tmp_path / "lustre"
    elsewhere.mkdir()
    add(store, elsewhere)
    add(store, data)
    (elsewhere / "m-1").rmdir()
    elsewhere.rmdir()
    subjects, kept = garbage(store)
    # The record of the file system shows that it is mounted here.
    assert (subjects, kept) == (["m:v1"], [])


@pytest.mark.parametrize(
    ("extra", "left", "why"),
    [
        ({"file_system": "nfs4 server:/export"}, "a file", "it lay on nfs4 server:/export"),
        ({}, "a file", None),
        ({}, "nothing", "is empty, as a mount point is"),
        ({}, "no directory", "is not there either"),
    ],
)
def test_data_whose_file_system_may_not_be_mounted_is_not_gone(store, data, tmp_path, extra, left, why):
    elsewhere = tmp_path / "lustre"
    elsewhere.mkdir()
    add(store, elsewhere, extra=extra)
    add(store, data)
    (elsewhere / "m-1").rmdir()
    if left == "a file":
        (elsewhere / "m-2").touch()
    elif left == "no directory":
        elsewhere.rmdir()
    subjects, kept = garbage(store)
    assert subjects == ([] if why else ["m:v1"])
    assert not why or why in kept[0]
    assert garbage(store, unmounted=True)[0] == ["m:v1"]


@pytest.mark.ci
def test_an_unmounted_file_system_is_no_deleted_data(tmp_path):
    (tmp_path / "disk").mkdir()
    artifact = shlex.join([sys.executable, "-m", "nemotron_exec.artifact_cli"])
    script = (
        "mount -t tmpfs none disk || exit 99; mkdir -p disk/run/iter_1 disk/run/iter_2; "
        f"for n in 1 2; do {artifact} add --store store m disk/run/iter_$n; done; "
        f"rmdir disk/run/iter_1; {artifact} gc --store store; umount disk; {artifact} gc --store store"
    )
    done = run_with_mounts(script, tmp_path)
    output = done.stdout + done.stderr
    assert output.count("it lay on tmpfs none") == 1, output
    assert "m:v1 has lost its data" in output


def test_a_number_is_never_given_out_again(store, data):
    add(store, data)
    path = add(store, data, move_latest=False)
    path.rmdir()
    found, _ = find_garbage(store, take_inventory(store))
    collect(store, found)
    assert listing.versions(store, "m") == [1]
    # The empty directory reserves its number, and is no garbage as long as that is the highest.
    assert garbage(store, now=time.time() + 2 * OLD)[0] == []
    version = register.register(store, "m", type="model", path=str(data), metadata={})
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
    register.set_alias(store, "m", "good", 9)
    store.write(f"{store.root}/m/latest", b"v7")
    seen = findings(store)
    assert seen["error", "m:latest"].startswith("means v7")
    assert seen["error", "m:good"].startswith("means v9")
    assert garbage(store)[0] == ["m:good"]
    collect(store, find_garbage(store, take_inventory(store))[0])
    assert listing.aliases(store, "m") == {"best": 1}


def test_a_latest_that_fell_behind_is_a_note(store, data):
    add(store, data)
    add(store, data)
    store.write(f"{store.root}/m/latest", b"v1")
    assert "though v2 is newer" in findings(store)["note", "m:latest"]
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
        register.register(files, "m", type="model", path=str(data), metadata={})
    register.mark_pruned(files, "m", 1)
    found, _ = find_garbage(files, take_inventory(files))
    collect(files, found)
    assert listing.versions(files, "m") == [2]
