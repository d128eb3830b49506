"""`run.on_checkpoint` as the launcher reads it: hooks in the hand-off, and one error before the job starts."""

from __future__ import annotations

import json

import pytest

SHOW = """import json, os; print(json.dumps(json.load(open(os.environ["NEMOTRON_EXEC_HANDOFF"]))["on_checkpoint"]))"""


@pytest.fixture
def start(nemotron_exec, tmp_path):
    """Start a job with that `run.on_checkpoint`, in JSON, which is YAML."""

    def run(hooks, *words, more="", key="on_checkpoint", options=()):
        text = hooks if isinstance(hooks, str) and hooks.startswith("\n") else json.dumps(hooks)
        (tmp_path / "cfg.yaml").write_text(f"run:\n  {key}: {text}\n{more}")
        environ = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store")}
        return nemotron_exec(*options, "python3", "-c", SHOW, "cfg.yaml", *words, env=environ)

    return run


def test_a_command_is_a_hook_after_each_checkpoint(start, tmp_path):
    done = start("echo done")
    (hook,) = json.loads(done.stdout)
    assert hook == {
        "command": "echo done",
        "name": "echo",
        "when": "all",
        "every": 1,
        "timeout": 3600.0,
        "retries": 4,
        "catch_up": "beside",
        "cwd": str(tmp_path),
    }
    assert "nemotron-exec: on_checkpoint: echo (all): echo done\n" in done.stderr


def test_a_list_holds_commands_and_mappings_with_names_that_stay_the_same(start, tmp_path):
    (tmp_path / "eval.sh").write_text("")
    hooks = [
        "sh eval.sh fast",
        "sh eval.sh slow",
        {"command": "true", "when": "periodic", "every": 5, "timeout": "1h30m", "retries": 0, "catch_up": "before"},
        {"command": "A=1 /bin/echo $NEMOTRON_CHECKPOINT_PATH > x; [ -f y ] && cat y", "name": "two", "timeout": 90},
    ]
    found = json.loads(start(hooks).stdout)
    assert [hook["name"] for hook in found] == ["eval", "eval-2", "true", "two"]
    assert [hook["timeout"] for hook in found] == [3600, 3600, 5400, 90]
    assert (found[2]["when"], found[2]["every"], found[2]["retries"], found[2]["catch_up"]) == (
        "periodic", 5, 0, "before",
    )  # fmt: skip


def test_an_artifact_in_a_command_is_filled_in_and_the_shells_variables_stay(start, tmp_path, nemotron_exec):
    (tmp_path / "data").mkdir()
    environ = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store")}
    added = nemotron_exec("python3", "-c", "pass", env=environ)
    assert added.returncode == 0, added.stderr
    version = tmp_path / "store/mine/v1"
    version.mkdir(parents=True)
    manifest = {"name": "mine", "version": 1, "type": "dataset", "path": str(tmp_path / "data"), "metadata": {}}
    (version / "manifest.json").write_text(json.dumps({**manifest, "used_artifacts": [], "inputs": []}))
    (version / "metadata.json").write_text(json.dumps(manifest))
    (version.parent / "latest").write_text("v1")
    hooks = "echo ${art:data,path} $NEMOTRON_CHECKPOINT_PATH"
    done = start(f'\n    - "{hooks}"\n  data: mine:latest')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["command"] == f"echo {tmp_path}/data $NEMOTRON_CHECKPOINT_PATH"


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        (7, "cfg.yaml: 7 is no command"),
        ("", "'' is no command"),
        ([["a", "b"]], "hook 1: ['a', 'b'] is no command"),
        ({"when": "all"}, "it has no command"),
        ({"comand": "true"}, "no hook has the key 'comand'. Did you mean command?"),
        ({"command": "true", "timeuot": 3}, "no hook has the key 'timeuot'. Did you mean timeout?"),
        ({"command": "true", "when": "always"}, "when: 'always'. Write one of all, periodic, best, last"),
        ({"command": "true", "every": 0}, "every: 0. Write a whole number from 1 on"),
        ({"command": "true", "every": True}, "every: True"),
        ({"command": "true", "when": "last", "every": 2}, "every beside when: last"),
        ({"command": "true", "timeout": "soon"}, "timeout: 'soon'. Write seconds, or 90s, 30m, 2h"),
        ({"command": "true", "timeout": 0}, "timeout: 0"),
        ({"command": "true", "retries": -1}, "retries: -1"),
        ({"command": "true", "name": "a/b"}, "name: 'a/b'"),
        ([{"command": "true", "name": "a"}, {"command": "false", "name": "a"}], "there is a hook a already"),
        ("no-such-program --fast", "the program no-such-program is not there"),
        ("true && ./eval.sh", "the program ./eval.sh is not there"),
        ("sh eval.sh", "/eval.sh is not there"),
        ("if true", "a shell cannot read 'if true'"),
        ("echo 'a", "a shell cannot read"),
        ("echo ${oc.env:HOME}", "${oc.env:HOME} has no value before the job starts"),
        ({"command": "true", "when": "best"}, "when: best, and the config has no metric"),
    ],
    ids=str,
)
def test_what_could_never_run_is_one_error_before_the_job_starts(start, hooks, said):
    done = start(hooks)
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "words", "code"),
    [
        ("checkpointing: {metric_name: 'val:loss'}\n", (), 0),
        ("checkpointing: {metric_name: null}\n", (), 125),
        ("checkpointing: {metric_name: null}\n", ("checkpointing.metric_name=val:loss",), 0),
        ("checkpointing: {metric_name: 'val:loss'}\n", ("checkpointing.metric_name=null",), 125),
        ("validation_dataset: {path: x}\n", (), 0),
    ],
)
def test_the_best_checkpoint_needs_a_metric(start, more, words, code):
    done = start({"command": "true", "when": "best"}, *words, more=more)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        'x=$(date) && cp "$NEMOTRON_CHECKPOINT_PATH/w" $(pwd) elsewhere',
        "python3 - <<END\nprint(1)\nEND",
        "f() { true; }; f",
        "for i in 1 2; do echo $i; done",
        "cd /nowhere/yet && ./there.sh",
        '"$HOME/bin/convert" --to hf',
        "case $NEMOTRON_CHECKPOINT_BEST in 1) true;; esac",
        "sbatch() { true; }; sbatch later.sh 2>&1 | cat >/dev/null",
    ],
)
def test_what_only_a_shell_can_tell_is_left_to_it(start, command):
    done = start({"command": command, "name": "x"})
    assert done.returncode == 0, done.stderr


def test_a_key_that_runs_nothing_is_said(start):
    done = start("echo", key="on_checkpoints")
    assert "run.on_checkpoints runs nothing; did you mean run.on_checkpoint?" in done.stderr


def test_the_dry_run_shows_the_hooks(start):
    done = start({"command": "echo --api-key=sk1234567890abcdef", "when": "last"}, options=("--dry-run",))
    assert "When a checkpoint is complete\n  echo (last): echo --api-key=***\n" in done.stdout, done.stderr


def test_the_doctor_names_the_hooks_and_what_is_wrong_with_one(start, bare_path, monkeypatch):
    monkeypatch.setenv("PATH", str(bare_path))
    assert "on_checkpoint: echo (all): echo" in start("echo", options=("--doctor",)).stdout
    done = start("no-such-program", options=("--doctor",))
    assert done.returncode == 1
    assert "the program no-such-program is not there" in done.stdout
