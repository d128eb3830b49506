"""Acknowledged data survive a power cut, and an I/O error in any step.

Each protocol is run under a recorder of its fsyncs, links, renames and unlinks (support/recorder.py). The tests state
the order of the steps. They read every tree that a power cut can leave with nemotron-exec's own readers, and let each
step fail in turn.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time

import pytest

from checkpoint_job import job, load  # noqa: F401
from nemotron_exec import frozen
from nemotron_exec.command.read import read
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.outbox import flush
from nemotron_exec.place import state_directory
from nemotron_exec.place.job import ProcessIdentity, identify
from nemotron_exec.place.rank import place
from nemotron_exec.rendezvous.agree import agree
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.shared_directory import files as private
from nemotron_exec.sitecustomize.payload import job as process_job
from nemotron_exec.sitecustomize.payload.checkpoints import commit, deliver, describe, outbox, settings
from nemotron_exec.sitecustomize.payload.checkpoints import record as checkpoints_record
from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import listing, lock
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names
from nemotron_exec.sitecustomize.payload.manifest import read as manifest_read
from nemotron_exec.sitecustomize.payload.manifest import register as manifest_register
from nemotron_exec.sitecustomize.payload.patches import nemo_rl
from nemotron_exec.stores.wandb import buckets
from nemotron_exec.stores.wandb.cache import ArtifactCache
from nemotron_exec.stores.wandb.download import Downloader, RemoteFile
from support.recorder import recorder  # noqa: F401


def each_failing_step(recorder, tmp_path, prepare, act, *, number=errno.EIO, cuts=False):
    """Run `act` in a fresh directory, once for each of its steps, with that step failing.

    Yields (directory, result or error of `act`, recorded steps).
    """
    count, fail = 1, 0
    while fail < count:
        directory = tmp_path / f"fail{fail}"
        directory.mkdir()
        prepare(directory)
        with recorder.watch(directory, fail=fail, number=number, cuts=cuts, promised=False) as seen:
            try:
                came = act(directory)
            except (OSError, manifest_names.StoreError, LaunchError) as error:
                came = error
        count = max(count, fail + 1 + (seen.failed is not None))
        if seen.failed is None:
            break
        yield directory, came, seen
        fail += 1
    assert fail > 2, "the recorder saw no steps"


@pytest.fixture(autouse=True)
def _locks_of_the_dead_are_broken_at_once(monkeypatch):
    monkeypatch.setattr(lock, "STALE_LOCK", 0.02)


# The manifest store -------------------------------------------------------------------------------------------------


def register(root, step=10, **more):
    more.setdefault("aliases", ["best"])
    store = root if hasattr(root, "claim") else str(root / "new" / "store")
    return manifest_register.register(
        store, "team/sft", type="model", path="/checkpoints", metadata={"iteration": step}, fields={"f": step}, **more
    ).number


def steps_in(root):
    """The step of each version, read as by a job. Each version must be whole."""
    store = str(root / "new" / "store")
    found = {}
    for number in listing.versions(store, "team/sft"):
        record = manifest_read.read_version(store, "team/sft", number)
        assert record.metadata["f"] == record.manifest["metadata"]["iteration"]
        found[number] = record.metadata["f"]
    return found


def latest_in(root):
    return manifest_read.read_version(str(root / "new" / "store"), "team/sft", skip_gone=False).metadata["f"]


def test_a_version_is_written_before_it_is_named_and_latest_moves_after_it(recorder, tmp_path):
    with recorder.watch(tmp_path) as seen:
        register(tmp_path)
    name = "new/store/team/sft"
    seen.assert_order(
        "sync ./",
        f"make {name}/v1/",
        f"sync {name}/",
        f"sync {name}/v1/metadata.json",
        f"rename {name}/v1/metadata.json",
        f"sync {name}/v1/",
        f"sync {name}/v1/manifest.json",
        f"rename {name}/v1/manifest.json",
        f"sync {name}/v1/",
        f"sync {name}/latest",
        f"rename {name}/latest",
        f"sync {name}/",
        f"sync {name}/aliases/best",
        f"rename {name}/aliases/best",
        f"sync {name}/aliases/",
    )


def test_a_power_cut_shows_a_version_whole_or_not_at_all_and_keeps_what_was_registered(recorder, tmp_path):
    register(tmp_path, 10)
    with recorder.watch(tmp_path) as seen:
        register(tmp_path, 20)
        register(tmp_path, 30, move_latest=False)
    for _ in seen.power_cuts():
        found = steps_in(tmp_path)
        assert found[1] == 10
        assert found.items() <= {1: 10, 2: 20, 3: 30}.items()
        assert latest_in(tmp_path) in (10, 20)


def test_what_was_registered_in_a_new_store_survives_a_power_cut(recorder, tmp_path):
    with recorder.watch(tmp_path) as seen:
        register(tmp_path)
        seen.acknowledged()
    for _ in seen.power_cuts():
        assert steps_in(tmp_path) == {1: 10}
        store = str(tmp_path / "new" / "store")
        assert listing.read_latest(store, "team/sft") == 1
        assert listing.aliases(store, "team/sft") == {"best": 1}


def test_a_mark_of_pruning_survives_a_power_cut(recorder, tmp_path):
    register(tmp_path)
    with recorder.watch(tmp_path) as seen:
        manifest_register.mark_pruned(str(tmp_path / "new" / "store"), "team/sft", 1)
        seen.acknowledged()
    for _ in seen.power_cuts():
        with pytest.raises(manifest_names.UnknownArtifactError, match="pruned"):
            manifest_read.read_version(str(tmp_path / "new" / "store"), "team/sft")


def test_an_error_in_any_step_of_registering_loses_no_version(recorder, tmp_path):
    for directory, came, _ in each_failing_step(recorder, tmp_path, register, lambda root: register(root, 20)):
        found = steps_in(directory)
        assert found[1] == 10
        assert latest_in(directory) in found.values()
        if not isinstance(came, Exception):
            assert found[came] == latest_in(directory) == 20
            assert listing.aliases(str(directory / "new" / "store"), "team/sft") == {"best": came}
        else:
            assert isinstance(came, manifest_names.StoreError)
            assert came.temporary
        register(directory, 30)
        assert latest_in(directory) == 30
        assert steps_in(directory)[1] == 10


def deferred(root):
    files = manifest_files.LocalFiles(str(root / "new" / "store"))
    files.deferred = set()
    register(files)
    return files


def test_a_deferred_writer_waits_for_nothing_before_it_settles(recorder, tmp_path):
    with recorder.watch(tmp_path) as seen:
        files = deferred(tmp_path)
        assert [step for step in seen.story if step.startswith("sync")] == []
        files.settle()
        seen.acknowledged()
    for _ in seen.power_cuts():
        assert steps_in(tmp_path) == {1: 10}
        assert listing.read_latest(str(tmp_path / "new" / "store"), "team/sft") == 1
        assert listing.aliases(str(tmp_path / "new" / "store"), "team/sft") == {"best": 1}


def test_what_could_not_be_settled_is_settled_by_the_next_call(recorder, tmp_path):
    def settle_twice(root):
        files = deferred(root)
        try:
            files.settle()
        except OSError:
            files.settle()
            recorder.seen.acknowledged()
            return "again"
        return "at once"

    again = 0
    for directory, came, seen in each_failing_step(recorder, tmp_path, lambda _: None, settle_twice, cuts=True):
        if came == "again":
            again += 1
            for _ in seen.power_cuts():
                assert steps_in(directory) == {1: 10}, seen.failed
                assert listing.read_latest(str(directory / "new" / "store"), "team/sft") == 1
    assert again >= 6


# The outbox ---------------------------------------------------------------------------------------------------------


def entry_of(directory, event="e1"):
    return outbox.write(outbox.directory_of(str(directory)), {"event": event, "created_at": "2026"})


def events_in(directory):
    return [entry["event"] for _, entry in outbox.entries(outbox.directory_of(str(directory)))]


def test_an_outbox_entry_is_whole_or_not_there_and_stays_once_it_is_written(recorder, tmp_path):
    save_dir = tmp_path / "new" / "out"  # a directory without any earlier file
    with recorder.watch(tmp_path) as seen:
        entry_of(save_dir)
    name = "new/out/.nemotron-exec/outbox/"
    seen.assert_order(f"sync {name}checkpoint-e1.json", f"rename {name}checkpoint-e1.json", f"sync {name}")
    for _ in seen.power_cuts():
        assert events_in(save_dir) in ([], ["e1"])
        assert outbox.unreadable(outbox.directory_of(str(save_dir))) == []
    save_dir = tmp_path / "second" / "out"
    with recorder.watch(tmp_path) as seen:
        entry_of(save_dir)
        entry_of(save_dir, "e2")
        seen.acknowledged()
    for _ in seen.power_cuts():
        assert events_in(save_dir) == ["e1", "e2"]


def test_an_error_in_any_step_of_an_entry_is_told_and_leaves_nothing_half_written(recorder, tmp_path):
    def second(root):
        entry_of(root, "e2")

    for directory, came, _ in each_failing_step(recorder, tmp_path, entry_of, second):
        assert isinstance(came, OSError)
        assert set(events_in(directory)) <= {"e1", "e2"}
        assert "e1" in events_in(directory)
        box = outbox.directory_of(str(directory))
        assert outbox.unreadable(box) == []
        assert [name for name in os.listdir(box) if name.endswith(".tmp")] == []


# A checkpoint -------------------------------------------------------------------------------------------------------


def completed(job, number):
    return describe.Completed(
        framework="megatron-bridge",
        versions={},
        save_dir=str(job.save_dir),
        checkpoint_path=job.save(number),
        number=number,
        alias=f"iter_{number:07d}",
        path_is_checkpoint=False,
        transient=False,
        best=None,
        extra={},
    )


def flushed(job, *names):
    """The iterations that the next start of the job finds after a flush and a look-up."""
    flush.flush(flush.pending([str(job.save_dir), str(job.store)]), even_alive=True)
    store = str(job.store)
    name = names[0] if names else "pretrain"
    found = []
    for number in listing.versions(store, name):
        try:
            record = manifest_read.read_version(store, name, number)
        except manifest_names.StoreError:
            continue  # half-written: the flush has made another version out of the entry
        if record.metadata:
            found.append(record.metadata["iteration"])
    if found:
        assert manifest_read.read_version(store, name).metadata["iteration"] == max(found)
    return found


def test_a_recorded_checkpoint_is_found_after_any_power_cut(job, recorder, tmp_path):
    deliver.deliver(checkpoints_record.record(completed(job, 10)))
    job.settle()
    second = completed(job, 20)
    with recorder.watch(tmp_path) as seen:
        recorded = checkpoints_record.record(second)
        seen.acknowledged()
        deliver.deliver(recorded)
        job.settle()
        assert job.outbox() == []
    entry = os.path.relpath(recorded.path, tmp_path)
    version = "store/pretrain/v2/"
    seen.assert_order(
        f"sync {entry}",
        f"rename {entry}",
        f"sync {os.path.dirname(entry)}/",
        f"rename {version}metadata.json",
        f"rename {version}manifest.json",
        "rename store/pretrain/latest",
        f"sync {version}manifest.json",
        f"unlink {entry}",
    )
    for _ in seen.power_cuts():
        assert set(flushed(job)) == {10, 20}


def test_an_error_in_any_step_of_recording_and_delivering_loses_no_checkpoint(job, recorder, tmp_path, monkeypatch):
    monkeypatch.setattr("nemotron_exec.sitecustomize.payload.checkpoints.delivery._REGISTER_AFTER", (0.01,))
    monkeypatch.setattr(commit, "REST", 0.01)

    def prepare(root):
        job.save_dir, job.store = root / "out" / "pretrain", root / "store"
        monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(job.store))
        monkeypatch.delitem(process_job._parts, settings._Said, raising=False)
        monkeypatch.setitem(process_job._parts, commit.Committer, commit.Committer())
        job.save(10)
        job.store.mkdir()

    def act(root):
        recorded = checkpoints_record.record(completed(job, 10))
        deliver.deliver(recorded)
        job.settle()
        recorder.seen.acknowledged()

    for _, came, seen in each_failing_step(recorder, tmp_path, prepare, act, cuts=True):
        assert came is None, seen.failed
        for _ in seen.power_cuts():
            assert set(flushed(job)) == {10}, seen.failed


@pytest.fixture(params=["released", "main"])
def nemo_rl_finalizes(request, monkeypatch, job):
    """Let NeMo-RL's own code write step 10 below a directory; returns the function that completes the checkpoint."""
    from checkpoint_job import TESTS

    def prepare(root):
        monkeypatch.setattr(nemo_rl, "_best", {})
        module = load(TESTS / "doubles" / f"nemo_rl_{request.param}" / "nemo_rl" / "utils" / "checkpoint.py")
        nemo_rl.apply(module)
        job.save_dir = root / "grpo"
        config = {"checkpoint_dir": str(job.save_dir), "metric_name": None, "higher_is_better": True}
        manager = module.CheckpointManager({**config, "keep_top_k": None, "save_period": 10, "save_optimizer": True})
        path = manager.init_tmp_checkpoint(10, {"step": 10}, None)

        def complete():
            if request.param == "main":
                manager.begin_finalization(path, None)
                manager.shutdown()
            else:
                manager.finalize_checkpoint(path)
            job.settle()

        return complete

    return prepare


def test_a_checkpoint_that_its_framework_completes_by_a_rename_is_found_after_any_power_cut(
    nemo_rl_finalizes, job, recorder, tmp_path
):
    complete = nemo_rl_finalizes(tmp_path)
    with recorder.watch(tmp_path) as seen:
        complete()
    (entry,) = [step.path for step in seen.steps if step.verb == "rename" and "outbox" in step.path]
    seen.assert_order(
        f"sync {entry}",
        f"rename {entry}",
        f"sync {os.path.dirname(entry)}/",
        "rename grpo/step_10",
        "rename store/grpo/v1/manifest.json",
        f"unlink {entry}",
    )
    complete = 0
    for _ in seen.power_cuts():
        if (job.save_dir / "step_10").is_dir():
            complete += 1
            assert flushed(job, "grpo") == [10]
    assert complete > 3


def test_an_error_in_any_step_around_the_rename_of_a_framework_loses_no_checkpoint(
    nemo_rl_finalizes, job, recorder, tmp_path, monkeypatch
):
    monkeypatch.setattr("nemotron_exec.sitecustomize.payload.checkpoints.delivery._REGISTER_AFTER", (0.01,))
    monkeypatch.setattr(commit, "REST", 0.01)
    prepared, renames = {}, 0

    def act(root):
        try:
            prepared[root]()
        except Exception as error:  # noqa: BLE001  one release raises the OSError, another wraps it
            return error

    def prepare(root):
        job.store = root / "store"
        monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(job.store))
        monkeypatch.delitem(process_job._parts, settings._Said, raising=False)
        monkeypatch.setitem(process_job._parts, commit.Committer, commit.Committer())
        prepared[root] = nemo_rl_finalizes(root)

    for directory, came, seen in each_failing_step(recorder, tmp_path, prepare, act):
        if seen.failed.verb == "rename" and seen.failed.path == "grpo/step_10":
            # This is NeMo-RL's own step. Its error goes to the job, and there is no checkpoint to record.
            renames += 1
            assert isinstance(came, Exception)
            assert not (directory / "grpo" / "step_10").exists()
        else:
            assert came is None, seen.failed
            assert flushed(job, "grpo") == [10], seen.failed
    assert renames == 1


# The shared directory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [private.replace, private.publish])
def test_a_durable_file_is_whole_or_not_there_and_stays_once_it_is_written(recorder, tmp_path, write):
    path = tmp_path / "answer"
    with recorder.watch(tmp_path) as seen:
        write(str(path), b"whole", durable=True)
        naming = "link" if write is private.publish else "rename"
        seen.assert_order("sync answer", f"{naming} answer", "sync ./")
        before = list(seen.cuts)
        seen.acknowledged()
    for _ in seen.power_cuts():
        assert path.read_bytes() == b"whole"
    seen.cuts = before
    for _ in seen.power_cuts():
        assert not path.exists() or path.read_bytes() == b"whole"


@pytest.mark.parametrize("write", [private.replace, private.publish])
def test_a_durable_file_of_which_a_step_fails_is_told_and_leaves_no_temporary_one(recorder, tmp_path, write):
    def act(root):
        return write(str(root / "answer"), b"new", durable=True)

    def prepare(root):
        if write is private.replace:
            (root / "answer").write_bytes(b"old")

    for directory, came, seen in each_failing_step(recorder, tmp_path, prepare, act):
        assert isinstance(came, OSError) or seen.failed.verb == "unlink"
        assert (directory / "answer").read_bytes() in (b"old", b"new") if (directory / "answer").exists() else came
        if seen.failed.verb != "unlink":
            assert [name for name in os.listdir(directory) if name != "answer"] == []


def test_a_file_system_that_cannot_sync_directories_is_written_to_all_the_same(recorder, tmp_path):
    def act(root):
        private.replace(str(root / "answer"), b"new", durable=True)

    for directory, came, seen in each_failing_step(recorder, tmp_path, lambda _: None, act, number=errno.EINVAL):
        if seen.failed.path == "./":
            assert came is None
            assert (directory / "answer").read_bytes() == b"new"


# The answer of a job ------------------------------------------------------------------------------------------------


def agreed(root, value):
    """The answer of a launcher in this process, for a job with a shared directory."""
    environ = {"NEMOTRON_EXEC_NODE_RANK": "0", "NEMOTRON_EXEC_NNODES": "1"}
    command = read(["python", "train.py"], (), environ)
    here = place(environ, command)
    job = identify(environ, command, here, explicit="job", nemo_run=None, process=ProcessIdentity.current())
    meeting = state_directory.state_directory(str(root), environ, here, messages=Messages("error"))

    def produce(lead):
        os.makedirs(os.path.join(lead.directory, "config", "below"))
        private.replace(os.path.join(lead.directory, "config", "below", "cfg.yaml"), value.encode(), durable=True)
        return {"value": value}

    agreement = agree(
        here,
        job,
        frozen.replace(meeting, shared=True),
        question=Question("k"),
        produce=produce,
        timeout=60,
        stall=60,
        refresh=False,
        messages=Messages("error"),
    )
    with open(os.path.join(agreement.directory, "config", "below", "cfg.yaml")) as file:
        assert file.read() == agreement.answer["value"]
    return agreement.answer["value"]


def test_an_answer_that_a_launcher_has_used_is_that_of_the_next_after_any_power_cut(recorder, tmp_path):
    with recorder.watch(tmp_path) as seen:
        assert agreed(tmp_path, "first") == "first"
        before = list(seen.cuts)
        seen.acknowledged()
    for _ in seen.power_cuts():
        assert agreed(tmp_path, "second") == "first"
    seen.cuts = before
    for _ in seen.power_cuts():
        assert agreed(tmp_path, "second") in ("first", "second")


def test_an_error_in_any_step_of_answering_leaves_one_answer(recorder, tmp_path):
    for directory, came, seen in each_failing_step(
        recorder, tmp_path, lambda _: None, lambda root: agreed(root, "first")
    ):
        later = agreed(directory, "second")
        assert later == "first" or isinstance(came, Exception), seen.failed
        assert agreed(directory, "third") == later


# The hand-off, and the pins of later jobs ---------------------------------------------------------------------------


TWO_NODES = {"NEMOTRON_EXEC_NODE_RANK": "0", "NEMOTRON_EXEC_NNODES": "2"}


@pytest.fixture
def start(recorder, tmp_path, monkeypatch):
    """Run the launcher below a directory, in this process; returns exit status, command and hand-off."""
    from nemotron_exec import cli

    (tmp_path / "data").mkdir()
    store = tmp_path / "store"
    manifest_register.register(str(store), "blend", type="dataset", path=str(tmp_path / "data"), metadata={})
    monkeypatch.setattr(state_directory, "LOCAL_KINDS", frozenset())  # treat the directory as shared
    variables = {**os.environ, "NEMOTRON_EXEC_STORE": str(store), **TWO_NODES}

    def prepare(root):
        config = "run: {data: 'blend:latest'}\npath: ${art:data,path}\ncheckpoint: {save: out}\n"
        (root / "cfg.yaml").write_text(config)
        (root / "state").mkdir()

    def run(root):
        monkeypatch.chdir(root)
        monkeypatch.setattr(os, "environ", dict(variables))
        options = ["--state-dir", str(root / "state"), "--job-id", "j"]
        monkeypatch.setattr(sys, "argv", ["nemotron-exec", *options, "cat", "cfg.yaml"])
        started = []

        def execvpe(file, words, environ):
            started.extend([words, environ["NEMOTRON_EXEC_HANDOFF"]])
            recorder.seen.acknowledged()
            raise SystemExit(0)

        for name in ("execvpe", "execve"):
            monkeypatch.setattr(os, name, execvpe)
        try:
            cli.main()
        except SystemExit as end:
            return end.code, started
        raise AssertionError("neither started nor ended")

    run.prepare = prepare
    return run


def assert_whole(started, tmp_path):
    """Check that the command's config and hand-off are complete."""
    words, handoff = started
    with open(words[-1]) as file:
        assert f"path: {tmp_path}/data" in file.read()
    with open(handoff) as file:
        assert json.load(file)["artifacts"][0]["name"] == "blend"


def test_the_hand_off_and_the_resolved_config_are_on_the_disk_before_the_command_starts(
    recorder, start, tmp_path, capfd
):
    start.prepare(tmp_path)
    with recorder.watch(tmp_path) as seen:
        code, started = start(tmp_path)
    assert code == 0
    for _ in seen.power_cuts():
        assert_whole(started, tmp_path)


# The cache ----------------------------------------------------------------------------------------------------------

FILES = {"a": b"first" * 1000, "below/b": b"second" * 1000}


def download(backend, root):
    """Download an artifact as the launcher does; returns the directory of the finished download."""
    if "data" not in backend.__dict__:
        backend.data = backend.seed("team/p/data", files=FILES)
    version = backend.data
    cache = ArtifactCache(str(root))
    sizes = {name: len(content) for name, content in FILES.items()}
    missing = cache.missing("0123456789abcdef", sizes)
    if not missing:
        return cache.path("0123456789abcdef")
    contents = version.manifest["contents"]
    files = [RemoteFile(name, contents[name]["size"], contents[name]["digest"]) for name in missing]
    Downloader(time.monotonic() + 60).fetch(
        files,
        cache.partial("0123456789abcdef"),
        wanted="to fetch it",
        url=lambda name, _fresh: f"{backend.url}/storage/{version.id}/{name}",
        progress=lambda _: None,
    )
    return cache.publish("0123456789abcdef")


def test_a_power_cut_leaves_no_download_that_is_taken_for_whole(wandb_backend, recorder, tmp_path):
    with recorder.watch(tmp_path) as seen:
        assert download(wandb_backend, tmp_path).endswith("0123456789abcdef")
    partial = "wandb/.partial/0123456789abcdef"
    seen.assert_order(f"sync {partial}/a", "rename wandb/0123456789abcdef", "sync wandb/")
    seen.assert_order(f"sync {partial}/below/b", "rename wandb/0123456789abcdef", "sync wandb/")
    for _ in seen.power_cuts():
        path = download(wandb_backend, tmp_path)
        for name, content in FILES.items():
            with open(os.path.join(path, name), "rb") as file:
                assert file.read() == content


def test_a_finished_download_survives_a_power_cut(wandb_backend, recorder, tmp_path):
    ArtifactCache(str(tmp_path))
    with recorder.watch(tmp_path) as seen:
        download(wandb_backend, tmp_path)
        seen.acknowledged()
    asked = len(wandb_backend.log)
    for _ in seen.power_cuts():
        download(wandb_backend, tmp_path)
    assert len(wandb_backend.log) == asked


def test_an_error_in_any_step_of_a_download_leaves_none_that_is_taken_for_whole(wandb_backend, recorder, tmp_path):
    def twice(root):
        try:
            return download(wandb_backend, root)
        except (OSError, LaunchError):
            path = download(wandb_backend, root)
            recorder.seen.acknowledged()
            return path

    for directory, came, seen in each_failing_step(recorder, tmp_path, lambda _: None, twice, cuts=True):
        assert not isinstance(came, Exception), seen.failed
        for _ in seen.power_cuts():
            path = download(wandb_backend, directory)
            for name, content in FILES.items():
                with open(os.path.join(path, name), "rb") as file:
                    assert file.read() == content, seen.failed


class Reference:
    """The used part of an entry of W&B's manifest whose data is elsewhere."""

    ref, size = "s3://bucket/a", 5

    def download(self, root, skip_cache):
        with open(os.path.join(root, "a"), "wb") as file:
            file.write(b"bytes")
        return file.name


def fetch_reference(root):
    (root / "partial").mkdir(exist_ok=True)
    buckets.fetch(
        {"below/a": Reference()},
        str(root / "partial"),
        wanted="to fetch it",
        deadline=time.monotonic() + 60,
        alive=lambda _: None,
        progress=lambda _: None,
    )


def test_a_reference_is_on_the_disk_before_it_has_its_name(recorder, tmp_path):
    with recorder.watch(tmp_path) as seen:
        fetch_reference(tmp_path)
    seen.assert_order("sync partial/below/a", "rename partial/below/a")
    for _ in seen.power_cuts():
        path = tmp_path / "partial" / "below" / "a"
        assert not path.exists() or path.read_bytes() == b"bytes"


def test_an_error_in_any_step_of_a_reference_is_told_and_leaves_none_that_is_cut(recorder, tmp_path):
    failed = set()
    for directory, came, seen in each_failing_step(recorder, tmp_path, lambda _: None, fetch_reference):
        path = directory / "partial" / "below" / "a"
        if seen.failed.verb in ("sync", "rename"):
            failed.add(seen.failed.verb)
            assert isinstance(came, OSError), seen.failed
            assert not path.exists(), seen.failed
            assert list(directory.glob("reference-*")) == []
        assert came is not None or path.read_bytes() == b"bytes", seen.failed
    assert failed == {"sync", "rename"}
