"""Step 5: the launcher's process becomes the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from nemotron_exec.environment import injector_directory

LAUNCHER = [sys.executable, "-m", "nemotron_exec"]


def test_the_command_has_the_launchers_pid(tmp_path):
    with subprocess.Popen([*LAUNCHER, "sh", "-c", "echo $$"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.read().strip() == str(process.pid)


@pytest.mark.parametrize("code", [0, 1, 2, 75, 125, 255])
def test_the_exit_code_is_the_commands_own(nemotron_exec, code):
    assert nemotron_exec("sh", "-c", f"exit {code}").returncode == code


def test_the_command_dies_by_its_own_signal(nemotron_exec):
    assert nemotron_exec("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_sigpipe_ends_a_pipeline_as_without_us():
    # Python ignores SIGPIPE, and exec would pass that on.
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1; echo "${PIPESTATUS[0]}"', "bash", *LAUNCHER, "yes"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["y", str(128 + signal.SIGPIPE)]
    assert done.stderr == ""


def test_signal_dispositions_are_those_of_a_bare_start():
    show = ["sh", "-c", "grep ^Sig /proc/self/status | grep -v SigQ"]
    bare = subprocess.run(["env", *show], capture_output=True, text=True, check=True).stdout
    assert subprocess.run([*LAUNCHER, *show], capture_output=True, text=True, check=True).stdout == bare


def test_an_ignored_sighup_stays_ignored():
    script = "trap '' HUP; exec \"$@\""
    show = ["grep", "SigIgn", "/proc/self/status"]
    done = subprocess.run(["sh", "-c", script, "sh", *LAUNCHER, *show], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[1], 16) & 1


def test_words_reach_the_command_byte_for_byte(tmp_path):
    words = ["", "a b", "--", "-v", "$HOME", "*", "ü", os.fsdecode(b"\xff\xfe"), "x=y", "--config"]
    show = [sys.executable, "-c", "import os, sys; os.write(1, b'\\0'.join(map(os.fsencode, sys.argv[1:])))", *words]
    done = subprocess.run([*LAUNCHER, "--", *show], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == b"\0".join(map(os.fsencode, words))


def test_a_missing_command_is_127(nemotron_exec):
    done = nemotron_exec("no-such-command-here", "x")
    assert done.returncode == 127
    assert done.stderr.startswith("nemotron-exec: error: start 'no-such-command-here': nothing of that name on PATH")


MISTAKES = {
    "a script without its interpreter": (["train.py", "a b"], "nemotron-exec python train.py 'a b'"),
    "a script that is not executable": (["./train.py"], "nemotron-exec python ./train.py"),
    "a config in place of the command": (["cfg.yaml"], "nemotron-exec python train.py cfg.yaml"),
    "a command in quotes": (["python train.py"], "nemotron-exec python train.py"),
    "a line of the shell in quotes": (["A=1 sh && true"], "nemotron-exec bash -c 'A=1 sh && true'"),
    "a variable before the command": (["A_KEY=secret", "sh"], "A_KEY=… nemotron-exec sh"),
    "something built into the shell": (["cd", "/x"], "nemotron-exec bash -c 'cd /x && COMMAND'"),
    "a command of nemotron-artifact": (["add", "x", "y"], "Write nemotron-artifact add x y"),
    "an option without its dashes": (["doctor", "sh"], "nemotron-exec --doctor sh"),
    "help without its dashes": (["help"], "nemotron-exec --help"),
    "a misspelt program": (["nemotron-artefact-x"], "Did you mean nemotron-artifact-x?"),
    "an empty word": (["", "x"], "a variable may be unset"),
}


@pytest.mark.parametrize("row", MISTAKES.values(), ids=MISTAKES)
def test_what_people_write_in_place_of_a_command_is_answered_with_what_they_meant(nemotron_exec, tmp_path, row):
    words, meant = row
    (tmp_path / "train.py").write_text("")
    (tmp_path / "cfg.yaml").write_text("a: 1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nemotron-artifact-x").write_text("#!/bin/sh\n")
    (tmp_path / "bin/nemotron-artifact-x").chmod(0o755)
    done = nemotron_exec(*words, env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    assert done.returncode in (126, 127)
    assert meant in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "A_KEY=secret" not in done.stderr


def test_the_words_that_are_taken_for_a_mistake_are_those_of_the_two_programs():
    from nemotron_exec.artifact_cli.main import cli
    from nemotron_exec.command_mistake import ARTIFACT_COMMANDS, OPTION_WORDS
    from nemotron_exec.options import OPTIONS

    assert sorted(ARTIFACT_COMMANDS) == sorted(cli.list_commands(None))
    flags = {flag for option in OPTIONS for flag in option.flags} | {"--help", "--version"}
    assert {f"--{word}" for word in OPTION_WORDS} <= flags


def test_a_missing_command_is_noticed_before_anything_is_resolved(nemotron_exec, tmp_path):
    (tmp_path / "cfg.yaml").write_text("run: {data: nowhere:v1}\npath: ${art:data,path}\n")
    assert nemotron_exec("no-such-command-here", "cfg.yaml").returncode == 127


@pytest.mark.parametrize("what", ["a directory", "a file without execute permission"])
def test_what_cannot_be_executed_is_126(nemotron_exec, tmp_path, what):
    path = tmp_path / "program"
    if what == "a directory":
        path.mkdir()
    else:
        path.write_text("#!/bin/sh\n")
    done = nemotron_exec(path)
    assert done.returncode == 126
    assert what in done.stderr


def test_a_script_without_an_interpreter_line_runs_as_in_a_shell(nemotron_exec, tmp_path):
    script = tmp_path / "job"
    script.write_text('echo "ran with $1"\n')
    script.chmod(0o755)
    assert nemotron_exec(script, "it").stdout == "ran with it\n"


def test_a_command_with_nothing_to_resolve_still_gets_the_injector(nemotron_exec):
    done = nemotron_exec("sh", "-c", "echo $PYTHONPATH; echo $NEMOTRON_EXEC_ACTIVE", env={"PYTHONPATH": "/a:/b"})
    path, active = done.stdout.splitlines()
    assert path == f"{injector_directory()}:/a:/b"
    assert active


@pytest.mark.parametrize("given", ["", None])
def test_an_empty_pythonpath_does_not_become_the_working_directory(nemotron_exec, given):
    env = {} if given is None else {"PYTHONPATH": given}
    assert nemotron_exec("sh", "-c", "echo $PYTHONPATH", env=env).stdout.strip() == injector_directory()


def test_a_launcher_inside_a_launcher_adds_nothing(nemotron_exec):
    done = nemotron_exec(*LAUNCHER, *LAUNCHER, "sh", "-c", "echo $PYTHONPATH")
    assert done.stdout.strip() == injector_directory()


def test_an_older_jobs_handoff_is_not_passed_on(nemotron_exec):
    done = nemotron_exec("sh", "-c", "echo ${NEMOTRON_EXEC_HANDOFF-none}", env={"NEMOTRON_EXEC_HANDOFF": "/old.json"})
    assert done.stdout.strip() == "none"


def test_disabled_means_untouched(nemotron_exec):
    done = nemotron_exec("env", env={"NEMOTRON_EXEC_DISABLE": "1"})
    assert "PYTHONPATH" not in done.stdout
    assert "NEMOTRON_EXEC_ACTIVE" not in done.stdout


def test_nothing_is_imported_on_the_way_to_a_command_with_nothing_to_resolve(tmp_path):
    config = tmp_path / "plain.yaml"
    config.write_text("lr: 0.1\ntruncate: true\n")
    code = (
        "import os, sys; before = set(sys.modules)\n"
        "os.execvpe = lambda *_: (print(sorted(m for m in set(sys.modules) - before)), os._exit(0))\n"
        f"sys.argv = ['nemotron-exec', 'true', {str(config)!r}, '--x=1']\n"
        "from nemotron_exec.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = set(eval(done.stdout))
    ours = {f"nemotron_exec.{name}" for name in ("cli", "command_scan", "environment", "errors", "message", "process")}
    assert loaded <= ours | {"nemotron_exec", "__future__"}


def test_ctrl_c_while_resolving_ends_the_launcher_by_that_signal(tmp_path):
    # Reading a FIFO blocks until a process writes to it. So with a FIFO as config the launcher is still resolving.
    fifo = tmp_path / "cfg.yaml"
    os.mkfifo(fifo)
    process = subprocess.Popen([*LAUNCHER, "-c", fifo, "true", fifo], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while "fifo" not in _waiting_for(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT
    assert "Traceback" not in process.stderr.read()


def _waiting_for(pid):
    try:
        with open(f"/proc/{pid}/wchan") as file:
            wait = file.read()
        with open(f"/proc/{pid}/syscall") as file:
            # Some kernels hide wchan. An openat that does not return must be the FIFO's.
            return wait + (" fifo" if file.read().split()[0] == "257" else "")
    except OSError:
        return ""


def test_a_signal_that_python_drops_still_keeps_the_command_from_starting(tmp_path):
    (tmp_path / "cfg.yaml").write_text("run: {}\n")
    code = (
        "import os, signal\n"
        "from nemotron_exec import launch\n"
        "class Finalizer:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.getpid()\n"
        "def place(*args, find=launch.rank.place):\n"
        "    Finalizer()\n"
        "    return find(*args)\n"
        "launch.rank.place = place\n"
        "environ = {**os.environ, 'NEMOTRON_EXEC_STATE_DIR': os.getcwd()}\n"
        "launch.main(['sh', '-c', 'echo started', 'cfg.yaml'], environ)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "Exception ignored" in done.stderr  # Python did drop the exception
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
