"""The arguments of `wandb.init` in a job that continues its run, and the handling of its errors."""

from __future__ import annotations

import os
import sys
import types

import pytest

from nemotron_exec.sitecustomize.payload import handoff, job
from nemotron_exec.sitecustomize.payload.patches import lineage


class Run:
    """The part of a W&B run that the patch uses."""

    def __init__(self, disabled=False):
        self.id, self.entity, self.project, self.disabled, self.offline = "r1", "team", "p", disabled, False
        self.tags, self.used, self.updates = ("own",), [], []
        self.config = types.SimpleNamespace(update=lambda values, **_: self.updates.append(values))

    def use_artifact(self, name):
        self.used.append(name)


class Client(types.ModuleType):
    """The module of `wandb.init`. It records its calls, and fails on demand."""

    def __init__(self):
        super().__init__("wandb.sdk.wandb_init")
        self.calls, self.errors, self.run = [], [], Run()

        def init(*args, **kwargs):
            self.calls.append((args, kwargs))
            if self.errors:
                raise self.errors.pop(0)
            return self.run

        self.init = init


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The hand-off."""
    told = {"wandb": {"resume": {"id": "chain-1"}}, "artifacts": []}
    monkeypatch.setattr(handoff, "read", lambda *_: told)
    monkeypatch.setenv("NEMOTRON_EXEC_HANDOFF", str(tmp_path / "handoff.json"))
    runs = lineage._Runs()
    monkeypatch.setitem(job._parts, lineage._Runs, runs)
    monkeypatch.setattr(job, "_once", {})
    yield told
    if type(runs.claim) is int:
        os.close(runs.claim)


@pytest.fixture
def client(told, monkeypatch):
    module = Client()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    lineage.apply(module)
    return module


CONTINUED = {
    "nothing": ((), {}, {}),
    "a project": ((), {"project": "p"}, {}),
    "mode online": ((), {"mode": "online"}, {}),
    "WANDB_MODE online": ((), {}, {"WANDB_MODE": "online"}),
    "settings that say nothing": ((), {"settings": {"silent": True}}, {}),
    "settings with mode online": ((), {"settings": {"mode": "online"}}, {}),
    "an id that is None": ((), {"id": None, "resume": None}, {}),
}


@pytest.mark.parametrize(("args", "kwargs", "environ"), CONTINUED.values(), ids=CONTINUED)
def test_a_call_that_names_no_run_continues_that_of_the_job(client, monkeypatch, args, kwargs, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert client.init(*args, **kwargs) is client.run
    assert client.calls == [(args, {**kwargs, "id": "chain-1", "resume": "allow"})]


SETTINGS = ("run_id", "resume", "resume_from", "fork_from")
LEFT_ALONE = {
    "positional arguments": (("job",), {}, {}),
    "id": ((), {"id": "mine"}, {}),
    "resume": ((), {"resume": "must"}, {}),
    "resume_from": ((), {"resume_from": "r0?_step=5"}, {}),
    "fork_from": ((), {"fork_from": "r0?_step=5"}, {}),
    **{f"settings[{name}]": ((), {"settings": {name: "x"}}, {}) for name in SETTINGS},
    **{f"settings.{name}": ((), {"settings": types.SimpleNamespace(**{name: "x"})}, {}) for name in SETTINGS},
    "mode offline": ((), {"mode": "offline"}, {}),
    "mode disabled": ((), {"mode": "disabled"}, {}),
    "settings[mode]": ((), {"settings": {"mode": "offline"}}, {}),
    "settings.mode": ((), {"settings": types.SimpleNamespace(mode="shared")}, {}),
    "WANDB_RUN_ID": ((), {}, {"WANDB_RUN_ID": "mine"}),
    "WANDB_RESUME": ((), {}, {"WANDB_RESUME": "must"}),
    "WANDB_MODE": ((), {}, {"WANDB_MODE": "offline"}),
}


@pytest.mark.parametrize(("args", "kwargs", "environ"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_a_call_or_an_environment_that_names_a_run_is_left_alone(client, monkeypatch, args, kwargs, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert client.init(*args, **kwargs) is client.run
    assert client.calls == [(args, kwargs)]


def test_a_job_that_continues_nothing_calls_as_it_is_called(client, told):
    told["wandb"] = {"resume": None}
    client.init(project="p")
    assert client.calls == [((), {"project": "p"})]


GONE = ("run chain-1 was previously created and deleted; try a new run name", "Run initialization has timed out after")


@pytest.mark.parametrize("text", GONE)
def test_a_run_that_is_gone_is_a_warning_and_a_new_run(client, capfd, text):
    client.errors.append(RuntimeError(text))
    assert client.init(project="p") is client.run
    assert client.calls[1] == ((), {"project": "p"})
    assert "run chain-1 of this job" in capfd.readouterr().err


def test_any_other_error_of_a_continued_run_is_the_callers(client):
    client.errors.append(RuntimeError("permission denied"))
    with pytest.raises(RuntimeError, match="permission denied"):
        client.init()
    assert len(client.calls) == 1


@pytest.mark.parametrize("text", GONE)
def test_an_error_of_a_run_that_the_caller_named_is_the_callers(client, text):
    client.errors.append(RuntimeError(text))
    with pytest.raises(RuntimeError):
        client.init(id="mine")
    assert len(client.calls) == 1


def test_a_tag_is_set_once_however_often_a_run_is_started(client):
    lineage.add(tags=["own", "nightly"])
    lineage.add(tags=["nightly"])
    for _ in range(2):
        client.init()
    assert client.run.tags == ("own", "nightly")


def test_an_input_is_used_once_by_a_run_and_again_by_the_next(client, told):
    told["artifacts"] = [{"store": "wandb", "qualified_name": "team/p/data:v1"}]
    for _ in range(2):
        client.init()
    assert client.run.used == ["team/p/data:v1"]
    client.run.id = "r2"
    client.init()
    assert client.run.used == ["team/p/data:v1"] * 2


def test_of_a_disabled_run_nothing_is_recorded(client, told):
    told["artifacts"] = [{"store": "wandb", "qualified_name": "team/p/data:v1"}]
    lineage.add(tags=["nightly"])
    client.run = Run(disabled=True)
    client.init()
    assert (client.run.used, client.run.updates, client.run.tags) == ([], [], ("own",))
