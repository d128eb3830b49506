"""Flags in environment variables mean the same to the launcher and in the job."""

from __future__ import annotations

import sys

import pytest

from nemotron_exec.sitecustomize.payload.flags import is_on

TEXTS = {
    "1": True,
    "true": True,
    "TRUE": True,
    "yes": True,
    "on": True,
    " On ": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "OFF": False,
    "": False,
    None: False,
    "maybe": None,
    "2": None,
}
INJECTED = "import sys; print(any(getattr(finder, 'nemotron_exec', 0) for finder in sys.meta_path))"


@pytest.mark.parametrize(("text", "on"), TEXTS.items())
def test_a_text_is_on_off_or_neither(text, on):
    assert is_on(text) is on


@pytest.mark.parametrize("text", ["1", "true", "yes", "on"])
def test_the_off_switch_turns_both_halves_off(nemotron_exec, tmp_path, text):
    (tmp_path / "cfg.yaml").write_text("run: {data: 'none:v1'}\np: ${art:data,path}\n")
    done = nemotron_exec(sys.executable, "-c", INJECTED, "cfg.yaml", env={"NEMOTRON_EXEC_DISABLE": text})
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


@pytest.mark.parametrize("text", ["0", "false", "off", ""])
def test_an_off_switch_that_is_off(nemotron_exec, text):
    done = nemotron_exec(sys.executable, "-c", INJECTED, env={"NEMOTRON_EXEC_DISABLE": text})
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_the_off_switch_in_the_job_alone(nemotron_exec):
    inner = (
        "import os, subprocess, sys; os.environ['NEMOTRON_EXEC_DISABLE'] = 'yes'; "
        f"subprocess.run([sys.executable, '-c', {INJECTED!r}])"
    )
    assert nemotron_exec(sys.executable, "-c", inner).stdout == "False\n"


def test_an_off_switch_that_is_neither_is_an_error(nemotron_exec):
    done = nemotron_exec("true", env={"NEMOTRON_EXEC_DISABLE": "maybe"})
    assert done.returncode == 2
    assert "NEMOTRON_EXEC_DISABLE" in done.stderr


@pytest.mark.parametrize(("text", "lines"), [("1", True), ("on", True), ("off", False), ("no", False), ("0", False)])
def test_verbose_in_the_job(nemotron_exec, text, lines):
    say = "import _nemotron_exec.notice as notice; notice.debug('seen')"
    done = nemotron_exec(sys.executable, "-c", say, env={"NEMOTRON_EXEC_VERBOSE": text})
    assert ("seen" in done.stderr) is lines


@pytest.mark.parametrize(("text", "off"), [("1", True), ("yes", True), ("TRUE", True), ("off", False), ("", False)])
def test_a_script_that_records_and_is_switched_off(nemotron_exec, tmp_path, text, off):
    (tmp_path / "step_1").mkdir()
    code = (
        f"import os; os.environ['NEMOTRON_EXEC_DISABLE'] = {text!r}; from nemotron_exec import record_checkpoint; "
        "print(record_checkpoint('step_1', iteration=1))"
    )
    done = nemotron_exec(sys.executable, "-c", code, env={"NEMOTRON_EXEC_STORE": str(tmp_path / "store")})
    assert (done.stdout == "None\n") is off, done.stderr


@pytest.mark.parametrize(("text", "raised"), [("1", True), ("yes", True), ("On", True), ("0", False), ("no", False)])
def test_strict_in_the_job(nemotron_exec, text, raised):
    code = (
        f"import os, sys; os.environ['NEMOTRON_EXEC_STRICT'] = {text!r}; "
        "sys.meta_path[0].failed('patch it', ValueError('seen'))"
    )
    done = nemotron_exec(sys.executable, "-c", code)
    assert (done.returncode != 0) is raised
    assert "seen" in done.stderr
