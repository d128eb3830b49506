"""`run.on_checkpoint` in real jobs: which hooks run, when, in which environment, and after a crash or a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nemotron_exec.environment import injector_directory
from nemotron_exec.sitecustomize.payload.checkpoints import process

TRAIN = """
import os, sys, time
from nemotron_exec import record_checkpoint

for step in map(int, os.environ.get("STEPS", "10,20").split(",")):
    path = os.path.join("out", "iter_%07d" % step)
    os.makedirs(path, exist_ok=True)
    open(os.path.join(path, "w"), "w").close()
    print(record_checkpoint(path, metrics={"loss": 1 / step}), flush=True)
sys.stdin.read()
sys.exit(int(os.environ.get("CODE", "0")))
"""


def wait_until(what, seconds=60.0):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


class Job:
    """A training job with hooks in a directory of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.environ = {
            **os.environ,
            "NEMOTRON_EXEC_STORE": str(directory / "store"),
            "NEMOTRON_EXEC_STATE_DIR": str(directory / "state"),
            "NEMOTRON_EXEC_HOOK_BACKOFF": "0.05",
            "NEMOTRON_EXEC_HOOK_DRAIN": "0",
        }
        self.hooks = directory / "out/.nemotron-exec/hooks"
        (directory / "train.py").write_text(TRAIN)

    def start(self, hooks, **environ):
        """Start the trainer. After its saves it waits for the end of its stdin."""
        config = {"run": {"on_checkpoint": hooks}, "checkpoint": {"save": "out"}}
        (self.directory / "cfg.yaml").write_text(json.dumps(config))
        return subprocess.Popen(
            [sys.executable, "-m", "nemotron_exec", sys.executable, "train.py", "cfg.yaml"],
            cwd=self.directory,
            env={**self.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, hooks, **environ):
        """Run a whole job; returns its output."""
        trainer = self.start(hooks, **environ)
        out, err = trainer.communicate(timeout=120)
        assert trainer.returncode == int(environ.get("CODE", "0")), err
        self.said = err
        return out

    def artifact(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "nemotron_exec.artifact_cli", *words],
            cwd=self.directory, env=self.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def listed(self):
        """`nemotron-artifact hooks --json`, by id without the event: [(name, iteration, state), …]."""
        if not self.hooks.exists():
            return []
        found = json.loads(self.artifact("hooks", "out", "--json").stdout)["hooks"]
        return sorted((one["hook"], one["iteration"], one["state"]) for one in found)

    def over(self):
        """Wait until no hook waits or runs."""
        wait_until(lambda: not [name for name in os.listdir(self.hooks) if name.endswith(".json")])

    def lines(self, name="seen"):
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_each_checkpoint_runs_each_hook_once_in_order(job):
    job.run(["echo a $NEMOTRON_CHECKPOINT_ITERATION >> seen", "printf 'b %s\\n' $NEMOTRON_CHECKPOINT_VERSION >> seen"])
    job.over()
    lines = job.lines()
    assert [line for line in lines if line[0] == "a"] == ["a 10", "a 20"]
    assert [line for line in lines if line[0] == "b"] == ["b v1", "b v2"]
    assert job.listed() == [("echo", 10, "done"), ("echo", 20, "done"), ("printf", 10, "done"), ("printf", 20, "done")]


def test_a_hook_has_the_jobs_environment_without_injector_and_ranks_in_a_session_of_its_own(job):
    code = "import json, os; json.dump([dict(os.environ), os.getsid(0), os.getcwd()], open('seen', 'w'))"
    others = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1", "NCCL_DEBUG": "WARN",
        "TORCHELASTIC_RUN_ID": "x", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "1", "OMPI_COMM_WORLD_SIZE": "1", "MINE": "kept", "PYTHONPATH": "/nowhere",
    }  # fmt: skip
    job.run({"command": f'"{sys.executable}" -c "{code}"', "name": "env"}, STEPS="10", **others)
    job.over()
    seen, session, directory = json.loads((job.directory / "seen").read_text())
    told = {name: seen.pop(name) for name in list(seen) if name.startswith("NEMOTRON_CHECKPOINT_")}
    assert told == {
        "NEMOTRON_CHECKPOINT_PATH": str(job.directory / "out/iter_0000010"),
        "NEMOTRON_CHECKPOINT_SAVE_DIR": str(job.directory / "out"),
        "NEMOTRON_CHECKPOINT_NAME": "out",
        "NEMOTRON_CHECKPOINT_VERSION": "v1",
        "NEMOTRON_CHECKPOINT_ITERATION": "10",
        "NEMOTRON_CHECKPOINT_ALIASES": "iter_0000010",
        "NEMOTRON_CHECKPOINT_BEST": "",
        "NEMOTRON_CHECKPOINT_FORMAT": "script",
        "NEMOTRON_CHECKPOINT_HF_PATH": "",
        "NEMOTRON_CHECKPOINT_REFERENCE": "out:v1",
        "NEMOTRON_CHECKPOINT_STORE": str(job.directory / "store"),
        "NEMOTRON_CHECKPOINT_METRICS": '{"loss": 0.1}',
    }
    kept = {"MINE", "SLURM_JOB_ID", "PYTHONPATH"}
    assert {name for name in others if name in seen} == kept
    assert (seen["PYTHONPATH"], seen["HOME"]) == ("/nowhere", os.environ["HOME"])
    assert [name for name in seen if name.startswith("NEMOTRON_EXEC_")] == []
    assert injector_directory() not in json.dumps(seen)
    assert session not in (0, os.getsid(0))
    assert directory == str(job.directory)


def test_every_and_last_choose_checkpoints(job):
    hooks = [
        {"command": "echo even $NEMOTRON_CHECKPOINT_ITERATION >> seen", "every": 2, "name": "even"},
        {"command": "echo last $NEMOTRON_CHECKPOINT_ITERATION >> seen", "when": "last", "name": "last"},
    ]
    job.run(hooks, STEPS="10,20,30")
    job.over()
    assert sorted(job.lines()) == ["even 20", "last 30"]
    job.run(hooks, STEPS="40,50")  # the second job goes on counting
    job.over()
    assert sorted(job.lines()) == ["even 20", "even 40", "last 30", "last 50"]


def test_the_last_checkpoint_is_none_where_the_command_fails(job):
    hook = {"command": "echo last $NEMOTRON_CHECKPOINT_ITERATION >> seen", "when": "last", "name": "last"}
    job.run(hook, CODE="3")
    done = job.artifact("flush", "out")
    assert done.returncode == 75
    assert "the command has not ended with exit code 0 yet" in done.stderr
    assert job.listed() == [("last", 20, "held")]
    job.run(hook, STEPS="30")
    job.over()
    assert job.lines() == ["last 30"]


def test_a_hook_that_fails_is_tried_again_and_then_shown_with_its_last_lines(job):
    job.run({"command": "echo nothing works; exit 7", "name": "bad", "retries": 2}, STEPS="10")
    wait_until(lambda: job.listed() == [("bad", 10, "failed")])
    (found,) = json.loads(job.artifact("hooks", "--json").stdout)["hooks"]  # finds the hooks through the store
    assert (found["attempts"], found["exit_code"], found["why"]) == (3, 7, "exit code 7")
    assert found["last_lines"][-1] == "nothing works"
    assert os.path.dirname(found["log"]) == str(job.directory / "out/.nemotron-exec/runs")
    # The run record is there, too.
    assert any(name.startswith("job-") for name in os.listdir(os.path.dirname(found["log"])))
    shown = job.artifact("hooks", "out")
    assert "failed" in shown.stdout
    assert "  nothing works\n" in shown.stdout
    assert f"nemotron-artifact hooks --again {found['id']}" in shown.stdout
    # Neither a flush nor the next start runs a failed hook. Both report it.
    flushed = job.artifact("flush", "out")
    assert flushed.returncode == 75
    assert "exit code 7" in flushed.stderr
    job.run("true", STEPS="20")
    assert f"hook {found['id']} of an earlier run has failed 3 times: exit code 7" in job.said
    again = job.artifact("hooks", "out", "--again", found["id"])
    assert again.returncode == 75
    entry = job.hooks / os.path.basename(found["entry"])
    assert json.loads(entry.read_text())["state"] == "failed"
    text = entry.read_text().replace("exit 7", "exit 0")
    entry.write_text(text)
    assert job.artifact("hooks", "out", "--again", found["id"][:6]).returncode == 0
    assert ("bad", 10, "done") in job.listed()


def test_a_hook_that_hangs_neither_delays_the_next_one_for_ever_nor_the_end_of_the_job(job):
    began = time.monotonic()
    hooks = [{"command": "sleep 600", "timeout": 0.5, "retries": 0}, "echo $NEMOTRON_CHECKPOINT_ITERATION >> seen"]
    job.run(hooks)
    assert time.monotonic() - began < 30
    wait_until(lambda: job.listed()[-2:] == [("sleep", 10, "failed"), ("sleep", 20, "failed")])
    assert job.lines() == ["10", "20"]
    (found, _) = [one for one in json.loads(job.artifact("hooks", "--json").stdout)["hooks"] if one["hook"] == "sleep"]
    assert found["why"] == "it took longer than 0.5 s (timeout)"


TRAP = """trap 'echo told >> seen; exit 0' TERM; echo began >> seen; [ -e go ] && echo through >> seen && exit
while :; do sleep 0.05; done"""


def test_sigterm_tells_running_hooks_and_leaves_them_to_the_next_start(job):
    trainer = job.start({"command": TRAP, "name": "trap"}, STEPS="10,20")
    wait_until(lambda: job.lines() == ["began"])
    trainer.send_signal(signal.SIGTERM)
    trainer.communicate(timeout=60)
    assert trainer.returncode == -signal.SIGTERM
    wait_until(lambda: job.lines() == ["began", "told"])
    wait_until(lambda: job.listed() == [("trap", 10, "waiting"), ("trap", 20, "waiting")])
    (job.directory / "go").touch()
    out = job.run("true", STEPS="30")
    assert out == "out:v3\n"
    assert "hooks of an earlier run, beside the job: trap-" in job.said
    wait_until(lambda: {("trap", 10, "done"), ("trap", 20, "done")} <= set(job.listed()))
    assert job.lines() == ["began", "told", "began", "through", "began", "through"]


def test_what_is_left_runs_before_the_job_where_the_hook_says_so(job):
    hook = {"command": "[ -e go ] && echo $NEMOTRON_CHECKPOINT_ITERATION >> seen", "name": "first", "retries": 1000}
    trainer = job.start({**hook, "catch_up": "before"}, STEPS="10,20")
    wait_until(lambda: len([line for line in job.listed() if line[0] == "first"]) == 2)
    trainer.kill()
    trainer.communicate(timeout=60)
    (job.directory / "go").touch()
    (job.directory / "train.py").write_text("print(open('seen').read().split())")
    wait_until(lambda: "running" not in {state for _, _, state in job.listed()})
    assert job.run("true") == "['10', '20']\n"
    assert "hooks of an earlier run, before the job: first-" in job.said


def test_a_checkpoint_that_was_recorded_and_not_handed_over_runs_its_hooks_by_flush(job):
    # The trainer dies right after it has written the outbox entry.
    (job.directory / "train.py").write_text(
        "from _nemotron_exec.checkpoints import record\nimport os\n"
        "record.complete = lambda *_, **__: os._exit(9)\n" + TRAIN
    )
    job.run("echo $NEMOTRON_CHECKPOINT_REFERENCE >> seen", STEPS="10", CODE="9")
    assert not job.hooks.exists()
    done = job.artifact("flush", "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["registered"], found["hooks"], found["kept"]) == (1, 1, [])
    assert job.lines() == ["out:v1"]
    assert json.loads(job.artifact("flush", "out", "--json").stdout)["hooks"] == 0
    assert job.lines() == ["out:v1"]


def test_a_runner_that_is_killed_loses_and_repeats_nothing(job):
    trainer = job.start("sleep 1; echo $NEMOTRON_CHECKPOINT_ITERATION >> seen", STEPS="10")
    (entry,) = wait_until(lambda: list(job.hooks.glob("hook-*.json")) if job.hooks.exists() else None)
    running = wait_until(lambda: [one for one in [json.loads(entry.read_text())] if one["state"] == "running"])
    with open(f"/proc/{running[0]['child']['pid']}/stat") as stat:
        runner = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: not process.alive({**running[0]["child"], "pid": runner, "start": process.start_time(runner)}))
    trainer.communicate(timeout=60)  # the end of the trainer starts another runner
    job.over()
    assert job.lines() == ["10"]


def test_a_hook_of_another_users_making_is_not_run(job):
    trainer = job.start({"command": "[ -e go ] && echo run >> seen", "retries": 1000}, STEPS="10")
    (entry,) = wait_until(lambda: list(job.hooks.glob("hook-*.json")) if job.hooks.exists() else None)
    trainer.kill()
    trainer.communicate(timeout=60)
    wait_until(lambda: job.listed()[0][2] == "waiting")
    (job.directory / "go").touch()
    entry.chmod(0o666)  # another user who may write to the file could choose the command
    done = job.artifact("hooks", "out")
    assert "does not count: others may write to it" in done.stderr
    job.artifact("flush", "out")
    job.run("true", STEPS="20")
    assert "is left alone: others may write to it" in job.said
    assert job.lines() == []
    entry.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(entry, 12345, -1)
        assert "it belongs to user 12345, and its command is not run" in job.artifact("hooks", "out").stderr


def test_a_checkpoint_that_was_deleted_before_its_turn_is_said_to_be_gone(job):
    trainer = job.start({"command": "false", "retries": 1000, "name": "late"}, STEPS="10")
    wait_until(job.listed)
    trainer.kill()
    trainer.communicate(timeout=60)
    wait_until(lambda: job.listed()[0][2] == "waiting")
    (job.directory / "out/iter_0000010/w").unlink()
    (job.directory / "out/iter_0000010").rmdir()
    assert job.artifact("flush", "out").returncode == 0
    assert job.listed() == [("late", 10, "gone")]


WITH_A_RUN = "import wandb\nrun = wandb.init()\n" + TRAIN.replace("sys.stdin.read()", "run.finish()")


def test_the_reference_of_a_job_with_wandb_is_what_the_next_job_finds_there(job, wandb_backend, wandb_environ):
    job.environ |= {**wandb_environ, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "team"}
    (job.directory / "train.py").write_text(WITH_A_RUN)
    job.run("echo $NEMOTRON_CHECKPOINT_REFERENCE >> seen")
    job.over()
    first, second = job.lines()
    for reference, iteration in ((first, 10), (second, 20)):
        (job.directory / "next.yaml").write_text(f"run: {{model: '{reference}'}}\nn: ${{art:model,iteration}}\n")
        words = [sys.executable, "-m", "nemotron_exec", "--backend", "wandb", "cat", "next.yaml"]
        done = subprocess.run(words, env=job.environ, capture_output=True, text=True, check=False, cwd=job.directory)
        assert f"n: {iteration}\n" in done.stdout, done.stderr
    assert wandb_backend.unknown == []


def test_status_tells_the_hooks(job):
    job.run(["true", {"command": "exit 3", "name": "bad", "retries": 0}], STEPS="10", NEMOTRON_EXEC_JOB_ID="j1")
    wait_until(lambda: job.listed() == [("bad", 10, "failed"), ("true", 10, "done")])
    words = [sys.executable, "-m", "nemotron_exec", "--status", "j1"]
    done = subprocess.run(words, env=job.environ, capture_output=True, text=True, check=False, cwd=job.directory)
    assert "  on_checkpoint: bad (all): exit 3\n" in done.stdout, done.stderr
    assert "  hooks: 1 done, 1 failed\n" in done.stdout
    assert "    failed: bad-" in done.stdout
    assert ": exit code 3 (" in done.stdout
    words[3:3] = ["--json"]
    done = subprocess.run(words, env=job.environ, capture_output=True, text=True, check=False, cwd=job.directory)
    hooks = json.loads(done.stdout)["starts"][0]["hooks"]
    assert [one["state"] for one in hooks["runs"]] == ["done", "failed"]
    assert [one["name"] for one in hooks["given"]] == ["true", "bad"]
