"""The options of torchrun and its look-alikes, and the program that they start."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.command.shell_text import Inner, commands, directory_of_arguments, text_of
from nemotron_exec.command.torchrun import find_program

#  command: kind of the launcher, its options, index of the program
PROGRAMS = {
    "torchrun t.py x": ("torchrun", {}, 1),
    "torchrun --nnodes 2 t.py": ("torchrun", {"nnodes": "2"}, 3),
    "torchrun --nnodes=2 t.py": ("torchrun", {"nnodes": "2"}, 2),
    "torchrun -m pkg x": ("torchrun", {"module": ""}, 2),
    "torchrun -r 3 -t 2 t.py": ("torchrun", {"redirects": "3", "tee": "2"}, 5),
    "torchrun -h t.py": ("torchrun", {"help": ""}, 2),
    "torchrun --standalone -- t.py --x": ("torchrun", {"standalone": ""}, 3),
    "torchrun --nnodes -- t.py": ("torchrun", {"nnodes": ""}, 3),
    "torchrun --a 1 -- --b 2": ("torchrun", {"a": "1"}, 4),
    "torchrun --a -1 t.py": ("torchrun", {"a": "-1"}, 3),
    "torchrun --a -1.5 t.py": ("torchrun", {"a": "-1.5"}, 3),
    "torchrun --a -1.5.2 t.py": ("torchrun", {"a": "", "1.5.2": "t.py"}, 4),
    "torchrun --a - t.py": ("torchrun", {"a": "-"}, 3),
    "torchrun - t.py": ("torchrun", {}, 1),
    "torchrun --a --b c t.py": ("torchrun", {"a": "", "b": "c"}, 4),
    "torchrun --new there.py x": ("torchrun", {"new": ""}, 2),
    "torchrun --new gone.py x": ("torchrun", {"new": "gone.py"}, 3),
    "torchrun --new": ("torchrun", {"new": ""}, 3),
    "torchrun": ("torchrun", {}, 1),
    "torchrun --no-python": ("torchrun", {"no_python": ""}, 2),
    "torchrun --no-python prog x": ("torchrun", {"no_python": ""}, 2),
    "torchrun --no_python python -u t.py": ("torchrun", {"no_python": ""}, 4),
    "torchrun --no-python torchrun --standalone t.py": ("torchrun", {"no_python": ""}, 4),
    "ft_launcher --ft-x 1 t.py": ("ft_launcher", {"ft_x": "1"}, 3),
    "/a/torchrun t.py": ("torchrun", {}, 1),
    "env A=1 torchrun t.py": ("torchrun", {}, 3),
    "python -m torch.distributed.run t.py": ("torchrun", {}, 3),
    "python -mtorch.distributed.launch t.py": ("torchrun", {}, 2),
    "python -m nvidia_resiliency_ext.fault_tolerance.launcher t.py": ("ft_launcher", {}, 3),
    "python -m pkg t.py": (None, {}, 2),
    "python -mpkg t.py": (None, {}, 1),
    "python -um pkg x": (None, {}, 2),
    "python -m": (None, {}, 2),
    "python -m a": (None, {}, 2),
    "python -m torch.distributed.run": ("torchrun", {}, 3),
    "python -c code x": (None, {}, 2),
    "python -Ic code x": (None, {}, 2),
    "python -u -W ignore -X dev t.py": (None, {}, 6),
    "python --check-hash-based-pycs never t.py": (None, {}, 3),
    "python3.11 t.py": (None, {}, 1),
    "pypy3 t.py": (None, {}, 1),
    "python": (None, {}, 1),
    "pythonx t.py": (None, {}, 0),
    "prog x torchrun": ("torchrun", {}, 3),
    "prog a.py torchrun": (None, {}, 0),
    "prog a.yaml torchrun": (None, {}, 0),
    "run.sh torchrun t.py": ("torchrun", {}, 2),
    "run.sh python t.py": (None, {}, 2),
    "run.sh x torchrun t.py": (None, {}, 0),
    "run.sh": (None, {}, 0),
}


@pytest.mark.parametrize("command", PROGRAMS)
def test_the_launcher_and_the_program(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("")
    launcher, program = find_program(tuple(shlex.split(command)))
    kind, options, index = PROGRAMS[command]
    assert (launcher and launcher.kind, launcher.options if launcher else {}, program) == (kind, options, index)


TEXTS = {
    "bash -c X": "X",
    "bash -lc X y": "X",
    "/bin/sh -e -c X": "X",
    "sh +x -c X": "X",
    "env A=1 zsh -c X": "X",
    "bash --norc -c X": "X",
    "bash --exec X": None,
    "bash --c X": None,
    "bash run.sh -c X": None,
    "bash -c": None,
    "bash": None,
    "python -c X": None,
    "bash run.sh sh -c X": "X",
}


@pytest.mark.parametrize("command", TEXTS)
def test_the_text_of_a_shell(command):
    assert text_of(shlex.split(command)) == TEXTS[command]


#  text: its commands, each with its directory
COMMANDS = {
    "a b": [("", "a b")],
    "a; b && c || d | e & f": [("", word) for word in "abcdef"],
    "(a); { b; }": [("", "a"), ("", "b"), ("", "}")],
    "a \\\n b\nc": [("", "a b"), ("", "c")],
    "cd x && a; cd y; b": [("x", "a"), ("x/y", "b")],
    "cd -P x && a": [("x", "a")],
    "pushd x 2>/dev/null; a": [("x", "/dev/null"), ("x", "a")],
    "cd /x; a": [("/x", "a")],
    "a; cd; b": [("", "a")],
    "a; cd $X; b": [("", "a")],
    "a; cd `x`; b": [("", "a")],
    "a; cd x*; b": [("", "a")],
    "a; cd x?; b": [("", "a")],
    "a; cd ~/x; b": [("", "a")],
    "if a; then time b; else ! c; fi": [("", "a"), ("", "b"), ("", "c"), ("", "fi")],
    "nemotron-exec a; /x/nemotron-exec b; c": [("", "c")],
    "'a b' \"c d\"": [("", "a b|c d")],
    "a 'b": [],
    "": [],
    "if": [],
}


@pytest.mark.parametrize("text", COMMANDS)
def test_the_commands_of_a_text(text):
    expected = [
        Inner(directory, tuple(words.split("|") if "|" in words else words.split()))
        for directory, words in COMMANDS[text]
    ]
    assert commands(["bash", "-c", text]) == expected
    below = [Inner(f"/d/{one.directory}" if one.directory else "/d", one.words) for one in expected]
    if all(not one.directory.startswith("/") for one in expected):
        assert commands(["bash", "-c", text], "/d") == below
    assert commands(["python", "-c", text]) == []


#  command: where its text starts its arguments; None where nothing is said
ARGUMENTS = {
    """sh -c 'cd x && exec "$@"' _ a""": "x",
    """sh -c 'cd x && "$1" b' _ a""": "x",
    """sh -c 'cd x && ${@}' _ a""": "x",
    """sh -c 'cd x && ${1}' _ a""": "x",
    """sh -c 'cd x && $0 "$@"' a""": "x",
    """sh -c 'cd x && ${@:1}' _ a""": "x",
    """sh -c 'cd x && $*' a""": "x",
    """sh -c 'exec "$@"' _ a""": None,
    """sh -c 'cd x && b' _ a""": None,
    """sh -c 'cd $X && exec "$@"' _ a""": "",
    """sh -c 'pushd $X && exec "$@"' _ a""": "",
    """sh -c 'run "$X" "a$@"' _ a""": None,
    """prog -c 'cd x && exec "$@"' _ a""": None,
    "sh run.sh a": "y",
    "sh -e run.sh a": "y",
    "run.sh a": "y",
    "sh gone.sh a": None,
    "sh run.txt a": None,
    "sh": None,
}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_where_a_text_starts_its_arguments(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("run.sh", "run.txt"):
        (tmp_path / name).write_text('cd y\nexec "$@"\n')
    assert directory_of_arguments(shlex.split(command)) == ARGUMENTS[command]
