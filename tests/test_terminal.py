"""A terminal gets colour on error and warning, and lines that wrap under their beginning. A file gets neither."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from nemotron_exec.artifact_cli.lineage_graph import Graph, Node, to_text
from nemotron_exec.terminal import wrapped
from terminals import read_all


def on_terminal(columns, *words, **environ):
    """The launcher's output on stderr, which is a terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**os.environ, "NO_COLOR": "", "TERM": "xterm-256color", **environ}
    subprocess.run([sys.executable, "-m", "nemotron_exec", *words], stderr=follower, env=environ, check=False)
    os.close(follower)
    return read_all(leader).replace("\r\n", "\n")


def test_an_error_is_red_and_wraps_with_an_indent_on_a_terminal_of_80_columns():
    shown = on_terminal(80, "no-such-program-anywhere")
    assert "\x1b[1;31merror:\x1b[0m start" in shown
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("  ")
    assert not lines[1].startswith("   ")


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colour_gets_none(environ):
    assert "\x1b" not in on_terminal(80, "no-such-program-anywhere", **environ)


def test_a_wide_terminal_has_the_message_on_one_line():
    assert len(on_terminal(240, "no-such-program-anywhere").splitlines()) == 1


def test_a_path_stays_whole():
    path = "/a/path/of/more/than/forty/characters/in/all/of/its/parts"
    assert path in wrapped(f"to read {path}: no such file", 50, "  ").splitlines()[1]


def test_the_connectors_of_the_tree_go_on_beside_lines_that_wrap():
    long = "/a/directory/" + "x" * 90
    names = ["m:v1", "d:v1", "e:v1", "f:v1"]
    nodes = {name: Node(name, type="model", path=long) for name in names}
    drawn = to_text(Graph(nodes, {"m:v1": ("d:v1", "e:v1"), "d:v1": ("f:v1",)}), "m:v1", 60).splitlines()
    assert max(map(len, drawn)) <= 60
    assert long in "".join(line.lstrip("│├└─ ") for line in drawn)
    below = drawn.index(next(line for line in drawn if line.startswith("└─ e:v1")))
    # Between the first line and the last branch every line has its connector.
    assert all(line[0] in "│├" for line in drawn[1:below])
    assert to_text(Graph(nodes, {}), "m:v1").splitlines()[0].endswith(long)
