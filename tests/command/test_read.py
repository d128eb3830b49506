"""Step 1: launcher, program, configs and overrides, read from the words of a command."""

from __future__ import annotations

import os
import sys

import pytest

from nemotron_exec.command import read as commands
from nemotron_exec.command.override import parse_override
from nemotron_exec.command_scan import may_hold_something_of_ours

#    name: command, launcher, program, configs (index, prefix, path), overrides
TABLE = {
    "torchrun": ("torchrun --nproc-per-node 8 train.py cfg.yaml", "torchrun", "train.py", [(4, "", "cfg.yaml")], []),
    "torchrun, underscores and equals": (
        "torchrun --nproc_per_node=8 --standalone train.py cfg.yaml a.b=1",
        "torchrun",
        "train.py",
        [(4, "", "cfg.yaml")],
        ["a.b=1"],
    ),
    "torchrun -m": ("torchrun -m pkg.mod cfg.yaml", "torchrun", "pkg.mod", [(3, "", "cfg.yaml")], []),
    "torchrun by path": ("/opt/venv/bin/torchrun t.py cfg.yaml", "torchrun", "t.py", [(2, "", "cfg.yaml")], []),
    "python -m torch.distributed.run": (
        "python3 -u -m torch.distributed.run --nnodes 2 --node-rank 1 t.py cfg.yaml",
        "torchrun",
        "t.py",
        [(9, "", "cfg.yaml")],
        [],
    ),
    "torchrun --no-python": (
        "torchrun --no-python nemotron-exec python train.py cfg.yaml a=1",
        "torchrun",
        "train.py",
        [(5, "", "cfg.yaml")],
        ["a=1"],
    ),
    "ft_launcher's own config is not the training config": (
        "ft_launcher --ft-cfg-path ft.yaml --nnodes 4 t.py cfg.yaml",
        "ft_launcher",
        "t.py",
        [(6, "", "cfg.yaml")],
        [],
    ),
    "ft_launcher as a module": (
        "python -m nvidia_resiliency_ext.fault_tolerance.launcher --ft-x 1 t.py cfg.yaml",
        "ft_launcher",
        "t.py",
        [(6, "", "cfg.yaml")],
        [],
    ),
    "python script": ("python -W ignore train.py cfg.yaml", None, "train.py", [(4, "", "cfg.yaml")], []),
    "python -m pkg.mod": ("python3.11 -m pkg.mod cfg.yaml ~a.b", None, "pkg.mod", [(3, "", "cfg.yaml")], ["~a.b"]),
    "python -c": ("python -c code cfg.yaml", None, "code", [(3, "", "cfg.yaml")], []),
    "a script before a word that is called as an interpreter is": (
        "./job.sh a=1 python cfg.yaml x=1",
        None,
        "./job.sh",
        [(3, "", "cfg.yaml")],
        ["a=1", "x=1"],
    ),
    "shell script": ("bash run.sh cfg.yaml x=1", None, "bash", [(2, "", "cfg.yaml")], ["x=1"]),
    "any other program": ("./train cfg.yml", None, "./train", [(1, "", "cfg.yml")], []),
    "uv run": ("uv run run.py --config cfg.yaml +a=1", None, "uv", [(4, "", "cfg.yaml")], ["+a=1"]),
    "uv run python": ("uv run python -m m --config-file cfg.yaml", None, "m", [(6, "", "cfg.yaml")], []),
    "--config=F": ("python t.py --config=cfg.yaml", None, "t.py", [(2, "--config=", "cfg.yaml")], []),
    "two configs": ("t cfg.yaml --extra=cfg.yml", None, "t", [(1, "", "cfg.yaml"), (2, "--extra=", "cfg.yml")], []),
    "a missing file that no option calls a config": ("t out.yaml", None, "t", [], []),
    "a missing file that an option calls a config": ("t --config no.yaml", None, "t", [], []),
    "overrides of every form": (
        "python t.py cfg.yaml a.b=1 +c=2 ++d=3 ~e ~f=4 g/h@i=j lst.0=5 'k=[1,2]'",
        None,
        "t.py",
        [(2, "", "cfg.yaml")],
        ["a.b=1", "+c=2", "++d=3", "~e", "~f=4", "g/h@i=j", "lst.0=5", "k=[1,2]"],
    ),
    "no overrides": (
        "python t.py cfg.yaml --x=1 -y=2 ./a=b 1=2",
        None,
        "t.py",
        [(2, "", "cfg.yaml")],
        [],
    ),
    "an option's value is no override": ("python t.py --env A=b cfg.yaml", None, "t.py", [(4, "", "cfg.yaml")], []),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_reads_a_command(tmp_path, monkeypatch, row):
    import shlex

    monkeypatch.chdir(tmp_path)
    for name in ("cfg.yaml", "cfg.yml", "ft.yaml"):
        (tmp_path / name).write_text("run: {}\n")
    text, launcher, program, configs, overrides = row
    read = commands.read(shlex.split(text))
    assert (read.launcher and read.launcher.kind) == launcher
    assert read.argv[read.program] == program
    assert [(config.index, config.prefix, config.path) for config in read.configs] == configs
    assert [override.word for override in read.overrides] == overrides


def test_launcher_options_are_read_by_one_name():
    words = ["torchrun", "--nnodes=2", "--node_rank", "1", "--rdzv-id", "job", "-m", "--master-port=1", "pkg", "x.yaml"]
    assert commands.read(words).launcher.options == {
        "nnodes": "2",
        "node_rank": "1",
        "rdzv_id": "job",
        "module": "",
        "master_port": "1",
    }


HYDRA = {
    "path and name": ("python d/t.py --config-path conf --config-name big", 3, "", "d/conf/big.yaml", 3),
    "equals": ("python t.py --config-path=conf --config-name=big.yaml", 2, "--config-path=", "conf/big.yaml", 2),
    "short": ("python t.py -cp abs -cn big", 3, "", "abs/big.yaml", 3),
    "name alone": ("python d/t.py -cn big", 3, "big", "d/big.yaml", -1),
    "a name with a folder": ("python t.py -cp conf -cn exp/big", 3, "", "conf/exp/big.yaml", 3),
    "an absolute path": ("python t.py -cp {here}/conf -cn big", 3, "", "conf/big.yaml", 3),
    "an additional directory": ("python t.py -cd conf -cn big", 3, "", "conf/big.yaml", 3),
}


@pytest.mark.parametrize("row", HYDRA.values(), ids=HYDRA)
def test_finds_hydras_primary_config(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, index, prefix, path, hydra = row
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("run: {}\n")
    (config,) = commands.read(text.format(here=tmp_path).split()).configs
    assert (config.index, config.prefix, config.path, config.hydra) == (index, prefix, str(tmp_path / path), hydra)


def test_explicit_configs_are_the_only_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("run: {}\n")
    read = commands.read(["t", "a.yaml", "--cfg=b.conf"], ["b.conf", "hard-coded.yaml"])
    assert [(config.index, config.prefix, config.path) for config in read.configs] == [
        (2, "--cfg=", "b.conf"),
        (-1, "", "hard-coded.yaml"),
    ]


SCAN = {
    b"path: ${art:data,path}": True,
    b"path: ${ art : data }": True,
    b"path: ${oc.select:${run.x}}\nart: 1": True,
    b"run:\n  data: x": True,
    b'"run" : {a: b}': True,
    b"{run: {a: b}}": True,
    b"? run\n: {a: b}": True,
    b"defaults: base.yaml": True,
    "run: ü".encode("utf-16"): True,
    b"lr: 0.1\ntruncate: true": False,
    b"running: 1": False,
    b"a: ${b}": False,
    b"": False,
}


@pytest.mark.parametrize(("data", "expected"), SCAN.items())
def test_the_byte_test_sees_what_may_be_ours(data, expected):
    assert may_hold_something_of_ours(data) is expected


OVERRIDES = {
    "a=1": ("", "a", ("a",), "1"),
    "a.b[0].c=": ("", "a.b[0].c", ("a", "b", "0", "c"), ""),
    "+run.data=x:v1": ("+", "run.data", ("run", "data"), "x:v1"),
    "++a=b=c": ("++", "a", ("a",), "b=c"),
    "~a.b": ("~", "a.b", ("a", "b"), None),
    "~a=1": ("~", "a", ("a",), "1"),
    "g/h@i.j=k": ("", "g/h", ("i", "j"), "k"),
    "g@from:to=k": ("", "g", ("to",), "k"),
    "k=first\nsecond": ("", "k", ("k",), "first\nsecond"),
    "run.py": None,
    "+run.x": None,
    "1=2": None,
    "--a=1": None,
    "./a=b": None,
    "a b=1": None,
    "": None,
}


@pytest.mark.parametrize(("word", "expected"), OVERRIDES.items())
def test_a_word_is_an_override_or_it_is_not(word, expected):
    found = parse_override(3, word)
    assert (found and (found.sign, found.group, found.path, found.text)) == expected


@pytest.mark.parametrize(
    "command",
    [
        "{python} run.py",
        "{python} -m run.x",
        "{python} train.py run.txt",
        "bash run.sh run.log",
        "sh -c true run.x",
        "torchrun --nproc-per-node 1 run.py",
    ],
)
def test_a_file_that_is_called_run_is_no_override(nemotron_exec, tmp_path, monkeypatch, command):
    (tmp_path / "run").mkdir()
    for name in ("run.py", "run/__init__.py", "run/x.py", "train.py", "run.txt"):
        (tmp_path / name).write_text("print('RAN')\n" if not name.endswith("__.py") else "")
    (tmp_path / "run.sh").write_text("echo RAN\n")
    (tmp_path / "torchrun").write_text("#!/bin/sh\nshift 2\nexec python3 $*\n")
    (tmp_path / "torchrun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    # With a variable of nemotron-exec the parser runs, also for a command that does not need it.
    for env in ({}, {"NEMOTRON_EXEC_QUIET": "1"}):
        done = nemotron_exec(*command.format(python=sys.executable).split(), env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == ("" if command.startswith("sh") else "RAN\n")


def test_an_override_of_run_without_a_config_is_an_error(nemotron_exec):
    done = nemotron_exec(sys.executable, "run.py", "run.data=blend:v1")
    assert done.returncode == 125
    assert "run.data=blend:v1" in done.stderr
