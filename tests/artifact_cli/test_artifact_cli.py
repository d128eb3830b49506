"""Runs nemotron-artifact as a process, and checks its output, its files and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nemotron_exec.artifact_cli import main
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from terminals import read_all

PROGRAM = [sys.executable, "-m", "nemotron_exec.artifact_cli"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("NEMO", "XDG", "WANDB", "COLUMNS"))
    }
    environ.update(HOME=str(tmp_path / "home"), NEMOTRON_EXEC_STORE=str(tmp_path / "store"))
    (tmp_path / "home").mkdir()

    def call(*words, code=0, **more):
        env = {**environ, **more.pop("env", {})}
        out = subprocess.run(
            [*PROGRAM, *words], capture_output=True, text=True, check=False, env=env, cwd=str(tmp_path), **more
        )
        assert out.returncode == code, out.stderr
        assert "Traceback" not in out.stderr or "-v" in words
        return out

    return call


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def as_json(out):
    return json.loads(out.stdout)


def test_add_prints_the_version_and_records_types_fields_and_inputs(run, data, tmp_path):
    (data / "metadata.json").write_text(json.dumps({"type": "DataBlend", "pack_size": 4096, "metadata": {"seed": 1}}))
    assert run("add", "raw", "s3://bucket/raw").stdout == "raw:v1\n"
    out = run(
        *("add", "team/blend", "data", "--input", "raw", "--input", "hf://nvidia/x", "--input", str(tmp_path)),
        *("--alias", "good", "--meta", "lr=1e-4", "--meta", "n=4096", "--meta", "ok=true", "--meta", "text=a: b"),
        *("--meta", "when=2026-01-01", "--meta", "list=[1, 2]", "--meta", "empty=", "--meta", "nothing=null"),
    )
    assert out.stdout == "team/blend:v1\n"
    number, manifest, fields, _ = read.read_version(tmp_path / "store", "team/blend", "good")
    assert (number, manifest["path"], manifest["type"]) == (1, str(data), "DataBlend")
    assert manifest["used_artifacts"] == ["raw:v1"]
    assert manifest["inputs"] == ["hf://nvidia/x", f"file://{tmp_path}"]
    expected = {"lr": 1e-4, "n": 4096, "ok": True, "when": "2026-01-01", "list": [1, 2], "empty": "", "nothing": None}
    assert {key: fields[key] for key in expected} == expected
    assert {key: manifest["metadata"][key] for key in expected} == expected
    assert fields["pack_size"] == 4096
    assert manifest["metadata"]["seed"] == 1
    assert run("add", "team/blend", "data", "--type", "dataset", "--no-latest").stdout == "team/blend:v2\n"
    assert listing.read_latest(tmp_path / "store", "team/blend") == 1


def test_a_link_is_recorded_as_what_it_means_now(run, data, tmp_path):
    (tmp_path / "current").symlink_to(data)
    run("add", "d", "current")
    assert read.read_version(tmp_path / "store", "d").manifest["path"] == str(data)


def test_eight_processes_that_add_the_same_name_print_eight_numbers(run, data, tmp_path):
    env = {**os.environ, "NEMOTRON_EXEC_STORE": str(tmp_path / "store")}
    adders = [
        subprocess.Popen([*PROGRAM, "add", "same", str(data)], stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(8)
    ]
    printed = sorted(adder.communicate(timeout=120)[0].strip() for adder in adders)
    assert printed == sorted(f"same:v{number}" for number in range(1, 9))
    assert listing.read_latest(tmp_path / "store", "same") == 8


def test_ls_and_show_print_tables_for_people_and_json_for_machines(run, data):
    for step in (10, 20):
        run("add", "team/sft", "data", "--type", "model", "--meta", f"iteration={step}")
    run("add", "blend", "data")
    lines = run("ls").stdout.splitlines()
    assert lines[0].split() == [
        "ARTIFACT",
        "LATEST",
        "VERSIONS",
        "TYPE",
        "ITERATION",
        "CREATED",
        "ALSO",
        "DATA",
        "PATH",
    ]
    assert [line.split()[0:3] for line in lines[1:]] == [["blend", "v1", "1"], ["team/sft", "v2", "2"]]
    assert [line.split()[0] for line in run("ls", "team/sft").stdout.splitlines()[1:]] == ["team/sft:v1", "team/sft:v2"]
    assert [line.split()[0] for line in run("ls", "team/").stdout.splitlines()[1:]] == ["team/sft"]
    listed = as_json(run("ls", "--json"))["versions"]
    assert [entry["qualified_name"] for entry in listed] == ["blend:v1", "team/sft:v1", "team/sft:v2"]
    assert listed[2]["iteration"] == 20
    assert listed[2]["aliases"] == ["latest"]
    shown = run("show", "team/sft:1").stdout
    assert "team/sft:v1" in shown
    assert "iteration  10" in shown
    assert str(data) in shown
    described = as_json(run("show", "team/sft", "--json"))
    assert (described["version"], described["manifest"]["version"], described["metadata"]["iteration"]) == (2, 2, 20)


def test_show_prints_how_a_config_names_each_field(run, data):
    run("add", "team/blend", "data", "--meta", "pack_size=4096")
    shown = run("show", "team/blend").stdout
    assert "  pack_size: ${art:blend,pack_size}  # 4096" in shown
    assert shown.index("path") < shown.index("artifact")


@pytest.mark.parametrize("name", ["team/blend", "a.b.c", "7", "null", "env", "x+y", "run"])
def test_what_show_prints_for_a_config_works_when_it_is_pasted(run, data, nemotron_exec, tmp_path, name):
    fields = ("pack_size=4096", "on=1", "best loss=2", "empty=", "list=[1]")
    run("add", name, "data", *(word for field in fields for word in ("--meta", field)))
    shown = run("show", name).stdout
    (tmp_path / "cfg.yaml").write_text(shown[shown.index("# in a config:") :])
    done = nemotron_exec("cat", "cfg.yaml", env={"NEMOTRON_EXEC_STORE": str(tmp_path / "store")})
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    (key,) = [key for key in read if key != "run"]
    assert read["run"] == {key: f"{name}:v1"}
    assert read[key]["path"] == str(data)
    assert read[key]["pack_size"] == 4096


def test_an_empty_store_says_so_on_stderr_only(run):
    out = run("ls")
    assert out.stdout == ""
    assert "nemotron-artifact: there is nothing in" in out.stderr
    assert as_json(run("ls", "--json"))["versions"] == []


def test_graph_draws_one_version_or_the_store_in_every_format(run, data, tmp_path):
    run("add", "blend", "data", "--input", "hf://nvidia/x")
    run("add", "pretrain", "data", "--type", "model", "--input", "blend", "--meta", "iteration=5")
    run("add", "other", "data")
    text = run("graph", "pretrain:latest").stdout
    assert [line.strip(" └├─│").split("  ")[0] for line in text.splitlines()] == [
        "pretrain:v1",
        "blend:v1",
        "hf://nvidia/x",
    ]
    assert "other:v1" in run("graph").stdout
    assert run("graph", "--format", "mermaid").stdout.startswith("flowchart LR\n")
    assert run("graph", "--format", "dot").stdout.startswith("digraph lineage {\n")
    assert {tuple(edge) for edge in as_json(run("graph", "--json"))["edges"]} == {
        ("hf://nvidia/x", "blend:v1"),
        ("blend:v1", "pretrain:v1"),
    }
    out = run("graph", "-o", "page.html")
    assert out.stdout == ""
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert run("graph", "pretrain", "-o", "x.mmd").stdout == ""
    assert "other" not in (tmp_path / "x.mmd").read_text()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_verify_exits_1_where_data_is_gone_and_gc_removes_only_with_yes(run, data, tmp_path):
    for step in (1, 2, 3):
        (data / f"s{step}").mkdir()
        run("add", "m", f"data/s{step}", "--type", "model")
    assert "3 versions, 0 errors" in run("verify").stderr
    (data / "s1").rmdir()
    out = run("verify", code=1)
    assert "m:v1" in out.stdout
    assert f"{data}/s1 is not there" in out.stdout
    (finding,) = as_json(run("verify", "--json", code=1))["findings"]
    assert (finding["level"], finding["subject"]) == ("error", "m:v1")
    out = run("gc")
    assert "WOULD REMOVE" in out.stdout
    assert "--yes" in out.stderr
    assert listing.versions(tmp_path / "store", "m") == [1, 2, 3]
    assert [one["subject"] for one in as_json(run("gc", "--json"))["proposed"]] == ["m:v1"]
    assert "REMOVED" in run("gc", "--yes").stdout
    assert listing.versions(tmp_path / "store", "m") == [2, 3]
    run("verify")


def test_the_store_comes_from_the_option_then_the_environment(run, data, tmp_path):
    run("--store", str(tmp_path / "a"), "add", "n", "data")
    run("add", "n", "data", "--store", f"file://{tmp_path}/b")
    run("add", "n", "data", env={"NEMOTRON_EXEC_STORE": "", "NEMO_ARTIFACT_ROOT": str(tmp_path / "c")})
    run("add", "n", "data", env={"NEMOTRON_EXEC_STORE": ""})
    (tmp_path / "env.toml").write_text(f'[artifacts.manifest]\nroot = "{tmp_path}/d"\n')
    run("add", "n", "data", env={"NEMOTRON_EXEC_STORE": "", "NEMO_ARTIFACT_ROOT": str(tmp_path / "no")})
    for store in ("a", "b", "c", "d", "home/.local/share/nemotron-exec/artifacts"):
        assert listing.versions(tmp_path / store, "n") == [1], store


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["show", "blnd"], 125, "Did you mean blend?"),
        (["show", "blend:v9"], 125, "has the versions v1"),
        (["show", "../x"], 125, "whose part '..' no store takes"),
        (["ls", "nope"], 125, "no artifact of that name"),
        (["add", "blend", "nowhere"], 125, "nowhere is not there"),
        (["add", "a/../b", "data"], 125, "whose part '..' no store takes"),
        (["add", "blend", "data", "--input", "nope:v1"], 125, "no artifact of that name"),
        (["add", "blend", "data", "--alias", "v3"], 125, "to name an alias"),
        (["add", "blend", "data", "--meta", "x"], 2, "Write it as KEY=VALUE"),
        (["add", "blend"], 2, "Missing argument 'PATH'"),
        ([], 2, "Missing command"),
        (["frobnicate"], 2, "No such command"),
        (["graph", "--format", "png"], 2, "'png'"),
        (["graph", "-o", "nowhere/x.html"], 125, "No such file or directory"),
        (["--store", "nosuch://x", "ls"], 125, "nosuch"),
        (["--store", "data/file", "add", "n", "data"], 125, "to make the directory"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(run, data, words, code, found):
    run("add", "blend", "data")
    (data / "file").write_text("")
    out = run(*words, code=code)
    assert out.stdout == ""
    assert out.stderr.startswith("nemotron-artifact: error: ")
    assert found in out.stderr
    assert out.stderr.count("\n") == 1


def test_a_damaged_metadata_json_in_the_data_is_an_error_that_names_it(run, data, tmp_path):
    for content, found in (("{", "not JSON"), ("[]", "not an object")):
        (data / "metadata.json").write_text(content)
        out = run("add", "n", "data", code=125)
        assert f"{data}/metadata.json: " in out.stderr
        assert found in out.stderr
    (data / "metadata.json").unlink()
    (data / "metadata.json").symlink_to("/etc/hostname")
    assert "symbolic link" in run("add", "n", "data", code=125).stderr
    assert not (tmp_path / "store").exists()


def test_damaged_manifests_do_not_hide_the_others(run, data, tmp_path):
    run("add", "n", "data")
    run("add", "n", "data")
    (tmp_path / "store/n/v2/manifest.json").write_text("{")
    assert "damaged" in run("ls").stdout
    assert "manifest.json: not JSON" in run("verify", code=1).stdout
    assert "n:v1" in run("graph").stdout
    assert str(tmp_path / "store/n/v2/manifest.json") in run("show", "n:v2", code=125).stderr


def test_the_traceback_comes_with_v(run):
    assert "Traceback" in run("-v", "show", "nope", code=125).stderr


def test_a_reader_that_has_had_enough_is_no_failure(run, data, tmp_path):
    run("add", "n", "data")
    out = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" graph | true', "-", *PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NEMOTRON_EXEC_STORE": str(tmp_path / "store")},
    )
    assert (out.returncode, out.stderr) == (0, "")


def test_output_that_no_terminal_should_obey_is_made_harmless(run, data, tmp_path):
    odd = data / "a\x1b[31mb"
    odd.mkdir()
    run("add", "n", str(odd))
    manifest = tmp_path / "store/n/v1/manifest.json"
    manifest.write_text(manifest.read_text().replace('"local"', '"\\ud800 \\u001b[31m"'))
    for words in (
        ["ls"],
        ["ls", "n"],
        ["show", "n"],
        ["graph"],
        ["graph", "--format", "dot"],
        ["graph", "-o", "x.html"],
    ):
        assert "\x1b" not in run(*words).stdout


def test_completion_offers_commands_names_versions_and_aliases(run, data, tmp_path):
    run("add", "team/blend", "data", "--alias", "good")

    def complete(line):
        env = {"_NEMOTRON_ARTIFACT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()))}
        if not line.endswith(" "):
            env["COMP_CWORD"] = str(len(line.split()) - 1)
        return [item.partition(",")[2] for item in run(env=env).stdout.splitlines()]

    assert {"add", "gc", "graph", "ls", "show", "verify"} <= set(complete("nemotron-artifact "))
    assert complete("nemotron-artifact show te") == ["team/blend"]
    assert complete("nemotron-artifact show team/blend:") == [
        "team/blend:latest",
        "team/blend:good",
        "team/blend:v1",
    ]


def test_bash_completes_options_then_the_command(run, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    probe = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
_nemotron_exec; printf '%s\\n' "${COMPREPLY[@]}"
"""

    def complete(*words):
        out = subprocess.run(
            ["bash", "-c", probe, "-", str(script), *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert not out.stderr
        return out.stdout.split()

    assert complete("nemotron-exec", "--dry") == ["--dry-run"]
    assert "--store" in complete("nemotron-exec", "--timeout", "5", "--s")
    assert "bash" in complete("nemotron-exec", "--dry-run", "bas")
    assert complete("nemotron-exec", "--", "bas") == complete("nemotron-exec", "bas")
    assert "completion.bash" in complete("nemotron-exec", "bash", "compl")
    for shell in ("zsh", "fish"):
        assert "nemotron-exec" in run("completion", shell).stdout


def test_help_lists_every_command_and_the_exit_codes(run):
    text = run("--help").stdout
    for word in ("add", "completion", "gc", "graph", "ls", "show", "verify", "Exit codes", "--store"):
        assert word in text
    documented = main.__doc__
    for code in ("0 done", "1 `verify`", "2 wrong usage", "75", "125", "130"):
        assert code in documented


def test_a_terminal_gets_a_table_that_fits(run, data, tmp_path):
    import pty

    run("add", "n", "data")
    leader, follower = pty.openpty()
    env = {**os.environ, "NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "COLUMNS": "60", "TERM": "xterm"}
    process = subprocess.Popen([*PROGRAM, "ls"], stdout=follower, env=env)
    os.close(follower)
    seen = read_all(leader)
    assert process.wait(60) == 0
    assert "ARTIFACT" in seen
    assert "\x1b[" in seen


def test_the_console_script_is_this(tmp_path):
    program = Path(sys.executable).parent / "nemotron-artifact"
    out = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("nemotron-artifact ")


def test_flush_sends_what_a_dead_job_left_and_exits_75_while_something_stays(run, data, tmp_path):
    from nemotron_exec.sitecustomize.payload.checkpoints import outbox

    entry = {
        "event": outbox.new_event(),
        "created_at": "2026-01-01T00:00:00+00:00",
        "store": str(tmp_path / "store"),
        "name": "pretrain",
        "type": "model",
        "path": str(data),
        "checkpoint_path": str(data),
        "local_path": str(data),
        "save_dir": str(data),
        "iteration": 20,
        "aliases": [],
        "latest": True,
        "gone": False,
        "metadata": {"iteration": 20},
        "used_artifacts": [],
        "producer": "local",
        "process": None,
        "wandb": None,
    }
    outbox.write(outbox.directory_of(str(data)), entry)
    assert as_json(run("flush", str(data), "--json")) == {
        "schema": "flush/1",
        "registered": 1,
        "sent": 0,
        "runs": 0,
        "hooks": 0,
        "kept": [],
    }
    assert read.read_version(tmp_path / "store", "pretrain").manifest["metadata"]["iteration"] == 20
    assert as_json(run("flush", str(data), "--json"))["registered"] == 0
    path = outbox.write(outbox.directory_of(str(data)), {**entry, "event": outbox.new_event(), "store": "nosuch://x"})
    out = run("flush", str(data), code=75)
    assert f"{path} stays: the manifest store did not take it" in out.stderr
    assert "is not there" in run("flush", "nowhere", code=125).stderr
    assert run("flush").stdout == ""


def test_ls_reads_the_newest_versions_and_says_how_many_there_are(run, tmp_path):
    for number in range(1, 104):
        version = tmp_path / f"store/big/v{number}"
        version.mkdir(parents=True)
        (version / "manifest.json").write_text('{"name": "big", "path": "s3://b/x"}')
    (tmp_path / "store/big/v1/manifest.json").write_text("damaged, and not read")
    done = run("ls", "big")
    assert len(done.stdout.splitlines()) == 101
    assert "big:v103" in done.stdout
    assert "big:v3 " not in done.stdout
    assert "the newest 100 of 103 versions; --limit 0 lists all" in done.stderr
    assert len(run("ls", "big", "--limit", "2").stdout.splitlines()) == 3
    assert "big:v1 " in run("ls", "big", "--limit", "0").stdout
    assert len(as_json(run("ls", "big", "--json"))["versions"]) == 103
    (line,) = [line for line in run("ls").stdout.splitlines() if line.startswith("big ")]
    assert line.split()[:3] == ["big", "v103", "103"]


def test_tab_in_an_interactive_bash_completes_names_with_versions(run, data, tmp_path):
    import pty
    import select
    import time

    run("add", "team/blend", "data", "--alias", "good")
    programs = os.path.dirname(sys.executable)
    env = {**os.environ, "NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "PS1": "ready> ", "TERM": "dumb"}
    env["PATH"] = programs + os.pathsep + env["PATH"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], env)
    seen = ""

    def until(text):
        nonlocal seen
        deadline = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode()
        seen = ""

    until("ready> ")
    os.write(terminal, b'eval "$(nemotron-artifact completion bash)"; echo is""set\n')
    until("isset")
    os.write(terminal, b"nemotron-artifact show te\t")
    until("team/blend ")
    os.write(terminal, b"\x7f:go\t")
    until(":good")
    os.write(terminal, b"\x15exit\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_a_table_says_which_columns_a_narrow_terminal_has_no_room_for(run, data, tmp_path, monkeypatch):
    import pty

    run("add", "a-name-of-some-length", "data", "--meta", "iteration=20", "--alias", "best", "--type", "checkpoint")
    (tmp_path / "data").rmdir()
    shown = {}
    for columns in (80, 200):
        leader, follower = pty.openpty()
        environ = {
            **os.environ,
            "COLUMNS": str(columns),
            "TERM": "xterm",
            "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
        }
        subprocess.run([*PROGRAM, "ls"], stdout=follower, env=environ, cwd=tmp_path, check=True)
        os.close(follower)
        shown[columns] = read_all(leader)
    assert re.search(r"left out at 80 columns: .*CREATED, ALSO", " ".join(shown[80].split()))
    assert "left out" not in shown[200]
    assert "\x1b[1;31mgone" in shown[200]
