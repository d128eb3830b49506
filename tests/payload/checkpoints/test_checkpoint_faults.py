"""Kills real training processes with the real wandb and a loopback W&B server.

Each test checks the same three things: the exit code is the job's own, every completed checkpoint is in the manifest
store, and each is in W&B exactly once after a flush.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nemotron_exec.outbox import flush
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from nemotron_exec.sitecustomize.payload.manifest import lock as manifest_lock
from trainers import Trainer

# A job that trains on offline where W&B does not answer within a second.
OFFLINE = {"NEMOTRON_EXEC_WANDB_REQUIRED": "0", "NEMOTRON_EXEC_WANDB_TIMEOUT": "1", "TRAINER_LINEAGE": "1"}


class Job:
    """Directories and environment of a job, and its results."""

    def __init__(self, tmp_path, backend, environ):
        self.backend = backend
        self.save_dir = tmp_path / "out" / "pretrain"
        self.store = tmp_path / "store"
        self.trainers = []
        self.environ = {
            **environ,
            "NEMOTRON_EXEC_STORE": str(self.store),
            "NEMOTRON_EXEC_BACKEND": "wandb",
            "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "60",
            "SAVE_DIR": str(self.save_dir),
            # Make wandb give up on a dead server soon, instead of after an hour.
            "WANDB__GRAPHQL_RETRY_MAX": "2",
            "WANDB__GRAPHQL_RETRY_WAIT_MIN_SECONDS": "1",
            "WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS": "1",
            "WANDB__FILE_STREAM_RETRY_MAX": "1",
            "WANDB__FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "1",
            "WANDB__FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
        }

    def trainer(self, *, wandb=True, **environ):
        one = Trainer.start({**self.environ, **environ}, wandb=wandb)
        self.trainers.append(one)
        return one

    def recorded(self):
        """The iterations in the manifest store."""
        store = str(self.store)
        return [
            read.read_version(store, "pretrain", number, skip_gone=False).manifest["metadata"]["iteration"]
            for number in listing.versions(store, "pretrain")
        ]

    def waiting(self):
        """The iterations in the outbox."""
        return [entry["iteration"] for _, entry in outbox.entries(outbox.directory_of(str(self.save_dir)))]

    def committed(self, name="pretrain"):
        """The iterations that W&B has, one for each version."""
        project = self.backend.model.entities["team"].get("nemotron")
        collection = project and project.collections.get(name)
        versions = collection.versions if collection else []
        return sorted(one.metadata["iteration"] for one in versions if one.state == "COMMITTED")

    def release(self, trainer):
        """Let the commit end once the trainer says that it waits for it."""
        until(lambda: any("to be committed" in line for line in trainer.ours()))
        assert self.committed() == []
        self.backend.release()

    def flush(self):
        """`nemotron-artifact flush`, as the next start of the job does it: in another process."""
        return flush.replay([str(self.save_dir)], timeout=120, environ=self.environ)


@pytest.fixture
def job(tmp_path, wandb_backend, wandb_environ):
    one = Job(tmp_path, wandb_backend, wandb_environ)
    yield one
    for trainer in one.trainers:
        trainer.close()


@pytest.mark.wandb_matrix
def test_a_commit_is_waited_for_at_exit_and_leaves_nothing_behind(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    assert job.recorded() == [10]
    trainer.say("exit 0")
    job.release(trainer)
    assert trainer.end() == 0
    assert job.committed() == [10]
    assert job.waiting() == []
    assert [line for line in trainer.ours() if "warning" in line] == []
    # The commit thread has written the inventory of the checkpoint's files.
    assert "files" in json.loads((job.store / "pretrain/v1/inventory.json").read_text())


def test_what_wandb_has_of_a_checkpoint(job):
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.say("exit 0")
    assert trainer.end() == 0
    (version,) = job.backend.model.entities["team"]["nemotron"].collections["pretrain"].versions
    assert version.type == "model"
    contents = version.manifest["contents"]
    assert contents["common.pt"]["ref"] == f"file://{job.save_dir}/iter_0000010/common.pt"
    assert "ref" not in contents["metadata.json"]
    assert version.metadata["absolute_path"] == str(job.save_dir)
    assert version.metadata["checkpoint_path"] == f"{job.save_dir}/iter_0000010"
    assert {"iter_0000010", "latest"} <= set(version.aliases_wanted)


def test_the_training_thread_does_not_wait_for_the_commit(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    assert job.waiting() == [10]
    job.backend.release()
    trainer.say("exit 0")
    assert trainer.end() == 0


@pytest.mark.wandb_matrix
def test_block_waits_in_the_training_thread(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer(NEMOTRON_EXEC_CHECKPOINT_WAIT="block")
    trainer.say("save 10")
    until(lambda: job.backend.operations("CreateArtifact"))
    with pytest.raises(TimeoutError):
        trainer.answer("done", timeout=1)  # an answer would be early, however busy the machine is
    job.backend.release()
    assert float(trainer.answer("done")) >= 1
    assert job.committed() == [10]
    trainer.say("exit 0")
    assert trainer.end() == 0


@pytest.mark.ci
def test_the_end_of_the_run_in_the_program_itself_waits_too(job):
    # pretrain() calls wandb.finish() at its end, long before the interpreter ends.
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.say("finish")
    job.release(trainer)
    trainer.answer("done")
    assert job.committed() == [10]
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.waiting() == []


def test_an_exception_drains_as_well_and_keeps_its_exit_code(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.say("raise")
    job.release(trainer)
    assert trainer.end() == 1
    assert "RuntimeError: out of data" in trainer.errors()
    assert job.committed() == [10]
    assert job.waiting() == []


def test_sigterm_during_the_commit_drains_and_dies_of_sigterm(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    # Wait until the process sleeps: Python would handle a signal before the blocking call only after it, and it never
    # returns.
    until(lambda: state(trainer.process.pid) == "S")
    trainer.process.send_signal(signal.SIGTERM)
    job.release(trainer)
    assert trainer.end() == -signal.SIGTERM
    assert job.committed() == [10]
    assert job.waiting() == []


@pytest.mark.ci
def test_after_the_commit_sigterm_has_its_default_action_again(job):
    trainer = job.trainer()
    trainer.do("save 10")
    until(lambda: not job.waiting())
    until(lambda: not caught(trainer.process.pid, signal.SIGTERM))
    trainer.do("slow 60")
    trainer.process.send_signal(signal.SIGTERM)
    assert trainer.end(timeout=30) == -signal.SIGTERM


def test_sigterm_inside_a_collective_ends_the_process_as_soon_as_the_checkpoint_is_committed(job):
    # Python's own handler would run only after the call, and so never, because the other ranks are gone.
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.do("stuck")
    trainer.process.send_signal(signal.SIGTERM)
    job.backend.released.set()
    assert trainer.end() == -signal.SIGTERM
    assert job.committed() == [10]
    assert job.waiting() == []


@pytest.mark.ci
@pytest.mark.wandb_matrix
def test_checkpoints_of_a_run_that_began_offline_are_sent_with_it_once(job):
    job.backend.fail("*", times=None, status=503)
    trainer = job.trainer(**OFFLINE)
    trainer.do("save 10")
    trainer.do("save 20")
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert (job.recorded(), job.waiting()) == ([10, 20], [10, 20])
    job.backend.faults.clear()
    # The run's entry is in the store's outbox. The flush finds it through the checkpoints' entries.
    report = job.flush()
    assert (report.runs, report.kept) == (1, [])
    assert job.committed() == [10, 20]
    assert job.waiting() == []
    assert job.flush().kept == []
    assert job.committed() == [10, 20]


@pytest.mark.wandb_matrix
def test_an_offline_run_that_is_sent_late_and_twice_takes_no_alias_and_makes_no_version(job):
    job.backend.fail("*", times=None, status=503)
    first = job.trainer(**OFFLINE)
    first.do("save 10")
    first.say("exit 0")
    assert first.end() == 0
    job.backend.faults.clear()
    second = job.trainer(NEMOTRON_EXEC_PYTHON="")  # without a launcher this life sends nothing of the first one
    second.do("save 20")
    second.say("exit 0")
    assert second.end() == 0
    assert job.committed() == [20]
    box = Path(outbox.directory_of(str(job.store)))
    (entry,) = box.iterdir()
    before = entry.read_bytes()
    assert (job.flush().runs, job.waiting()) == (1, [])
    entry.write_bytes(before)  # a flush that died before it removed the entry
    assert flush.replay([str(job.store)], timeout=120, environ=job.environ).runs == 1
    assert job.committed() == [10, 20]
    collection = job.backend.model.entities["team"]["nemotron"].collections["pretrain"]
    assert collection.versions[collection.aliases["latest"]].metadata["iteration"] == 20


def test_sigkill_right_after_the_save_returns(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.process.kill()
    assert trainer.end() == -signal.SIGKILL
    assert job.recorded() == [10]
    assert job.waiting() == [10]
    job.backend.commit_delay = 0
    report = job.flush()
    assert (report.sent, report.kept) == (1, [])
    assert job.committed() == [10]
    assert job.waiting() == []


@pytest.mark.ci
def test_a_trainer_that_nobody_has_waited_for_counts_as_dead(job):
    # In a container whose first process is no init, an ended process stays a zombie for ever.
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.process.kill()
    until(lambda: state(trainer.process.pid) == "Z")
    job.backend.commit_delay = 0
    report = job.flush()
    assert (report.sent, report.kept) == (1, [])


@pytest.mark.wandb_matrix
def test_sent_twice_is_recorded_once(job, tmp_path):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.process.kill()
    trainer.end()
    job.backend.commit_delay = 0
    aside = tmp_path / "aside"
    shutil.copytree(job.save_dir / ".nemotron-exec", aside)
    job.flush()
    shutil.copytree(aside, job.save_dir / ".nemotron-exec", dirs_exist_ok=True)
    assert job.waiting() == [10]
    job.flush()
    assert job.committed() == [10]
    assert job.recorded() == [10]
    assert job.waiting() == []


@pytest.mark.wandb_matrix
def test_wandb_down_for_the_whole_run(job):
    trainer = job.trainer(NEMOTRON_EXEC_CHECKPOINT_DRAIN="3")
    fault = job.backend.fail("*", times=None, status=503, retry_after=0)
    for number in (10, 20):
        trainer.do(f"save {number}")
    trainer.say("exit 7")
    assert trainer.end() == 7
    assert job.recorded() == [10, 20]
    assert job.waiting() == [10, 20]
    said = [line for line in trainer.ours() if "warning" in line]
    assert len(said) == 2
    assert all("nemotron-artifact flush" in line for line in said)
    job.backend.faults.clear()
    assert fault not in job.backend.faults.pending
    assert job.flush().sent == 2
    assert job.committed() == [10, 20]
    assert job.waiting() == []


@pytest.mark.ci
def test_wandb_back_before_the_exit(job):
    trainer = job.trainer()
    job.backend.fail("*", times=None, status=503, retry_after=0)
    before = job.backend.operations("Viewer")
    trainer.do("save 10")
    until(lambda: job.backend.operations("Viewer") > before)
    job.backend.faults.clear()
    until(lambda: not job.waiting())
    assert job.committed() == [10]
    trainer.say("exit 0")
    assert trainer.end() == 0


@pytest.mark.wandb_matrix
def test_a_checkpoint_that_is_sent_late_is_not_latest(job, tmp_path):
    job.backend.commit_delay = 3600
    first = job.trainer(NEMOTRON_EXEC_CHECKPOINT_DRAIN="0")
    for number in (1, 2):
        first.do(f"save {number}")
    first.process.kill()
    first.end()
    shutil.rmtree(job.store)
    aside = tmp_path / "aside"
    shutil.move(job.save_dir / ".nemotron-exec", aside)
    job.backend.commit_delay = 0
    second = job.trainer()
    for number in (11, 12):
        second.do(f"save {number}")
    second.say("exit 0")
    assert second.end() == 0
    shutil.copytree(aside, job.save_dir / ".nemotron-exec", dirs_exist_ok=True)
    assert job.flush().kept == []
    assert job.recorded() == [11, 12, 1, 2]
    assert read.read_version(str(job.store), "pretrain").manifest["metadata"]["iteration"] == 12
    assert job.committed() == [1, 2, 11, 12]
    collection = job.backend.model.entities["team"]["nemotron"].collections["pretrain"]
    assert collection.versions[collection.aliases["latest"]].metadata["iteration"] == 12
    assert collection.versions[collection.aliases["iter_0000001"]].metadata["iteration"] == 1


@pytest.mark.ci
def test_the_first_save_sends_what_an_earlier_run_left_in_the_same_directory(job):
    # The script takes its save directory from its own options, so the launcher does not know it.
    left_behind(job)
    shutil.rmtree(job.store)
    trainer = job.trainer(NEMOTRON_EXEC_PYTHON=sys.executable)
    trainer.do("save 20")
    until(lambda: job.committed() == [10, 20])
    until(lambda: not job.waiting())
    until(lambda: any("checkpoints of an earlier run: 1 added" in line for line in trainer.ours()))
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert sorted(job.recorded()) == [10, 20]
    assert read.read_version(str(job.store), "pretrain").manifest["metadata"]["iteration"] == 20


@pytest.mark.ci
def test_no_room_for_the_outbox(job):
    # A file in the directory's place stands in for a full disk: both give an OSError, also to root.
    full = job.save_dir / ".nemotron-exec"
    job.save_dir.mkdir(parents=True)
    full.write_text("not a directory")
    job.backend.commit_delay = 3600
    trainer = job.trainer(NEMOTRON_EXEC_CHECKPOINT_DRAIN="0")
    trainer.do("save 10")
    store = outbox.directory_of(str(job.store))
    assert [entry["iteration"] for _, entry in outbox.entries(store)] == [10]
    trainer.process.kill()
    trainer.end()
    assert job.recorded() == [10]
    job.backend.commit_delay = 0
    assert flush.replay([str(job.store)], timeout=120, environ=job.environ).kept == []
    assert job.committed() == [10]
    assert outbox.entries(store) == []


@pytest.mark.ci
def test_a_full_disk_for_the_outbox_and_the_store(job):
    # RLIMIT_FSIZE lets no file grow, so every write of the injector fails in the middle, with EFBIG.
    trainer = job.trainer(wandb=False)
    trainer.do("write 10")
    limit(trainer.process.pid, 0)
    trainer.do("complete 10")
    limit(trainer.process.pid, None)
    trainer.say("exit 0")
    assert trainer.end() == 0
    # There was room again before the exit, and the commit thread tried again.
    assert job.recorded() == [10]
    assert any("no outbox entry" in line for line in trainer.ours())
    assert not list(job.save_dir.rglob("*.tmp"))


@pytest.mark.ci
def test_two_ranks_saving_at_once(job):
    trainers = [job.trainer() for _ in range(2)]
    threads = [
        threading.Thread(target=trainer.do, args=(f"save {number}",))
        for trainer, number in zip(trainers, (10, 20), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for trainer in trainers:
        trainer.say("exit 0")
        assert trainer.end() == 0
    assert sorted(job.recorded()) == [10, 20]
    saved = {number: read.read_version(str(job.store), "pretrain", number).manifest["created_at"] for number in (1, 2)}
    assert listing.read_latest(str(job.store), "pretrain") == max(saved, key=saved.get)
    assert job.committed() == [10, 20]
    assert job.waiting() == []


@pytest.mark.ci
@pytest.mark.parametrize("wandb", [False, True], ids=["without W&B", "each with a W&B run"])
def test_two_ranks_that_report_the_same_checkpoint_at_once_make_one_version(job, wandb):
    trainers = [job.trainer(wandb=wandb) for _ in range(2)]
    numbers = [10, 20, 30] if wandb else list(range(10, 110, 10))
    for number in numbers:
        trainers[0].do(f"write {number}")
        for trainer in trainers:
            trainer.say(f"complete {number}")
        for trainer in trainers:
            trainer.answer("done")
    for trainer in trainers:
        trainer.say("exit 0")
        assert trainer.end() == 0
    assert job.recorded() == numbers
    assert job.committed() == (numbers if wandb else [])
    assert job.waiting() == []


@pytest.mark.ci
def test_two_ranks_that_died_before_they_registered_make_one_version_by_a_flush(job):
    trainers = [job.trainer(wandb=False) for _ in range(2)]
    job.store.write_text("no directory yet")
    for trainer in trainers:
        trainer.do("save 10")
        trainer.process.kill()
        trainer.end()
    assert job.waiting() == [10, 10]
    job.store.unlink()
    report = job.flush()
    assert (report.registered, report.kept) == (1, [])
    assert job.recorded() == [10]
    assert job.waiting() == []


@pytest.mark.ci
def test_a_restart_that_saves_over_a_checkpoint_makes_a_new_version(job):
    for expected in ([10], [10, 10]):
        trainer = job.trainer(wandb=False)
        trainer.do("save 10")
        trainer.say("exit 0")
        assert trainer.end() == 0
        assert job.recorded() == expected
    # The second save has overwritten the data of the first version.
    marked = [(job.store / "pretrain" / f"v{number}" / "pruned").exists() for number in (1, 2)]
    assert marked == [True, False]


@pytest.mark.ci
def test_training_does_not_wait_for_the_lock_of_a_dead_writer(job):
    trainer = job.trainer(wandb=False)
    trainer.do("save 10")
    lock = job.store / "pretrain" / ".latest.lock"
    lock.write_text("dead")
    assert float(trainer.do("save 20")) < manifest_lock.STALE_LOCK / 2
    assert job.recorded() == [10]
    assert 20 in job.waiting()
    lock.unlink()
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.recorded() == [10, 20]
    assert job.waiting() == []
    assert listing.read_latest(str(job.store), "pretrain") == 2


@pytest.mark.ci
def test_a_checkpoint_that_the_store_did_not_take_at_once_is_not_overtaken_by_the_next(job):
    trainer = job.trainer(wandb=False)
    job.store.write_text("no directory yet")
    trainer.do("save 10")
    job.store.unlink()
    trainer.do("save 20")
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.recorded() == [10, 20]
    assert job.waiting() == []


@pytest.mark.ci
def test_latest_of_a_writer_that_died_before_it_moved_it_is_moved_by_a_flush(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.do("save 20")
    trainer.process.kill()
    trainer.end()
    job.backend.commit_delay = 0
    (job.store / "pretrain" / "latest").write_text("v1")
    assert job.flush().kept == []
    assert listing.read_latest(str(job.store), "pretrain") == 2


@pytest.mark.ci
def test_a_process_without_a_run_leaves_wandb_to_a_flush(job):
    trainer = job.trainer(wandb=False, WANDB_PROJECT="nemotron", WANDB_ENTITY="team")
    trainer.do("save 10")
    trainer.do("save 20")
    until(lambda: len(job.recorded()) == 2)
    assert job.waiting() == [10, 20]
    assert len([line for line in trainer.ours() if "has no W&B run" in line]) == 1
    # The process that saved has no W&B run and will never send them, so the flush need not wait for its end.
    report = job.flush()
    assert (report.sent, report.kept) == (2, [])
    trainer.do("save 30")
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.flush().sent == 1
    assert job.committed() == [10, 20, 30]
    assert job.recorded() == [10, 20, 30]
    assert job.waiting() == []


@pytest.mark.ci
def test_a_process_that_has_switched_wandb_off_leaves_nothing_to_a_flush(job):
    trainer = job.trainer(wandb=False, WANDB_PROJECT="nemotron", WANDB_MODE="disabled")
    trainer.do("save 10")
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.recorded() == [10]
    assert job.waiting() == []


@pytest.mark.ci
def test_of_the_frameworks_own_artifacts_too_last_lets_only_the_last_go(job, tmp_path):
    handoff = tmp_path / "handoff.json"
    handoff.write_text('{"schema": 1, "checkpoints": "last"}')
    trainer = job.trainer(NEMOTRON_EXEC_HANDOFF=str(handoff))
    for number in (10, 20, 30):
        trainer.do(f"save {number}")
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.recorded() == [10, 20, 30]
    assert job.committed() == [30]
    assert job.waiting() == []


@pytest.mark.ci
@pytest.mark.parametrize("wandb", [True, False], ids=["a run of W&B", "sent by a flush"])
def test_last_is_the_last_one_of_each_name(job, tmp_path, wandb):
    handoff = tmp_path / "handoff.json"
    handoff.write_text('{"schema": 1, "checkpoints": "last"}')
    trainer = job.trainer(
        wandb=wandb, NEMOTRON_EXEC_HANDOFF=str(handoff), NEMOTRON_EXEC_ACTIVE="1", WANDB_PROJECT="nemotron"
    )
    for command in ("save 10", "record 10 averaged", "save 20", "record 20 averaged", "transient 25"):
        trainer.do(command)
    trainer.say("exit 0")
    assert trainer.end() == 0
    if not wandb:
        flush.replay([str(job.save_dir), str(job.save_dir.parent / "other")], timeout=120, environ=job.environ)
    assert job.recorded() == [10, 20, 25]
    assert job.committed() == [20]
    assert job.committed("averaged") == [20]
    assert job.waiting() == []


@pytest.mark.ci
def test_a_checkpoint_directory_that_disappears(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.process.kill()
    trainer.end()
    shutil.rmtree(job.save_dir / "iter_0000010")
    job.backend.commit_delay = 0
    assert job.flush().sent == 1
    assert job.committed() == [10]
    assert job.recorded() == [10]


@pytest.mark.ci
def test_an_exception_inside_the_patch(job, tmp_path):
    (tmp_path / "break").mkdir()
    (tmp_path / "break" / "sitecustomize.py").write_text(
        "import nemotron_exec.sitecustomize.payload.checkpoints.record as c\nc.describe = lambda *_: 1 / 0\n"
    )
    trainer = job.trainer(PYTHONPATH=str(tmp_path / "break"))
    trainer.do("save 10")
    trainer.say("exit 5")
    assert trainer.end() == 5
    assert job.committed() == [10]  # the framework's own artifact is there
    assert len([line for line in trainer.ours() if "ZeroDivisionError" in line]) == 1


@pytest.mark.wandb_matrix
def test_offline_the_entry_stays_for_a_flush(job):
    trainer = job.trainer(WANDB_MODE="offline")
    trainer.do("save 10")
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.recorded() == [10]
    assert job.waiting() == [10]
    assert any("offline" in line for line in trainer.ours())


@pytest.mark.ci
def test_a_live_jobs_entries_are_left_to_it(job):
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    report = job.flush()
    assert report.sent == 0
    assert [why for _, why in report.kept] == ["its job is still running"]
    job.backend.release()
    trainer.say("exit 0")
    assert trainer.end() == 0
    assert job.committed() == [10]


def until(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def caught(pid, number):
    """Whether a process has a handler for a signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    raise AssertionError


def state(pid):
    """The kernel's letter for the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def limit(pid, size):
    import resource

    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, hard))


# The next start and a person's commands --------------------------------------------------------------------------


def left_behind(job):
    """Leave a checkpoint whose job died before W&B had it."""
    job.backend.commit_delay = 3600
    trainer = job.trainer()
    trainer.do("save 10")
    trainer.process.kill()
    trainer.end()
    job.backend.commit_delay = 0
    assert job.waiting() == [10]


def start_again(job, tmp_path, *options):
    config = tmp_path / "cfg.yaml"
    config.write_text(f"run:\n  wandb:\n    project: nemotron\ncheckpoint:\n  save: {job.save_dir}\n")
    command = [sys.executable, "-c", "print('trained')", str(config)]
    return subprocess.run(
        [sys.executable, "-m", "nemotron_exec", *options, "--state-dir", str(tmp_path / "state"), "--", *command],
        env={**job.environ, "NEMOTRON_EXEC_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.ci
@pytest.mark.parametrize("options", [(), ("--job-id", "again")], ids=["another job", "a restart of the same"])
def test_the_next_start_sends_what_was_left_before_it_starts_the_command(job, tmp_path, options):
    if options:
        assert start_again(job, tmp_path, *options).returncode == 0
    left_behind(job)
    started = start_again(job, tmp_path, *options)
    assert (started.returncode, started.stdout) == (0, "trained\n"), started.stderr
    assert "1 sent to W&B" in started.stderr
    assert job.committed() == [10]
    assert job.waiting() == []


@pytest.mark.ci
def test_a_start_whose_wandb_is_down_starts_all_the_same_and_says_what_stays(job, tmp_path):
    left_behind(job)
    job.backend.fail("*", times=None, status=503, retry_after=0)
    started = start_again(job, tmp_path)
    assert (started.returncode, started.stdout) == (0, "trained\n"), started.stderr
    assert "stays in the outbox" in started.stderr
    assert job.waiting() == [10]


def test_nemotron_artifact_flush_sends_and_says_so(job):
    left_behind(job)
    shutil.rmtree(job.store)
    command = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", str(job.save_dir.parent)]
    done = subprocess.run(command, env=job.environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 added to the manifest store, 1 sent to W&B" in done.stderr
    assert job.recorded() == [10]
    assert job.committed() == [10]


def test_an_entry_of_a_later_version_is_left_alone_and_named(job):
    box = Path(outbox.directory_of(str(job.save_dir)))
    box.mkdir(parents=True)
    (box / "checkpoint-1.json").write_text('{"event": "1", "schema": 99}')
    command = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", str(job.save_dir)]
    done = subprocess.run(command, env=job.environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 75
    assert "its schema is 99" in done.stderr
    assert (box / "checkpoint-1.json").exists()
