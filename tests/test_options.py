"""The options of nemotron-exec itself, on the command line and in the environment."""

from __future__ import annotations

import re

import pytest

from nemotron_exec.errors import UsageError
from nemotron_exec.options import OPTIONS, Options, parse

#    option: words, environment twin (or None), value of the field
TABLE = {
    "config": (["-c", "a.yaml", "--config", "b.yaml"], {"NEMOTRON_EXEC_CONFIG": "a.yaml:b.yaml"}, ("a.yaml", "b.yaml")),
    "artifact": (["--artifact", "d=b:v1"], {"NEMOTRON_EXEC_ARTIFACT": "d=b:v1"}, ("d=b:v1",)),
    "artifacts": (["--artifacts", "a.yaml"], {"NEMOTRON_EXEC_ARTIFACTS": "a.yaml"}, "a.yaml"),
    "backend": (["--backend", "wandb"], {"NEMOTRON_EXEC_BACKEND": "wandb"}, "wandb"),
    "store": (["--store=s3://b/x"], {"NEMOTRON_EXEC_STORE": "s3://b/x"}, "s3://b/x"),
    "resolve": (["--resolve", "all"], {"NEMOTRON_EXEC_RESOLVE": "all"}, "all"),
    "env_file": (["--env-file", "e.toml"], {"NEMOTRON_EXEC_ENV_FILE": "e.toml"}, "e.toml"),
    "run": (["--run", "dlw"], {"NEMOTRON_EXEC_RUN": "dlw"}, "dlw"),
    "state_dir": (["--state-dir", "/s"], {"NEMOTRON_EXEC_STATE_DIR": "/s"}, "/s"),
    "cache_dir": (["--cache-dir", "/c"], {"NEMOTRON_EXEC_CACHE_DIR": "/c"}, "/c"),
    "job_id": (["--job-id", "7"], {"NEMOTRON_EXEC_JOB_ID": "7"}, "7"),
    "pin": (["--pin", "p.json"], {"NEMOTRON_EXEC_PIN": "p.json"}, "p.json"),
    "timeout": (["--timeout", "0"], {"NEMOTRON_EXEC_TIMEOUT": "0"}, 0.0),
    "stall": (["--stall", "1.5"], {"NEMOTRON_EXEC_STALL": "1.5"}, 1.5),
    "lock": (["--lock", "l.yaml"], None, "l.yaml"),
    "locked": (["--locked", "l.yaml"], {"NEMOTRON_EXEC_LOCKED": "l.yaml"}, "l.yaml"),
    "refresh": (["--refresh"], {"NEMOTRON_EXEC_REFRESH": "1"}, True),
    "rendezvous": (["--rendezvous", "c10d"], {"NEMOTRON_EXEC_RENDEZVOUS": "c10d"}, "c10d"),
    "resolve_only": (["--resolve-only"], None, True),
    "output": (["--resolve-only", "-o", "f"], None, "f"),
    "dry_run": (["--dry-run"], None, True),
    "doctor": (["--doctor"], None, True),
    "status": (["--status"], None, True),
    "json": (["--status", "--json"], None, True),
    "strict": (["--strict"], {"NEMOTRON_EXEC_STRICT": "1"}, True),
    "verbose": (["-v"], {"NEMOTRON_EXEC_VERBOSE": "true"}, True),
    "quiet": (["-q"], {"NEMOTRON_EXEC_QUIET": "yes"}, True),
    "log_format": (["--log-format", "json"], {"NEMOTRON_EXEC_LOG_FORMAT": "json"}, "json"),
}


def test_the_table_has_a_row_for_every_option():
    assert {option.name for option in OPTIONS} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_an_option_sets_its_field(name):
    words, _, value = TABLE[name]
    command = ("slurm-4242",) if "--status" in words else ("torchrun", "-v", "--backend", "x")
    options, rest = parse([*words, *command], {})
    assert getattr(options, name) == value
    assert rest == command


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[1]])
def test_the_environment_sets_the_same_field(name):
    _, environ, value = TABLE[name]
    assert getattr(parse(["true"], environ)[0], name) == value


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[1] is None])
def test_what_changes_the_mode_has_no_environment_twin(name):
    environ = {f"NEMOTRON_EXEC_{name.upper()}": "1"}
    assert parse(["true"], environ)[0] == Options()


def test_the_command_line_wins_over_the_environment():
    assert parse(["--backend", "manifest", "true"], {"NEMOTRON_EXEC_BACKEND": "wandb"})[0].backend == "manifest"


def test_two_dashes_end_the_options():
    assert parse(["-v", "--", "-q"], {})[1] == ("-q",)
    assert parse(["--", "--", "x"], {})[1] == ("--", "x")


WRONG = {
    "no command": ([], {}),
    "only dashes": (["--"], {}),
    "unknown option": (["--nope", "x"], {}),
    "unknown choice": (["--backend", "s3", "x"], {}),
    "no number": (["--timeout", "soon", "x"], {}),
    "a negative number": (["--timeout=-1", "x"], {}),
    "not a number": (["--timeout", "nan", "x"], {}),
    "no value": (["--store"], {}),
    "-o alone": (["-o", "f", "x"], {}),
    "unknown choice in the environment": (["x"], {"NEMOTRON_EXEC_BACKEND": "s3"}),
    "no truth in the environment": (["x"], {"NEMOTRON_EXEC_REFRESH": "perhaps"}),
}


@pytest.mark.parametrize("row", WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_error(row):
    words, environ = row
    with pytest.raises(UsageError) as caught:
        parse(words, environ)
    assert caught.value.exit_code == 2


def test_wrong_usage_exits_2_without_a_traceback(nemotron_exec):
    done = nemotron_exec("--nope", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nemotron-exec: error: ")
    assert "Traceback" not in done.stderr


def test_version_and_help_go_to_stdout(nemotron_exec):
    from nemotron_exec import __version__

    assert nemotron_exec("--version").stdout == f"nemotron-exec {__version__}\n"
    shown = nemotron_exec("--help").stdout
    assert all(option.flags[-1] in shown for option in OPTIONS)


def test_help_has_every_option_in_a_group_examples_the_off_switch_the_other_program_and_the_address(nemotron_exec):
    from nemotron_exec import __url__
    from nemotron_exec.help_page import GROUPS

    assert sorted(name for names in GROUPS.values() for name in names) == sorted(option.name for option in OPTIONS)
    shown = nemotron_exec("--help").stdout
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Examples:", *(f"{title}:" for title in GROUPS), "More:"]
    assert len(re.findall(r"^  nemotron-exec .*train\.py cfg\.yaml", shown, re.M)) == 3
    for said in ("NEMOTRON_EXEC_DISABLE=1", "nemotron-artifact", __url__):
        assert said in shown


def test_help_takes_the_width_that_the_terminal_has(nemotron_exec):
    widths = {}
    for columns in (80, 150):
        shown = nemotron_exec("--help", env={"COLUMNS": str(columns)}).stdout
        widths[columns] = max(map(len, shown.splitlines()))
    assert widths[80] <= 80
    assert 100 < widths[150] <= 150


def test_version_and_help_succeed(nemotron_exec):
    for option in ("--version", "--help"):
        done = nemotron_exec(option)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(nemotron_exec, shell):
    done = nemotron_exec(env={"_NEMOTRON_EXEC_COMPLETE": f"{shell}_source"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "_NEMOTRON_EXEC_COMPLETE" in done.stdout


def test_a_shell_gets_the_options_that_begin_so(nemotron_exec):
    asked = {"_NEMOTRON_EXEC_COMPLETE": "bash_complete", "COMP_WORDS": "nemotron-exec --re", "COMP_CWORD": "1"}
    done = nemotron_exec(env=asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["plain,--resolve", "plain,--refresh", "plain,--rendezvous", "plain,--resolve-only"]
