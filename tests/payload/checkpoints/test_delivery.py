"""Delivers checkpoints from the outbox to W&B: in order, with retries, and within bounds."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import types

import pytest

from nemotron_exec.sitecustomize.payload.checkpoints import commit, delivery, outbox


class Clock:
    """Stands in for the module `time`. Its time moves only by the test."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr(delivery, "time", one)
    return one


@pytest.fixture
def committer():
    one = commit.Committer()
    yield one
    one.drain(0)


def entry(number=10, **more):
    return {"checkpoint_path": f"/out/iter_{number}", "name": "pretrain", "save_dir": "/out", **more}


class Failing:
    """Fails the given number of times, then works."""

    def __init__(self, times, error=None):
        self.left, self.error, self.calls = times, error or OSError("down"), 0

    def __call__(self, *_):
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return types.SimpleNamespace(wait=lambda: None)


def attempt(one):
    """Make one attempt; returns whether it is done, or the error."""
    try:
        return one.attempt(30)
    except commit.GivenUpError:
        raise
    except OSError as error:
        return error


def pauses(one, clock, failing):
    """The seconds without an attempt after each failure."""
    found = []
    while not attempt(one):
        calls, began = failing.calls, clock.now
        while failing.calls == calls and clock.now < began + 1000:
            clock.now += 0.5
            if attempt(one) is True:
                return found + [clock.now - began]
        found.append(clock.now - began)
    return found


def test_wandb_is_tried_again_after_longer_and_longer_pauses(clock):
    send = Failing(5)
    assert pauses(delivery.Delivery(entry(), send=send), clock, send) == [5, 15, 60, 60, 60]


def test_the_manifest_store_is_tried_again_after_longer_and_longer_pauses(clock):
    register = Failing(6)
    one = delivery.Delivery(entry(), register=register)
    found = []
    while isinstance(attempt(one), OSError):
        began = clock.now
        calls = register.calls
        assert attempt(one) is False  # immediately after: no attempt is made
        assert register.calls == calls
        while clock.now < one._not_before:
            clock.now += 0.5
        found.append(clock.now - began)
    assert found == [1, 2, 5, 15, 15, 15]


def test_what_failed_before_the_manifest_was_written_does_not_count_against_wandb(clock):
    register, send = Failing(3), Failing(1)
    one = delivery.Delivery(entry(), register=register, send=send)
    for _ in range(3):
        assert isinstance(attempt(one), OSError)
        clock.now += 60
    assert attempt(one) is False
    assert send.calls == 1
    clock.now += 5
    assert attempt(one) is True


class UsageError(Exception):
    """Named as wandb's."""


class ArtifactNotLoggedError(Exception):
    """Named as wandb's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("the name is no name"), "W&B did not take it: the name is no name; it stays in /box"),
        (ValueError("Artifact pretrain already exists with type 'data'"), "already exists with type 'data'; it stays"),
        (ArtifactNotLoggedError("wait"), "W&B is offline; it stays in /box until the next start"),
    ],
)
def test_what_no_further_attempt_would_mend_is_given_up_and_said(error, said):
    send = Failing(99, error)
    one = delivery.Delivery(entry(), "/box/checkpoint-1.json", send=send)
    with pytest.raises(commit.GivenUpError, match=said):
        one.attempt(30)
    assert send.calls == 1


def test_what_the_framework_itself_logged_in_vain_is_given_up():
    def wait():
        raise OSError("down")

    one = delivery.Delivery(entry(), handle=types.SimpleNamespace(wait=wait))
    with pytest.raises(commit.GivenUpError, match="W&B did not take it: down, and there is no outbox entry"):
        one.attempt(30)


def references(*paths):
    entries = {path: types.SimpleNamespace(ref=f"file://{path}", digest="") for path in paths}
    return types.SimpleNamespace(manifest=types.SimpleNamespace(entries=entries))


def test_references_are_translated_below_the_directory_and_nowhere_else():
    artifact = references("/ckpt", "/ckpt/a", "/ckpt2/a", "/other/ckpt/a")
    artifact.manifest.entries["uri"] = types.SimpleNamespace(ref="s3://b/ckpt/a", digest="")
    artifact.manifest.entries["own"] = types.SimpleNamespace(digest="")
    delivery.translate_references(artifact, "/ckpt", "/host/ckpt")
    found = {name: getattr(one, "ref", None) for name, one in artifact.manifest.entries.items()}
    assert found == {
        "/ckpt": "file:///host/ckpt",
        "/ckpt/a": "file:///host/ckpt/a",
        "/ckpt2/a": "file:///ckpt2/a",
        "/other/ckpt/a": "file:///other/ckpt/a",
        "uri": "s3://b/ckpt/a",
        "own": None,
    }
    assert {one.digest for name, one in artifact.manifest.entries.items() if name.startswith("/ckpt/")} != {""}
    assert artifact.manifest.entries["/ckpt2/a"].digest == ""


# The commit thread --------------------------------------------------------------------------------------------------


class Counted(delivery.Delivery):
    """Counts its attempts."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.attempts = 0
        self.tried = threading.Condition()

    def attempt(self, patience, turn=True, register=True):
        try:
            return super().attempt(0.01, turn, register)
        finally:
            with self.tried:
                self.attempts += 1
                self.tried.notify_all()

    def wait_for_attempts(self, number):
        with self.tried:
            target = self.attempts + number
            assert self.tried.wait_for(lambda: self.attempts >= target, 60)


def test_wandb_is_told_of_a_checkpoint_only_when_it_has_the_one_before(committer):
    order, release = [], threading.Event()

    def send(number):
        def sending(_entry):
            order.append(f"send {number}")
            return types.SimpleNamespace(wait=lambda: (release.wait(60), order.append(f"committed {number}")))

        return sending

    first, second = (Counted(entry(number), send=send(number)) for number in (10, 20))
    committer.deliver(first)
    committer.deliver(second)
    second.wait_for_attempts(3)
    assert order == ["send 10"]
    release.set()
    assert committer.settle(60)
    assert order == ["send 10", "committed 10", "send 20", "committed 20"]


def test_the_manifest_store_is_told_in_order_too(committer):
    order = []
    failing = Failing(10**6)

    def register(number):
        def registering(_entry):
            order.append(number)
            if number == 10:
                failing()

        return registering

    first, second = (Counted(entry(number), register=register(number)) for number in (10, 20))
    committer.deliver(first)
    committer.deliver(second)
    second.wait_for_attempts(3)
    assert set(order) == {10}


def test_a_thread_does_not_wait_for_the_checkpoint_that_it_completes_itself(committer):
    # This is a signal handler that drains in the middle of the framework's last step.
    with committer.completing():
        assert committer.settle(0.2) is True


def test_a_checkpoint_that_another_thread_completes_is_waited_for(committer):
    inside, leave = threading.Event(), threading.Event()

    def framework():
        with committer.completing():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=framework)
    thread.start()
    assert inside.wait(60)
    assert committer.settle(0) is False
    leave.set()
    assert committer.settle(60) is True
    thread.join()


def test_the_commit_thread_does_not_wait_for_itself(committer):
    came = threading.Event()
    answers = []

    def job():
        answers.append(committer.settle(3600))
        came.set()

    committer.job(job)
    assert came.wait(60)
    assert answers == [False]


FORKING = """
import os, signal, threading, types
from nemotron_exec.sitecustomize.payload.checkpoints import commit, delivery

blocked = threading.Event()
entry = {"checkpoint_path": "/out/iter_1", "name": "n"}
parent = commit.committer()
parent.deliver(delivery.Delivery(entry, send=lambda _: types.SimpleNamespace(wait=blocked.wait)))
assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
child = os.fork()
if child == 0:
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, commit.committer().pending(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(len(parent.pending()))
blocked.set()
assert parent.settle(60)
"""


def test_a_forked_child_has_sigterms_default_action_and_none_of_the_parents_work():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True []\n1\n", "")


def test_time_does_not_stand_still_here():
    assert delivery.time is time


# An entry that was written before the framework's last step, a rename ---------------------------------------------


@pytest.mark.parametrize(
    ("there", "state"),
    [
        (["tmp_step_10"], "unfinished"),
        (["tmp_step_10", "step_10"], "unfinished"),
        (["step_10"], "complete"),
        ([], "gone"),
        (["step_20"], "gone"),
    ],
)
def test_what_became_of_a_checkpoint_that_was_about_to_be_renamed(tmp_path, there, state):
    for name in there:
        (tmp_path / name).mkdir()
    path = outbox.write(
        outbox.directory_of(str(tmp_path)),
        {"event": "e", "renamed_from": "tmp_step_10", "local_path": str(tmp_path / "step_10")},
    )
    assert outbox.state(path, outbox.read(path)) == state


def test_an_entry_of_a_checkpoint_that_was_complete_says_nothing_about_a_rename(tmp_path):
    assert outbox.state(str(tmp_path / "e"), {"local_path": str(tmp_path / "step_10")}) == "complete"


class UsageError(Exception):
    """An error named like the client's."""


@pytest.mark.parametrize("error", [ValueError("longer than 128 characters"), TypeError("x"), UsageError("x")])
def test_what_no_repetition_mends_is_given_up_at_once(error):
    failing = Failing(3, error)
    with pytest.raises(commit.GivenUpError, match="W&B did not take it"):
        delivery.Delivery(entry(), send=failing).attempt(30)
    assert failing.calls == 1


def test_the_end_of_a_run_and_the_end_of_the_process_share_one_bound(monkeypatch):
    committer = commit.Committer()
    settle, asked = committer.settle, []
    monkeypatch.setattr(committer, "settle", lambda seconds: asked.append(seconds) or settle(seconds))
    committer.deliver(delivery.Delivery(entry(), send=lambda _: types.SimpleNamespace(wait=threading.Event().wait)))
    committer.finish(0.5)
    committer.drain(0.5)
    # Without a shared bound the second wait would take as long again.
    assert asked == [0.5, 0.0]
    assert committer.pending() == []


class Wandb:
    """The part of the client that `log_to_wandb` uses: the real Artifact, and a run that only stores it."""

    def __init__(self):
        import wandb

        self.Artifact = wandb.Artifact
        self.logged = []

    def log_artifact(self, artifact, aliases):
        self.logged.append(artifact)
        return artifact


@pytest.mark.parametrize("place", ["plain", "step#1", "what?", "a%41b"])
def test_a_path_that_wandb_would_read_as_a_url_is_logged_without_a_reference(tmp_path, place):
    save_dir = tmp_path / place
    save_dir.mkdir()
    (save_dir / "weights").write_text("x")
    more = {"path": str(save_dir), "type": "model", "created_at": "", "iteration": 1, "metadata": {}, "event": "e"}
    target = {"name": "x" * 200, "aliases": ["latest"]}
    client = Wandb()
    delivery.log_to_wandb(client, client, {**entry(**more), "checkpoint_path": str(save_dir), "wandb": target})
    (artifact,) = client.logged
    assert len(artifact.name.partition(":")[0]) == 128
    entries = artifact.manifest.entries
    assert "metadata.json" in entries
    assert ("weights" in entries) is (place == "plain")


def test_every_name_of_the_manifest_store_has_one_of_its_own_that_the_client_logs(tmp_path, capfd):
    given = ["step#1", "step?1", "a%41b", "my data", "my+data", "模型", "型模", "a/b", "_private", "x" * 128, "é" * 128]
    more = {"path": str(tmp_path), "type": "model", "created_at": "", "iteration": 1, "metadata": {}, "event": "e"}
    client = Wandb()
    for name in given:
        target = {"name": name, "aliases": ["latest"]}
        # The real Artifact raises for a name that it would not log.
        record = {**entry(**more), "name": name, "checkpoint_path": str(tmp_path), "wandb": target}
        delivery.log_to_wandb(client, client, record)
    logged = [artifact.name.partition(":")[0] for artifact in client.logged]
    assert len(set(logged)) == len(given)
    assert logged[given.index("_private")] == "_private"
    assert logged[given.index("a/b")] == "a-b"
    assert all(len(name) <= 128 for name in logged)
    said = capfd.readouterr().err
    assert said.count("run.publish sets another name") == 8
