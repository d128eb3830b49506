"""Lineage: whichever process calls `wandb.init`, its run records the job's inputs, with the real client."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory

INPUT = "team/nemotron/data:v0"


@pytest.fixture
def job(tmp_path, wandb_backend, wandb_environ):
    """Runs Python code as a process of a job whose hand-off names one W&B input and one of the manifest store."""
    wandb_backend.seed("team/nemotron/data", files={"blend.json": b"{}"})
    handoff = tmp_path / "handoff.json"
    handoff.write_text(
        json.dumps(
            {
                "schema": 1,
                "artifacts": [
                    {"key": "data", "store": "wandb", "qualified_name": INPUT},
                    {"key": "model", "store": "manifest", "qualified_name": "pretrain:v2"},
                ],
                "wandb": {"resume": None},
            }
        )
    )

    def run(code, *, python=sys.executable, check=True, **environ):
        done = subprocess.run(
            [python, "-c", textwrap.dedent(code)],
            env={
                **wandb_environ,
                "WANDB_SILENT": "true",
                "WANDB_PROJECT": "nemotron",
                "WANDB_ENTITY": "team",
                "PYTHONPATH": injector_directory(),
                "NEMOTRON_EXEC_ACTIVE": __version__,
                "NEMOTRON_EXEC_HANDOFF": str(handoff),
                # Use a long bound: a machine that is busy with other tests must not count as a slow server.
                "NEMOTRON_EXEC_LINEAGE_TIMEOUT": "60",
                **environ,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    run.handoff = handoff
    run.directory = tmp_path
    return run


FORMS = {
    "wandb.init": "import wandb; run = wandb.init()",
    "from wandb import init": "from wandb import init; run = init()",
    "wandb.sdk": "import wandb.sdk; run = wandb.sdk.init()",
    "with": "import wandb\nwith wandb.init() as run: pass",
}


@pytest.mark.wandb_matrix
@pytest.mark.parametrize("code", FORMS.values(), ids=FORMS)
def test_the_run_uses_the_input_by_its_pinned_version_once(job, wandb_backend, code):
    job(code)
    assert wandb_backend.operations("UseArtifact") == 1
    (run,) = wandb_backend.model.runs.values()
    assert run.used == [INPUT]


def test_a_second_init_of_the_same_run_uses_nothing_again(job, wandb_backend):
    job("import wandb; a = wandb.init(); b = wandb.init(); assert a is b; wandb.finish()")
    assert wandb_backend.operations("UseArtifact") == 1


def test_a_new_run_in_the_same_process_uses_the_inputs_too(job, wandb_backend):
    job("import wandb; wandb.init(); wandb.finish(); wandb.init(); wandb.finish()")
    assert wandb_backend.operations("UseArtifact") == 2


@pytest.mark.ci
def test_every_forked_worker_with_a_run_of_its_own_records_it(job, wandb_backend):
    job(
        """
        import os, sys, wandb
        pid = os.fork()
        run = wandb.init()
        run.finish()
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )
    assert wandb_backend.operations("UseArtifact") == 2


def test_init_returns_what_it_returned_and_looks_the_same(job):
    done = job(
        """
        import inspect, pickle, wandb
        run = wandb.init(mode="disabled")
        assert run is wandb.run
        assert wandb.init.__name__ == "init" and wandb.init.__module__ == "wandb.sdk.wandb_init"
        assert "project" in inspect.signature(wandb.init).parameters
        assert pickle.loads(pickle.dumps(wandb.init)) is wandb.init
        """
    )
    assert done.stdout == ""


def test_offline_the_inputs_are_in_the_runs_config(job):
    job("import wandb; run = wandb.init(mode='offline'); print(run.config['nemotron_exec']['inputs'])")
    done = job("import wandb; run = wandb.init(mode='offline'); print(run.config['nemotron_exec']['inputs'])")
    assert done.stdout.strip() == str([INPUT, "pretrain:v2"])


def test_disabled_nothing_happens(job, wandb_backend):
    done = job("import wandb; run = wandb.init(mode='disabled'); print('nemotron_exec' in run.config.keys())")
    assert done.stdout == "False\n"
    assert wandb_backend.log == []


def test_the_manifest_stores_inputs_reach_the_run_too(job, wandb_backend):
    job("import wandb; wandb.init(); wandb.finish()")
    (run,) = wandb_backend.model.runs.values()
    assert "pretrain:v2" in json.dumps(run.config)


def test_a_slow_server_delays_init_by_no_more_than_the_bound(job, wandb_backend):
    wandb_backend.fail("UseArtifact", delay=600)
    done = job(
        """
        import os, time, wandb
        start = time.monotonic()
        wandb.init()
        os.write(1, b"%d" % (time.monotonic() - start))
        os._exit(0)
        """,
        NEMOTRON_EXEC_LINEAGE_TIMEOUT="0.5",
    )
    assert int(done.stdout) < 60


def test_a_server_that_refuses_is_a_warning(job, wandb_backend):
    wandb_backend.fail("UseArtifact", status=403)
    done = job("import wandb; wandb.init(); wandb.finish(); print('trained')")
    assert "trained" in done.stdout
    assert f"uses {INPUT}" in done.stderr


def test_an_error_of_init_reaches_its_caller(job):
    done = job("import wandb; wandb.init(no_such_argument=1)", check=False)
    assert done.returncode == 1
    assert "no_such_argument" in done.stderr


def test_disabled_by_name_the_patch_is_not_there(job, wandb_backend):
    job("import wandb; wandb.init(); wandb.finish()", NEMOTRON_EXEC_DISABLED_PATCHES="lineage")
    assert wandb_backend.operations("UseArtifact") == 0


def _resume(job, identity="chain-1"):
    data = json.loads(job.handoff.read_text())
    data["wandb"] = {"resume": {"id": identity}}
    job.handoff.write_text(json.dumps(data))


def test_a_requeued_job_continues_its_run(job, wandb_backend):
    _resume(job)
    for _ in range(2):
        job("import wandb; wandb.init(); wandb.finish()")
    assert {run.id for run in wandb_backend.model.runs.values()} == {"chain-1"}


KEPT = {
    "the caller's id": ("wandb.init(id='mine')", {}),
    "the caller's settings": ("wandb.init(settings=wandb.Settings(run_id='mine'))", {}),
    "the caller's settings as a dictionary": ("wandb.init(settings={'run_id': 'mine'})", {}),
    "the environment's id": ("wandb.init()", {"WANDB_RUN_ID": "mine"}),
}


@pytest.mark.ci
@pytest.mark.parametrize("row", KEPT.values(), ids=KEPT)
def test_a_run_that_is_named_already_keeps_its_name(job, wandb_backend, row):
    call, environ = row
    _resume(job)
    job(f"import wandb; {call}; wandb.finish()", **environ)
    assert {run.id for run in wandb_backend.model.runs.values()} == {"mine"}


@pytest.mark.ci
def test_only_the_first_init_continues_the_run(job, wandb_backend):
    _resume(job)
    job("import wandb; wandb.init(); wandb.finish(); wandb.init(); wandb.finish()")
    names = [run.id for run in wandb_backend.model.runs.values()]
    assert len(names) == 2
    assert names.count("chain-1") == 1


@pytest.mark.ci
@pytest.mark.wandb_matrix
def test_a_run_that_was_deleted_is_a_warning_and_a_new_run(job, wandb_backend):
    _resume(job)
    wandb_backend.model.delete_run("team", "nemotron", "chain-1")
    # The client retries until it gives up, after 90 s by default, and the new run must start within the bound, too.
    # With clients up to 0.27, a process waits minutes at its end until the client gives the deleted run up.
    code = "import os, wandb; print(wandb.init().id, flush=True); os._exit(0)"
    done = job(code, WANDB_INIT_TIMEOUT="15")
    assert "nemotron-exec: warning: W&B " in done.stderr
    assert "run chain-1 of this job" in done.stderr
    assert "; a new one is started" in done.stderr
    assert [run.id for run in wandb_backend.model.runs.values()] == [done.stdout.split()[-1]]


@pytest.mark.ci
@pytest.mark.parametrize("bound", ["inf", "1e300", "soon"])
def test_any_bound_is_taken_without_a_warning(job, bound):
    done = job("import wandb; wandb.init(); wandb.finish()", NEMOTRON_EXEC_LINEAGE_TIMEOUT=bound)
    assert "nemotron-exec: warning" not in done.stderr


@pytest.mark.ci
def test_of_two_processes_that_log_at_once_one_continues_the_run(job, wandb_backend):
    _resume(job)
    job(
        """
        import os, subprocess, sys, wandb
        wandb.init()
        if len(sys.argv) < 2 and "CHILD" not in os.environ:
            subprocess.run([sys.executable, "-c", "import wandb; wandb.init(); wandb.finish()"], check=True)
        wandb.finish()
        """
    )
    names = [run.id for run in wandb_backend.model.runs.values()]
    assert len(names) == 2
    assert names.count("chain-1") == 1


def test_resume_auto_gives_a_resumed_job_the_run_of_its_output(tmp_path, nemotron_exec):
    save = tmp_path / "out"
    (tmp_path / "cfg.yaml").write_text(f"run: {{wandb: {{resume: auto}}}}\ncheckpoint: {{save: {save}}}\n")
    show = ("python", "-c", "import json, os; print(json.load(open(os.environ['NEMOTRON_EXEC_HANDOFF']))['wandb'])")
    environ = {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}

    def identity(job):
        done = nemotron_exec("--job-id", job, "--state-dir", tmp_path / "state", *show, "cfg.yaml", env=environ)
        assert done.returncode == 0, done.stderr
        return ast.literal_eval(done.stdout)["resume"]["id"]

    first = identity("1")
    assert identity("2") != first, "nothing was saved: a fresh start is a run of its own"
    second = identity("3")
    (save / "latest_checkpointed_iteration.txt").write_text("10")
    assert identity("4") == second


def test_resume_takes_no_other_word(tmp_path, nemotron_exec):
    (tmp_path / "cfg.yaml").write_text("run: {wandb: {resume: must}}\nx: 1\n")
    done = nemotron_exec("true", "cfg.yaml")
    assert done.returncode == 125
    assert "run.wandb.resume" in done.stderr


COMMIT = "0123456789" * 4
OF_HUB = {
    "key": "model",
    "store": "huggingface",
    "name": "org/model",
    "type": "model",
    "qualified_name": f"hf://org/model@{COMMIT}",
    "digest": COMMIT,
    "source": f"https://huggingface.co/org/model/tree/{COMMIT}",
}


@pytest.mark.wandb_matrix
def test_a_model_of_the_hub_is_an_input_by_reference_to_its_commit(job, wandb_backend):
    job.handoff.write_text(json.dumps({"schema": 1, "artifacts": [OF_HUB]}))
    for _ in range(2):
        job("import wandb; wandb.init(); wandb.finish()")
    for run in wandb_backend.model.runs.values():
        assert run.used == ["team/nemotron/models--org--model:v0"]
        assert OF_HUB["qualified_name"] in json.dumps(run.config)
    (version,) = [one for one in wandb_backend.model.versions.values() if one.collection != "data"]
    assert version.type == "model"
    assert version.metadata == {"id": "org/model", "revision": COMMIT}
    (entry,) = version.manifest["contents"].values()
    assert entry["ref"] == OF_HUB["source"]


def test_offline_a_model_of_the_hub_is_in_the_runs_config_alone(job, wandb_backend):
    job.handoff.write_text(json.dumps({"schema": 1, "artifacts": [OF_HUB]}))
    done = job("import wandb; run = wandb.init(mode='offline'); print(run.config['nemotron_exec']['inputs'])")
    assert done.stdout.strip() == str([OF_HUB["qualified_name"]])
    assert wandb_backend.log == []


def test_a_model_of_the_hub_that_wandb_refuses_costs_a_warning(job, wandb_backend):
    job.handoff.write_text(json.dumps({"schema": 1, "artifacts": [OF_HUB]}))
    wandb_backend.fail("CreateArtifact", status=403, times=None)
    done = job("import wandb; run = wandb.init(); print('goes on')")
    assert done.stdout.strip() == "goes on"
    assert f"W&B did not record that this run uses {OF_HUB['qualified_name']}" in done.stderr
