"""If W&B does not answer, a job ends within a bound, or trains on offline and its run is sent later, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory
from nemotron_exec.outbox import offline_runs
from nemotron_exec.sitecustomize.payload.manifest import register

INPUT = "team/nemotron/data:v0"
OUTAGES = {
    "refused": None,
    "hangs up": {"hang_up": True},
    "hangs": {"delay": 600},
    "answers 503": {"status": 503},
}
# Each way takes the bound and a start of wandb. So `make test` runs one way for each outcome, and CI all.
WAYS = [pytest.param(how, id=name, marks=() if name == "hangs up" else pytest.mark.ci) for name, how in OUTAGES.items()]
TRAIN = """
import wandb
run = wandb.init(id="chain")
for step in range(3):
    run.log({"loss": step})
print("offline" if run.offline else "online")
run.finish()
"""


@pytest.fixture
def job(tmp_path, wandb_backend, wandb_environ):
    """Runs Python code as a process of a job whose config does not require W&B."""
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"})
    handoff = tmp_path / "handoff.json"
    document = {
        "schema": 1,
        "artifacts": [{"key": "data", "store": "wandb", "qualified_name": INPUT}],
        "wandb": {"resume": None, "required": False},
    }

    def run(code, *, required=False, check=True, **environ):
        document["wandb"]["required"] = required
        handoff.write_text(json.dumps(document))
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={
                **wandb_environ,
                "WANDB_PROJECT": "nemotron",
                "WANDB_ENTITY": "team",
                "PYTHONPATH": injector_directory(),
                "NEMOTRON_EXEC_ACTIVE": __version__,
                "NEMOTRON_EXEC_HANDOFF": str(handoff),
                "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
                "NEMOTRON_EXEC_BACKEND": "wandb",
                "NEMOTRON_EXEC_WANDB_TIMEOUT": "2",
                **environ,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def flush(tmp_path, wandb_environ):
    """`nemotron-artifact flush`; its JSON, with the exit code."""

    def run(*words, **environ):
        command = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", "--json", "--store", tmp_path / "store"]
        done = subprocess.run(
            [*command, *words],
            env={**wandb_environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.stdout, done.stderr
        return {**json.loads(done.stdout), "code": done.returncode, "stderr": done.stderr}

    return run


def break_(backend, how, environ):
    """Make W&B fail in one way, permanently."""
    if how is None:
        environ["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    else:
        backend.fail("*", times=None, **how)


@pytest.mark.wandb_matrix
@pytest.mark.parametrize("how", WAYS)
def test_without_an_answer_the_run_is_offline_and_training_goes_on(job, wandb_backend, how):
    environ = {}
    break_(wandb_backend, how, environ)
    done = job(TRAIN, **environ)
    assert done.stdout == "offline\n"
    assert "is offline. The next start or `nemotron-artifact flush" in done.stderr
    assert wandb_backend.model.runs == {}


@pytest.mark.ci  # older clients have no bound of their own, and go on waiting at the end of the process
def test_behind_a_proxy_that_only_the_clients_settings_name_the_bound_holds_too(job, wandb_backend):
    environ = {"WANDB_HTTP_PROXY": wandb_backend.url, "WANDB_BASE_URL": "http://wandb.example"}
    wandb_backend.fail("*", times=None, delay=600)
    done = job(TRAIN, **environ)
    assert done.stdout == "offline\n", done.stderr
    assert "W&B at http://wandb.example does not answer" in done.stderr


@pytest.mark.wandb_matrix
def test_what_was_offline_is_sent_once_with_its_inputs(job, flush, wandb_backend, tmp_path):
    wandb_backend.fail("*", times=None, status=503)
    job(TRAIN)
    wandb_backend.faults.clear()
    report = flush()
    assert (report["kept"], report["runs"], wandb_backend.unknown) == ([], 1, [])
    run = wandb_backend.model.run("chain")
    assert [row["loss"] for row in run.history] == [0, 1, 2]
    assert (run.exit_code, run.used) == (0, [INPUT])
    assert wandb_backend.unknown == []
    assert os.listdir(tmp_path / "store/.nemotron-exec/outbox") == []
    before = len(wandb_backend.log)
    again = flush()
    assert (again["sent"], again["runs"], again["kept"], again["code"]) == (0, 0, [], 0)
    assert len(wandb_backend.log) == before


@pytest.mark.parametrize("how", WAYS)
def test_where_it_is_required_one_line_says_so_within_the_bound(job, wandb_backend, how):
    environ = {}
    break_(wandb_backend, how, environ)
    began = time.monotonic()
    done = job("import wandb; wandb.init()", required=True, check=False, **environ)
    assert done.returncode == 1
    assert "CommError: W&B at" in done.stderr
    assert done.stderr.count("and this job requires it. With `run.wandb.required: false`") == 1
    assert time.monotonic() - began < 60  # the client's own bound is 90 s, or none


@pytest.mark.ci
def test_a_flush_that_dies_after_the_run_was_sent_is_repeated_and_the_run_is_there_once(
    job, flush, wandb_backend, tmp_path
):
    wandb_backend.fail("*", times=None, hang_up=True)
    job(TRAIN)
    wandb_backend.faults.clear()
    outbox = tmp_path / "store/.nemotron-exec/outbox"
    (entry,) = outbox.iterdir()
    before = entry.read_bytes()
    assert flush()["runs"] == 1
    entry.write_bytes(before)
    assert flush()["kept"] == []
    assert os.listdir(outbox) == []
    run = wandb_backend.model.run("chain")
    assert run.used == [INPUT]
    assert len(wandb_backend.model.runs) == 1


@pytest.mark.ci
def test_while_wandb_does_not_answer_the_run_stays_with_the_reason(job, flush, wandb_backend, tmp_path):
    wandb_backend.fail("*", times=None, status=503)
    job(TRAIN)
    report = flush("--timeout", "5")
    assert (report["runs"], report["code"], len(report["kept"])) == (0, 75, 1)
    assert len(os.listdir(tmp_path / "store/.nemotron-exec/outbox")) == 1


@pytest.mark.ci  # slow: it waits until W&B reports that the run goes on
def test_a_sync_that_says_it_is_done_and_is_not_leaves_the_run_in_the_outbox(job, flush, wandb_backend):
    wandb_backend.fail("*", times=None, status=503)
    job(TRAIN)
    wandb_backend.faults.clear()
    wandb_backend.fail("file_stream", times=None, status=400)  # the client gives up, but marks the run as synced
    (kept,) = flush()["kept"]
    assert "did not take" in kept["reason"]
    wandb_backend.faults.clear()
    assert flush()["runs"] == 1
    assert [row["loss"] for row in wandb_backend.model.run("chain").history] == [0, 1, 2]


def test_a_run_of_which_the_client_has_written_nothing_is_said_once_and_removed(job, flush, wandb_backend, tmp_path):
    wandb_backend.fail("*", times=None, hang_up=True)
    job(TRAIN)
    wandb_backend.faults.clear()
    (file,) = tmp_path.rglob("run-chain.wandb")
    os.truncate(file, 7)  # as after a kill of the client's service before its first write: the header alone
    report = flush()
    assert (report["runs"], report["kept"], report["code"]) == (0, [], 0)
    assert f"its process died before the client had written anything to {file}" in report["stderr"]
    assert "chain cannot be sent" not in flush()["stderr"]


@pytest.mark.wandb_matrix
def test_a_server_that_answers_and_takes_no_run_is_an_outage_too(job, wandb_backend):
    wandb_backend.fail("UpsertBucket", times=None, status=429)
    done = job(TRAIN, WANDB__GRAPHQL_RETRY_MAX="1", WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS="1")
    assert done.stdout == "offline\n", done.stderr


@pytest.mark.ci
def test_a_variable_of_the_job_wins_over_the_config(job, wandb_backend):
    wandb_backend.fail("*", times=None, status=503)
    done = job(TRAIN, required=True, NEMOTRON_EXEC_WANDB_REQUIRED="0")
    assert done.stdout == "offline\n"


@pytest.mark.ci
def test_a_server_that_answers_gets_the_run_as_ever(job, wandb_backend):
    assert job(TRAIN).stdout == "online\n"
    assert wandb_backend.model.run("chain").used == [INPUT]


@pytest.mark.parametrize("value", ["'false'", "0", "[false]"])
def test_required_takes_a_boolean_and_nothing_else(nemotron_exec, tmp_path, value):
    section = f"run: {{data: 'blend:latest', wandb: {{required: {value}}}}}"
    (tmp_path / "cfg.yaml").write_text(section + "\np: ${art:data,path}\n")
    (tmp_path / "store/blend").mkdir(parents=True)
    register.register(str(tmp_path / "store"), "blend", type="dataset", path=str(tmp_path), metadata={})
    done = nemotron_exec("--backend", "manifest", "--store", str(tmp_path / "store"), "cat", "cfg.yaml")
    assert done.returncode == 125
    assert "run.wandb.required of" in done.stderr
    assert "Write true or false, without quotes" in done.stderr


def test_the_next_start_sends_what_an_earlier_life_of_the_job_left(
    job, nemotron_exec, wandb_backend, wandb_environ, tmp_path
):
    wandb_backend.fail("*", times=None, status=503)
    job(TRAIN)
    wandb_backend.faults.clear()
    register.register(str(tmp_path / "store"), "blend", type="dataset", path=str(tmp_path), metadata={})
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:latest'}\np: ${art:data,path}\n")
    words = ("--backend", "manifest", "--store", str(tmp_path / "store"), "cat", "cfg.yaml")
    done = nemotron_exec(*words, env=wandb_environ)
    assert done.returncode == 0, done.stderr
    assert "1 offline run sent to W&B" in done.stderr
    assert wandb_backend.model.run("chain").exit_code == 0


def entry(path, **changes):
    """An entry of a run, as written by a job on another node."""
    body = {"schema": 1, "event": "e", "run": "r", "job": "j1", "process": {"host": "elsewhere", "pid": 1, "start": 1}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**body, "created_at": "2026", "ended": False, **changes}))
    return path


def test_a_run_on_another_node_is_left_alone_while_it_shows_signs_of_life(tmp_path):
    path = entry(tmp_path / ".nemotron-exec/outbox/run-e.json")
    assert offline_runs.waiting([str(tmp_path)]) == []
    assert offline_runs.waiting([str(tmp_path)], job="j2") == []
    assert offline_runs.waiting([str(tmp_path)], job="j1") == [str(path)]
    os.utime(path, (0, 0))
    assert offline_runs.waiting([str(tmp_path)]) == [str(path)]
    assert os.listdir(path.parent) == ["run-e.json"]


def test_a_run_whose_end_was_noted_waits_whatever_its_node(tmp_path):
    path = entry(tmp_path / ".nemotron-exec/outbox/run-e.json", ended=True)
    assert offline_runs.waiting([str(tmp_path)]) == [str(path)]
