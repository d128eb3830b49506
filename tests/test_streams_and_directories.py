"""Closed streams, full disks, a missing home or working directory, and names that are no UTF-8."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
import sys

import pytest

PROGRAM = shlex.join([sys.executable, "-m", "nemotron_exec"])
ARTIFACT = shlex.join([sys.executable, "-m", "nemotron_exec.artifact_cli"])


@pytest.fixture
def sh(tmp_path):
    """Run a shell script beside a config with one artifact; `$N` is the launcher, `$A` nemotron-artifact."""
    version = tmp_path / "store/blend/v1"
    version.mkdir(parents=True)
    fields = {"path": str(tmp_path), "type": "dataset", "created_at": "", "metadata": {}}
    more = {"name": "blend", "version": 1, "producer": "", "inputs": [], "used_artifacts": []}
    (version / "manifest.json").write_text(json.dumps({**fields, **more}))
    (version.parent / "latest").write_text("v1")
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")
    (tmp_path / "bad.yaml").write_text("run: {data: 'none:v1'}\npath: ${art:data,path}\n")

    def run(script, **environ):
        environ = {**os.environ, "NEMO_ARTIFACT_ROOT": str(tmp_path / "store"), **environ}
        return subprocess.run(
            ["sh", "-c", script.replace("$N", PROGRAM).replace("$A", ARTIFACT)],
            cwd=tmp_path,
            env={name: value for name, value in environ.items() if value is not None},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=120,
        )

    run.directory = tmp_path
    return run


def test_a_closed_stderr_keeps_neither_the_command_nor_the_exit_code(sh):
    done = sh("exec $N cat cfg.yaml 2>&-")
    assert (done.returncode, done.stdout.count("path: /")) == (0, 1)
    assert sh("exec $N cat bad.yaml 2>&-").returncode == 125
    assert sh("exec $N true 2>&-").returncode == 0


def test_the_command_finds_closed_streams_closed(sh):
    (sh.directory / "job.sh").write_text("for n in 0 1 2; do [ -e /proc/$$/fd/$n ] || touch closed-$n; done\n")
    for config in ("", "cfg.yaml"):
        assert sh(f"exec $N sh job.sh {config} <&- >&- 2>&-").returncode == 0
        # The shell opens only its script, and that may get descriptor 0.
        closed = {path.name for path in sh.directory.glob("closed-*")}
        assert {"closed-1", "closed-2"} <= closed
        for name in closed:
            (sh.directory / name).unlink()


def test_nothing_of_ours_is_written_to_a_file_that_took_the_number_of_stderr(sh):
    code = (
        "import sys\n"
        "open('/dev/null'); file = open('ckpt', 'w')\n"
        "assert file.fileno() == 2, file\n"
        "sys.modules['_nemotron_exec.notice'] = __import__('_nemotron_exec.notice', fromlist=['x'])\n"
        "sys.modules['_nemotron_exec.notice'].warning('lost')\n"
    )
    (sh.directory / "job.py").write_text(code.replace("open('/dev/null'); ", ""))
    assert sh(f"exec $N {sys.executable} job.py 2>&-").returncode == 0
    assert (sh.directory / "ckpt").read_text() == ""


@pytest.mark.parametrize(
    "words",
    [
        "$N --dry-run cat cfg.yaml",
        "$N --help",
        "$N --version",
        "$N --resolve-only cat cfg.yaml",
        "$A ls",
        "$A ls --json",
    ],
)
def test_an_output_that_is_full_is_one_line_and_75(sh, words):
    done = sh(f"exec {words} >/dev/full")
    assert done.returncode == 75, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "data: blend" not in line]
    assert "o space left on device" in line


GONE = "mkdir gone && cd gone && rmdir ../gone && exec "


def test_a_working_directory_that_is_gone(sh):
    assert sh(GONE + "$N -q echo hi").stdout == "hi\n"
    assert sh(GONE + "$N echo hi").stdout == "hi\n"
    done = sh(GONE + f"$N tail -1 {sh.directory}/cfg.yaml")
    assert (done.returncode, done.stdout) == (0, f"path: {sh.directory}\n"), done.stderr
    done = sh(GONE + "$N -c cfg.yaml cat")
    assert done.returncode == 125
    assert "gone (deleted)/cfg.yaml" in done.stderr or "the config cfg.yaml" in done.stderr
    assert "does not expect" not in done.stderr
    assert "the check itself failed" not in sh(GONE + "$N --doctor true").stdout


def test_without_home_and_passwd_entry_no_directory_is_called_tilde(sh):
    # Map the same user to another number, so that its permissions stay.
    start = "unshare --user --map-user=54321 --map-group=54321 $N"
    base = {"HOME": None, "NEMO_ARTIFACT_ROOT": None}
    done = sh(f"exec {start} sh -c 'echo started; env'", **base)
    assert "started\n" in done.stdout, done.stderr
    assert "NEMOTRON_EXEC_STORE" not in done.stdout
    (line,) = done.stderr.splitlines()
    for word in ("HOME is not set", "54321", "--store", "--cache-dir"):
        assert word in line
    done = sh(f"exec {start} -q true", **base)
    assert done.returncode == 0
    done = sh(f"exec {start} cat cfg.yaml", **base)
    assert done.returncode == 125
    assert "HOME is not set" in done.stderr
    assert "does not expect" not in done.stderr
    done = sh(f"exec {start} --store store tail -1 cfg.yaml", **base)
    assert (done.returncode, done.stdout) == (0, f"path: {sh.directory}\n"), done.stderr
    assert not list(sh.directory.rglob("~*"))


@pytest.mark.parametrize("how", ["--job-id $(printf 'a\\377b')", "-q"])
def test_a_job_id_that_is_no_utf_8_is_readable(sh, how):
    done = sh(f"SLURM_JOB_ID=$(printf 'a\\377b') exec $N {how} tail -1 cfg.yaml")
    assert (done.returncode, done.stdout) == (0, f"path: {sh.directory}\n"), done.stderr
    done = sh(f"SLURM_JOB_ID=$(printf 'a\\377b') exec $N {how} --dry-run --log-format json true cfg.yaml")
    assert "a\\xffb" in json.loads(done.stdout)["job"]["id"]


def test_paths_and_words_that_are_no_utf_8(sh):
    done = sh(
        "d=$(printf 'x\\377y'); mkdir $d && cp cfg.yaml $d/c.yaml && $N --dry-run cat $d/c.yaml && cd $d && "
        "exec $N -q tail -1 c.yaml"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"path: {sh.directory}\n")
    assert sh("exec $N -q printf %s $(printf 'a\\377b')").stdout == "a\udcffb"


def test_a_full_stderr_keeps_neither_the_command_nor_the_exit_code(sh):
    done = sh("exec $N -v cat cfg.yaml 2>/dev/full")
    assert (done.returncode, done.stdout.count("path: /")) == (0, 1)
    assert sh("exec $N cat bad.yaml 2>/dev/full").returncode == 125
    assert sh("exec $A show none 2>/dev/full").returncode == 125


@pytest.mark.parametrize("home", ["", "somewhere"])
def test_a_home_that_is_empty_or_relative_is_that_of_the_passwd_entry(sh, home):
    done = sh("exec $A ls", HOME=home, NEMO_ARTIFACT_ROOT=None, XDG_DATA_HOME=None)
    directory = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".local/share/nemotron-exec/artifacts")
    assert directory in done.stderr + done.stdout or done.stdout.startswith("ARTIFACT")
    assert not (sh.directory / "somewhere").exists()
    assert "/.local" in directory
    code = "from nemotron_exec.sitecustomize.payload.manifest.names import default_root; print(default_root())"
    seen = sh(f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}", HOME=home, NEMO_ARTIFACT_ROOT=None,
              XDG_DATA_HOME=None, NEMOTRON_EXEC_STORE=None)  # fmt: skip
    assert seen.stdout == directory + "\n", seen.stderr


def test_adding_what_lies_in_a_deleted_directory_names_the_directory(sh):
    done = sh("mkdir gone; cd gone; rmdir ../gone; exec $A add x .")
    assert done.returncode == 125
    assert "error: the working directory: No such file or directory" in done.stderr
