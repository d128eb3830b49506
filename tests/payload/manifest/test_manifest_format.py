"""payload/manifest.py on a local directory: layout, promises to concurrent writers and readers, damaged files."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nemotron_exec.environment import job_environment
from nemotron_exec.sitecustomize.payload.manifest import files, listing, names, register
from nemotron_exec.sitecustomize.payload.manifest import lock as manifest_lock
from nemotron_exec.sitecustomize.payload.manifest import read as manifest_read
from nemotron_exec.sitecustomize.payload.manifest.names import StoreError, UnknownArtifactError

PAYLOAD = Path(manifest_read.__file__).resolve().parents[2]


def add(root, name="pretrain", *, path=None, **more):
    data = Path(path) if path is not None else Path(root).parent / "data"
    if path is None:
        data.mkdir(exist_ok=True)
    more.setdefault("type", "model")
    more.setdefault("metadata", {})
    return register.register(root, name, path=str(data), **more)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


# Layout ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_written_byte_for_byte_as_nemotron_writes_it(root, monkeypatch):
    # The bytes are what ManifestTracker.log_model_checkpoint("sft", "/lustre/ckpt", 500) of Nemotron writes.
    monkeypatch.delenv("NEMO_EXPERIMENT_ID", raising=False)
    created = "2026-03-11T10:00:00+00:00"
    register.register(
        root,
        "sft",
        type="model",
        path="/lustre/ckpt",
        metadata={"iteration": 500, "absolute_path": "/lustre/ckpt"},
        created_at=created,
    )
    directory = Path(root, "sft", "v1")
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.json", "metadata.json"]
    assert directory.joinpath("manifest.json").read_bytes() == (
        b'{\n  "name": "sft",\n  "version": 1,\n  "type": "model",\n  "path": "/lustre/ckpt",\n'
        b'  "created_at": "2026-03-11T10:00:00+00:00",\n  "producer": "local",\n  "metadata": {\n'
        b'    "iteration": 500,\n    "absolute_path": "/lustre/ckpt"\n  },\n  "inputs": [],\n  "used_artifacts": []\n}'
    )
    assert directory.joinpath("metadata.json").read_bytes() == (
        b'{\n  "path": "/lustre/ckpt",\n  "type": "model",\n  "created_at": "2026-03-11T10:00:00+00:00",\n'
        b'  "iteration": 500,\n  "absolute_path": "/lustre/ckpt",\n  "metadata": {\n    "iteration": 500,\n'
        b'    "absolute_path": "/lustre/ckpt"\n  }\n}'
    )
    assert Path(root, "sft", "latest").read_bytes() == b"v1"
    assert sorted(path.name for path in Path(root, "sft").iterdir()) == ["latest", "v1"]


def test_a_store_that_nemotron_wrote_is_read(root):
    # ManifestTracker.log_artifact writes this: no `aliases`, and a dumped artifact as metadata.json.
    directory = Path(root, "super3/rl/swe1/data/v7")
    directory.mkdir(parents=True)
    data = Path(root).parent / "blend"
    data.mkdir()
    directory.joinpath("manifest.json").write_text(
        json.dumps({"name": "super3/rl/swe1/data", "version": 7, "type": "DataBlendsArtifact", "path": str(data)})
    )
    directory.joinpath("metadata.json").write_text(json.dumps({"pack_size": 4096, "metadata": {"x": 1}}))
    directory.parent.joinpath("latest").write_text("v7")
    record = manifest_read.read_version(root, "super3/rl/swe1/data")
    number, table, fields, where = record
    assert (number, table["path"], fields["pack_size"], where) == (7, str(data), 4096, str(directory))
    assert listing.names(root) == ["super3/rl/swe1/data"]


def test_numbers_go_up_and_latest_follows(root):
    assert [add(root).number for _ in range(3)] == [1, 2, 3]
    assert listing.versions(root, "pretrain") == [1, 2, 3]
    assert manifest_read.read_version(root, "pretrain").number == 3
    assert manifest_read.read_version(root, "pretrain", "v2").number == 2
    assert manifest_read.read_version(root, "pretrain", 1).number == 1
    assert add(root).qualified_name == "pretrain:v4"


def test_more_keys_never_change_those_of_nemotron(root):
    add(root, extra={"run_record": "/r.json", "path": "/elsewhere"}, fields={"path": "/elsewhere", "pack_size": 1})
    _, table, fields, _ = manifest_read.read_version(root, "pretrain")
    assert table["run_record"] == "/r.json"
    assert table["path"] == fields["path"] == str(Path(root).parent / "data")
    assert fields["pack_size"] == 1


def test_the_payload_writes_under_every_python_of_a_job(root, pythons):
    (Path(root).parent / "data").mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from payload.manifest import read, register;"
        "v = register.register(sys.argv[2], 'n', type='model', path=sys.argv[3], metadata={});"
        "print(v.number, read.read_version(sys.argv[2], 'n').number)"
    )
    for count, python in enumerate(pythons, 1):
        out = subprocess.run(
            [python, "-I", "-c", code, str(PAYLOAD), root, str(Path(root).parent / "data")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert out.stdout.split() == [str(count)] * 2, out.stderr


@pytest.fixture
def pythons():
    found = {sys.executable}
    roots = [os.environ.get("PYENV_ROOT"), os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".pyenv")]
    for base in filter(None, roots):
        found.update(str(path) for path in Path(base, "versions").glob("3.*/bin/python"))
    found.update(filter(None, (shutil.which(f"python3.{minor}") for minor in range(8, 15))))
    usable = []
    for python in sorted(found):
        out = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info >= (3, 8))"], capture_output=True, text=True, check=False
        )
        if out.stdout.strip() == "True":
            usable.append(python)
    return usable


# Concurrent writers, readers, crashes ---------------------------------------------------------------------------

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from payload.manifest import register as m
sys.stdin.readline()
for _ in range(int(sys.argv[4])):
    version = m.register(sys.argv[2], 'shared/name', type='model', path=sys.argv[3], metadata={'iteration': 1})
    print(version.number, flush=True)
"""


def test_eight_processes_get_different_numbers_and_readers_see_whole_versions_and_a_latest_that_only_grows(
    root, tmp_path
):
    writers = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WRITER, str(PAYLOAD), root, str(tmp_path), "5"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    seen, broken, stop = [0], [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                number, table, fields, _ = manifest_read.read_version(root, "shared/name")
                assert table["version"] == number
                assert fields["iteration"] == 1
                seen.append(number)
            except UnknownArtifactError:
                assert seen == [0]
            except Exception as e:  # noqa: BLE001
                broken.append(e)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    numbers = [int(number) for writer in writers for number in writer.communicate(timeout=120)[0].split()]
    stop.set()
    reader.join()
    assert not broken
    assert sorted(numbers) == list(range(1, 41))
    assert seen == sorted(seen)
    assert listing.read_latest(root, "shared/name") == 40
    assert sorted(os.listdir(os.path.join(root, "shared/name"))) == sorted(["latest", *(f"v{n}" for n in range(1, 41))])


CRASHER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from payload.manifest import register as m
left = int(sys.argv[4])
def audit(event, args):
    global left
    if event in ('os.mkdir', 'os.rename', 'os.link', 'os.remove') or (event == 'open' and args[2] & os.O_CREAT):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)
m.register(sys.argv[2], 'name', type='model', path=sys.argv[3], metadata={}, aliases=['best'])
print('done')
"""


def test_a_writer_killed_before_any_of_its_steps_leaves_a_store_that_works(root, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_lock, "STALE_LOCK", 0.1)
    step = 0
    while True:
        before = listing.versions(root, "name")
        latest = listing.read_latest(root, "name")
        out = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CRASHER, str(PAYLOAD), root, str(tmp_path), str(step)],
            capture_output=True,
            text=True,
            check=False,
        )
        after = listing.versions(root, "name")
        assert after[: len(before)] == before
        for number in after:
            assert manifest_read.read_version(root, "name", number).metadata["path"] == str(tmp_path)
        assert (listing.read_latest(root, "name") or 0) >= (latest or 0)
        if out.stdout.strip() == "done":
            break
        assert out.returncode == -signal.SIGKILL, out.stderr
        new = add(root, "name", path=tmp_path, aliases=["best"])
        assert new.number > max(after, default=0)
        assert manifest_read.read_version(root, "name").number == new.number
        assert manifest_read.read_version(root, "name", "best").number == new.number
        step += 1
    assert step > 10


def test_latest_never_moves_backward(root):
    add(root)
    add(root)
    assert register.advance_latest(root, "pretrain", 1) == 2
    register.set_alias(root, "pretrain", "latest", 1)
    assert listing.read_latest(root, "pretrain") == 2
    os.unlink(os.path.join(root, "pretrain", "latest"))
    # Without the file, readers take the highest version, so a lower number would be a step back.
    assert manifest_read.read_version(root, "pretrain").number == 2
    assert register.advance_latest(root, "pretrain", 1) == 2


def test_a_transient_version_never_moves_latest(root):
    add(root)
    add(root, move_latest=False)
    assert listing.read_latest(root, "pretrain") == 1
    os.unlink(os.path.join(root, "pretrain", "latest"))
    assert manifest_read.read_version(root, "pretrain").number == 1
    assert manifest_read.read_version(root, "pretrain", "v2").manifest["transient"] is True


def test_the_lock_of_a_dead_writer_is_broken_and_that_of_a_live_one_respected(root, monkeypatch):
    monkeypatch.setattr(manifest_lock, "STALE_LOCK", 0.2)
    add(root)
    lock = Path(root, "pretrain", ".latest.lock")
    lock.write_text("dead")
    add(root)
    assert not lock.exists()
    lock.write_text("live 0")
    stop = threading.Event()

    def hold():
        beat = 0
        while not stop.wait(0.02):
            beat += 1
            files.LocalFiles(root).write(str(lock), b"live %d" % beat)
        lock.unlink()

    holder = threading.Thread(target=hold)
    holder.start()
    adder = threading.Thread(target=add, args=(root,))
    adder.start()
    adder.join(1.0)
    assert adder.is_alive()
    assert listing.read_latest(root, "pretrain") == 2
    stop.set()
    holder.join()
    adder.join(30)
    assert listing.read_latest(root, "pretrain") == 3


def test_a_number_without_manifest_is_no_version(root):
    add(root)
    Path(root, "pretrain", "v2").mkdir()
    assert listing.versions(root, "pretrain") == [1]
    assert listing.uncommitted(root, "pretrain") == [2]
    assert manifest_read.read_version(root, "pretrain").number == 1
    assert add(root).number == 3


# Data that is gone ----------------------------------------------------------------------------------------------


def test_latest_passes_over_versions_whose_data_is_gone_and_says_which(root, tmp_path):
    for step in (1, 2, 3):
        (tmp_path / f"step_{step}").mkdir()
        add(root, path=tmp_path / f"step_{step}")
    (tmp_path / "step_3").rmdir()
    register.mark_pruned(root, "pretrain", 2)
    skipped = []
    record = manifest_read.read_version(root, "pretrain", on_skip=lambda *args: skipped.append(args))
    assert record.number == 1
    assert [number for number, _ in skipped] == [3, 2]
    assert "step_3 is not there" in skipped[0][1]
    assert "pruned" in skipped[1][1]
    assert manifest_read.read_version(root, "pretrain", skip_gone=False).number == 3
    assert manifest_read.read_version(root, "pretrain", "v3").number == 3


def test_a_megatron_checkpoint_is_gone_with_its_iteration_directory(root, tmp_path):
    save = tmp_path / "save"
    save.joinpath("iter_0000010").mkdir(parents=True)
    for step in (10, 20):
        metadata = {"checkpoint_path": str(save / f"iter_{step:07}"), "iteration": step}
        add(root, path=save, metadata=metadata)
    assert manifest_read.read_version(root, "pretrain").number == 1


def test_an_alias_passes_on_to_the_newest_other_version_that_had_it(root, tmp_path):
    for step in (1, 2, 3):
        (tmp_path / f"s{step}").mkdir()
        add(root, path=tmp_path / f"s{step}", aliases=["best"] if step != 2 else [])
    assert manifest_read.read_version(root, "pretrain", "best").number == 3
    (tmp_path / "s3").rmdir()
    assert manifest_read.read_version(root, "pretrain", "best").number == 1
    (tmp_path / "s1").rmdir()
    with pytest.raises(UnknownArtifactError, match=r"v3 has lost its data.*v1 has lost its data"):
        manifest_read.read_version(root, "pretrain", "best")
    assert listing.aliases(root, "pretrain") == {"best": 3}


def test_a_uri_is_never_looked_for(root):
    add(root, path="s3://bucket/data", metadata={})
    record = manifest_read.read_version(root, "pretrain")
    assert manifest_read.missing_data(root, record) is None


def test_a_recorded_path_is_looked_for_where_it_is_mounted_here(root, tmp_path):
    (tmp_path / "here").mkdir()
    add(root, path="/host/data")
    record = manifest_read.read_version(
        root, "pretrain", localise=lambda path: path.replace("/host/data", f"{tmp_path}/here")
    )
    assert record.number == 1


# Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'"text"', "not an object"),
        (b"{}", "no `path`"),
        (b'{"path": 7}', "`path` is 7"),
        (b'{"path": ""}', "`path` is ''"),
        (b'{"path": "/x", "metadata": [1]}', r"`metadata` is \[1\]"),
        (b'{"path": "/x", "type": {}}', "`type` is {}"),
        (b'{"path": "/x", "used_artifacts": "y"}', "`used_artifacts` is 'y'"),
        (b" " * (files.MAX_FILE + 1), "more than 16 MiB"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_names_the_file(root, content, found):
    add(root)
    path = Path(root, "pretrain", "v1", "manifest.json")
    path.write_bytes(content)
    with pytest.raises(StoreError, match=found) as error:
        manifest_read.read_version(root, "pretrain")
    assert str(path) in str(error.value)


def test_links_pipes_and_directories_are_not_followed_or_waited_for(root):
    add(root)
    path = Path(root, "pretrain", "v1", "manifest.json")
    path.rename(path.with_name("moved.json"))
    path.symlink_to("moved.json")
    with pytest.raises(StoreError, match="symbolic link"):
        manifest_read.read_version(root, "pretrain")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="not a regular file"):
        manifest_read.read_version(root, "pretrain")
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="not a regular file"):
        manifest_read.read_version(root, "pretrain")


def test_a_latest_that_says_nothing_is_an_error_for_readers_and_mended_by_the_next_writer(root):
    add(root)
    path = Path(root, "pretrain", "latest")
    path.write_text("../../etc")
    with pytest.raises(StoreError, match=re.escape(str(path))):
        manifest_read.read_version(root, "pretrain")
    add(root)
    assert manifest_read.read_version(root, "pretrain").number == 2


@pytest.mark.parametrize(
    "name",
    ["", "/x", "x/", "../x", "a/../b", "a//b", ".hidden", "a:b", "a\0b", "x/v3", "x/latest", "a/b/c/d/e/f/g/h/i"],
)
def test_names_that_leave_the_store_are_refused(root, name):
    with pytest.raises(StoreError, match="to name an artifact"):
        add(root, name)
    with pytest.raises(StoreError, match="to name an artifact"):
        manifest_read.read_version(root, name)
    assert not os.path.exists(root)


@pytest.mark.parametrize("alias", ["", "v3", "3", "../x", ".x", "a/b", "a:b"])
def test_aliases_that_are_none_are_refused(root, alias):
    with pytest.raises(StoreError, match="to name an alias"):
        add(root, aliases=[alias])
    assert not os.path.exists(root)


def test_metadata_that_is_no_json_or_too_large_costs_no_number(root):
    circle = {}
    circle["self"] = circle
    for metadata, found in ((circle, "no JSON"), ({("a",): 1}, "no JSON"), ({"x": "y" * files.MAX_FILE}, "16 MiB")):
        with pytest.raises(StoreError, match=found):
            add(root, metadata=metadata)
    assert add(root).number == 1


def test_any_text_becomes_a_name(root):
    for text in ("my run", "/lustre/out/pretrain", "../x", "v3", "", "a/latest", "é"):
        assert names.check_name(names.safe_name(text))


def test_what_wandb_takes_is_a_name_as_it_is():
    for text in ("_private", "a+b", "my data", "模型", "x" * 128, "step#1?"):
        assert names.safe_name(text) == names.check_name(text) == text
        assert names.is_recognizable(text, text)
    for text in ("a:b/c:d", " x", "-x", ".x", "x" * 129, "a\nb"):
        with pytest.raises(StoreError):
            names.check_name(text)


def test_what_has_to_be_changed_beyond_recognition_stays_different():
    for first, second in (("x" * 200, "x" * 201), ("\udcff", "\udcfe"), ("ab\udcff", "ab\udcfe")):
        assert names.safe_name(first) != names.safe_name(second)
        assert not names.is_recognizable(names.safe_name(first), first)


def test_unknown_names_and_versions_name_what_there_is(root):
    with pytest.raises(UnknownArtifactError, match="the store is empty"):
        manifest_read.read_version(root, "pretrain")
    add(root, "team/pretrain", aliases=["best"])
    with pytest.raises(UnknownArtifactError, match=r"Did you mean team/pretrain\?"):
        manifest_read.read_version(root, "pretrain")
    with pytest.raises(UnknownArtifactError, match="has the versions v1"):
        manifest_read.read_version(root, "team/pretrain", "v9")
    with pytest.raises(UnknownArtifactError, match=r"aliases latest, best.*Did you mean best\?"):
        manifest_read.read_version(root, "team/pretrain", "bst")


def test_a_store_that_is_a_file_or_a_uri_is_an_error(root, tmp_path):
    tmp_path.joinpath("file").write_text("")
    with pytest.raises(StoreError, match="to make the directory"):
        add(tmp_path / "file")
    with pytest.raises(StoreError, match="is a URI"):
        register.register("s3://bucket/x", "n", type="model", path="/x", metadata={})


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"NEMOTRON_EXEC_STORE": "s3://a", "NEMO_ARTIFACT_ROOT": "/b", "HOME": "/h"}, "s3://a"),
        ({"NEMO_ARTIFACT_ROOT": "/b", "HOME": "/h"}, "/b"),
        ({"XDG_DATA_HOME": "/d", "HOME": "/h"}, "/d/nemotron-exec/artifacts"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/nemotron-exec/artifacts"),
        ({"HOME": "/h"}, "/h/.local/share/nemotron-exec/artifacts"),
    ],
)
def test_the_root_comes_from_the_environment(environ, root):
    assert names.default_root(environ) == root
    assert job_environment(environ)["NEMOTRON_EXEC_STORE"] == root


def test_the_time_of_creation_has_an_offset(root):
    add(root)
    created = manifest_read.read_version(root, "pretrain").manifest["created_at"]
    assert re.match(time.strftime("%Y-") + r"\d\d-\d\dT.*[+-]\d\d:\d\d$", created)
