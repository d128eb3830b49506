"""stores/manifest.py: resolves references to artifacts, in a store on any fsspec root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import pytest

from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.manifest import listing, names, read, register
from nemotron_exec.stores import fsspec_files
from nemotron_exec.stores.fsspec_files import FsspecFiles
from nemotron_exec.stores.manifest import open_files
from nemotron_exec.stores.protocol import StoreContext
from nemotron_exec.stores.table import open_store


def quiet(what, done=0, total=None):
    pass


def resolve(root, *texts, **more):
    references = [parse_reference(f"k{i}", text, Origin("cfg.yaml", 3)) for i, text in enumerate(texts)]
    context = StoreContext(root=str(root), environ=os.environ, **more)
    return open_store("manifest", context).resolve(references, progress=quiet, timeout=60)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return str(path)


@pytest.fixture(scope="session")
def s3_server():
    """moto's server on loopback: a real HTTP server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    import fsspec

    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # fsspec caches file systems by their arguments, and the endpoint is not one of them. Drop those of other servers.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    bucket = f"b{uuid.uuid4().hex}"
    fs.mkdir(bucket)
    return f"s3://{bucket}/team/store"


@pytest.fixture(params=["path", "file", "memory", "s3"])
def root(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return {
        "path": f"{tmp_path}/store",
        "file": f"file://{tmp_path}/store",
        "memory": f"memory://{uuid.uuid4().hex}/store",
    }[request.param]


def test_every_kind_of_root_keeps_the_same_layout_and_promises(root, data):
    files = open_files(root)
    for step in (10, 20):
        register.register(files, "team/sft", type="model", path=data, metadata={"iteration": step}, aliases=["best"])
    register.register(files, "other", type="dataset", path=data, metadata={}, fields={"pack_size": 4096})
    transient = register.register(files, "other", type="dataset", path=data, metadata={}, move_latest=False)
    assert transient.number == 2
    assert listing.names(files) == ["other", "team/sft"]
    assert listing.versions(files, "team/sft") == [1, 2]
    assert listing.aliases(files, "team/sft") == {"best": 2}
    assert files.read(f"{files.root}/team/sft/latest") == b"v2"
    first, second, third = resolve(root, "team/sft", "team/sft:1", "other")
    assert (first.version, first.iteration, first.path, first.qualified_name) == ("v2", 20, data, "team/sft:v2")
    assert (second.version, second.iteration) == ("v1", 10)
    assert (third.version, third.field("pack_size"), third.type) == ("v1", 4096, "dataset")
    register.mark_pruned(files, "team/sft", 2)
    assert resolve(root, "team/sft:best")[0].version == "v1"
    assert files.claim(f"{files.root}/team/sft/v2") is False
    with pytest.raises(LaunchError, match=r"run.k0 \(cfg.yaml:3\): .*Did you mean team/sft\?"):
        resolve(root, "team/sfd")
    files.remove_tree(f"{files.root}/team/sft")
    assert listing.names(files) == ["other"]


def test_a_snapshot_reads_as_the_store_does(s3, data):
    files = FsspecFiles(s3)
    assert listing.names(files.snapshot()) == []
    for name in ("a", "a", "x/y"):
        register.register(files, name, type="model", path=data, metadata={}, aliases=["best"])
    snapshot = files.snapshot()
    assert listing.names(snapshot) == listing.names(files) == ["a", "x/y"]
    assert listing.versions(snapshot, "a") == [1, 2]
    assert read.read_version(snapshot, "a") == read.read_version(files, "a")
    assert listing.aliases(snapshot, "a") == {"best": 2}
    with pytest.raises(names.StoreError, match="snapshot"):
        register.register(snapshot, "a", type="model", path=data, metadata={})


WRITER = """
import sys
from nemotron_exec.sitecustomize.payload.manifest import register
from nemotron_exec.stores.manifest import open_files
files = open_files(sys.argv[1])
sys.stdin.readline()
print(register.register(files, "name", type="model", path="/data", metadata={}).number, flush=True)
"""


@pytest.mark.ci
def test_eight_writers_in_a_bucket_get_different_numbers(s3):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, s3], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    numbers = [int(number) for writer in writers for number in writer.communicate(timeout=200)[0].split()]
    assert sorted(numbers) == list(range(1, 9))
    assert listing.read_latest(FsspecFiles(s3), "name") == 8


def test_eight_threads_in_memory_get_different_numbers(data):
    root = f"memory://{uuid.uuid4().hex}"
    numbers = []

    def write():
        for _ in range(3):
            numbers.append(register.register(open_files(root), "n", type="m", path=data, metadata={}).number)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 25))
    assert listing.read_latest(open_files(root), "n") == 24


def test_without_conditional_writes_claims_are_left_to_settle(s3, monkeypatch):
    # Act as with a server that ignores If-None-Match.
    monkeypatch.setattr(fsspec_files, "_CONDITIONAL", frozenset())
    monkeypatch.setattr(fsspec_files, "SETTLE", 0.3)
    numbers = []

    def write():
        numbers.append(register.register(FsspecFiles(s3), "n", type="m", path="/x", metadata={}).number)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(numbers)) == sorted(numbers)


@pytest.mark.parametrize("recorded", ["{save}/iter_0000500", "file://{save}/iter_0000500", "{save}/iter_0000500/"])
def test_the_legacy_form_yields_the_save_directory_and_the_iteration(tmp_path, recorded):
    save = tmp_path / "save"
    save.joinpath("iter_0000500").mkdir(parents=True)
    register.register(tmp_path / "store", "m", type="model", path=recorded.format(save=save), metadata={})
    (artifact,) = resolve(tmp_path / "store", "m")
    assert (artifact.path, artifact.iteration) == (str(save), 500)


def test_a_recorded_iteration_wins_over_that_of_the_path(tmp_path, data):
    metadata = {"iteration": 7, "absolute_path": "/x/iter_0000500"}
    register.register(tmp_path / "store", "m", type="model", path=data, metadata=metadata)
    (artifact,) = resolve(tmp_path / "store", "m")
    assert (artifact.path, artifact.iteration) == (data, 7)


def test_a_path_of_the_host_becomes_the_one_that_it_has_here(tmp_path, data):
    register.register(tmp_path / "store", "d", type="dataset", path="/lustre/team/data", metadata={})
    with pytest.raises(LaunchError, match="/lustre/team/data is not there"):
        resolve(tmp_path / "store", "d")
    (artifact,) = resolve(tmp_path / "store", "d", localise=lambda path: path.replace("/lustre/team/data", data))
    assert artifact.path == data


def test_versions_that_are_passed_over_are_named_in_one_warning(tmp_path, data, capsys):
    register.register(tmp_path / "store", "d", type="dataset", path=data, metadata={})
    register.register(tmp_path / "store", "d", type="dataset", path="/gone", metadata={})
    (artifact,) = resolve(tmp_path / "store", "d", messages=Messages())
    assert artifact.version == "v1"
    assert capsys.readouterr().err.splitlines() == [
        "nemotron-exec: warning: run.k0 (cfg.yaml:3): d:latest is v1, since v2 has lost its data: /gone is not there"
    ]
    with pytest.raises(LaunchError, match=r"d:v2 of .*it has lost its data: /gone is not there"):
        resolve(tmp_path / "store", "d:v2")


def test_a_damaged_manifest_names_key_file_and_line(tmp_path, data):
    register.register(tmp_path / "store", "d", type="dataset", path=data, metadata={})
    path = tmp_path / "store/d/v1/manifest.json"
    for content, found in (("{", "not JSON"), ("{}", "no `path`")):
        path.write_text(content)
        with pytest.raises(LaunchError, match=found) as error:
            resolve(tmp_path / "store", "d")
        assert str(path) in str(error.value)
        assert "run.k0 (cfg.yaml:3)" in str(error.value)
        assert error.value.exit_code == 125


def test_a_reference_with_path_parts_never_reaches_the_store(tmp_path):
    with pytest.raises(LaunchError, match=r"'\.\.' is not a name"):
        resolve(tmp_path / "store", "../../x:v1")


UNPRIVILEGED = """
import json, os, sys
from nemotron_exec.sitecustomize.payload.manifest import names, register
from nemotron_exec.stores.manifest import ManifestStore
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.origin import Origin
from nemotron_exec.errors import LaunchError
import difflib, datetime, uuid, json.decoder
if os.geteuid() == 0:
    os.setegid(65534), os.seteuid(65534)
root, data = sys.argv[1:]
for act in (
    lambda: register.register(root, "n", type="m", path=data, metadata={}),
    lambda: ManifestStore(root).resolve(
        [parse_reference("k", "n", Origin("cfg.yaml", 1))], progress=lambda *a: None, timeout=9),
):
    try:
        act(); print("done")
    except (names.StoreError, LaunchError) as e:
        print(e.wanted, e.found, e.remedy, sep="|")
"""


@pytest.mark.parametrize(
    ("mode", "writes", "reads"), [(0o000, False, False), (0o555, False, True), (0o777, True, True)]
)
def test_a_store_that_is_not_readable_or_writable_is_a_clear_error(tmp_path, data, mode, writes, reads):
    store = tmp_path / "store"
    register.register(store, "n", type="m", path=data, metadata={})
    for path in [*tmp_path.parents, tmp_path]:
        if (
            path.stat().st_uid == os.getuid()
            and not path.stat().st_mode & 0o001
            and path.is_relative_to(tempfile.gettempdir())
        ):
            path.chmod(path.stat().st_mode | 0o055)
    (store / "n").chmod(mode)
    store.chmod(mode)
    try:
        out = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(store), data], capture_output=True, text=True, check=False
        )
    finally:
        store.chmod(0o755)
        (store / "n").chmod(0o755)
    assert out.returncode == 0, out.stderr
    first, second = out.stdout.splitlines()
    assert (first == "done") is writes
    assert (second == "done") is reads
    for line in {first, second} - {"done"}:
        assert str(store) in line
        assert "Permission denied" in line
        assert "--store" in line


def test_a_missing_driver_and_an_unknown_scheme_are_clear_errors():
    for root in ("nosuch://x/y", "gs://bucket/x") if not _has("gcsfs") else ("nosuch://x/y",):
        with pytest.raises(LaunchError, match="to open the manifest store"):
            resolve(root, "n")


def _has(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None


def test_a_server_that_does_not_answer_may_answer_later(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(TemporaryError):
        resolve("s3://bucket/store", "n")


def test_nothing_but_the_standard_library_is_imported_for_a_local_root(tmp_path, data):
    register.register(tmp_path / "store", "n", type="m", path=data, metadata={})
    code = (
        "import sys, json; from nemotron_exec.stores.manifest import open_files;"
        "from nemotron_exec.sitecustomize.payload.manifest import read as m;"
        "m.read_version(open_files(sys.argv[1]), 'n');"
        "print(json.dumps([x for x in sys.modules if 'fsspec' in x or x == 'click']))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == []


def test_the_payload_takes_a_local_uri_too(tmp_path, data):
    register.register(f"file://{tmp_path}/s", "n", type="m", path=data, metadata={})
    assert Path(tmp_path, "s/n/latest").read_text() == "v1"


def test_the_launcher_resolves_from_a_bucket(s3, data, tmp_path, nemotron_exec):
    register.register(FsspecFiles(s3), "team/blend", type="dataset", path=data, metadata={"pack_size": 4096})
    config = tmp_path / "cfg.yaml"
    config.write_text("run:\n  data: team/blend:latest\npath: ${art:data,path}/x\nsize: ${art:data,pack_size}\n")
    show = "import sys; print(open(sys.argv[1]).read())"
    done = nemotron_exec("--store", s3, "--backend", "manifest", "--", sys.executable, "-c", show, config)
    assert done.returncode == 0, done.stderr
    assert f"path: {data}/x\nsize: 4096\n" in done.stdout
    done = nemotron_exec("--store", s3 + "/other", "--", sys.executable, "-c", show, config)
    assert done.returncode == 125
    assert "run.data" in done.stderr
    assert f"in {s3}/other: the store is empty" in done.stderr
