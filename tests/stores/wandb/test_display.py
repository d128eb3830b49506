"""The display of downloads."""

from __future__ import annotations

import io
import json
import pty
import re

import pytest

from nemotron_exec.message import Messages
from nemotron_exec.stores.wandb.display import TransferDisplay
from terminals import read_all


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def show(stream: io.StringIO, *, threshold: str = "info", log_format: str = "text") -> None:
    """Show two downloads: a small one at once, and a large one over twelve seconds."""
    clock = Clock()
    messages = Messages(threshold, log_format, stream)  # type: ignore[arg-type]
    display = TransferDisplay(messages, terminal=False, clock=clock)
    display.update("large:v3", 0, 12_000_000)
    for second in range(1, 13):
        clock.now = float(second)
        if second == 2:
            display.update("small:v0", 0, 1000)
            display.update("small:v0", 1000, 1000)
        display.update("large:v3", second * 1_000_000, 12_000_000)
    display.close()


def test_a_line_every_few_seconds_with_bytes_and_rate() -> None:
    stream = io.StringIO()
    show(stream)
    assert stream.getvalue().splitlines() == [
        "nemotron-exec: downloaded small:v0: 1.0 kB in 0.0 s (1.0 MB/s)",
        "nemotron-exec: downloading large:v3 5.0 MB of 12.0 MB (1.0 MB/s)",
        "nemotron-exec: downloading large:v3 10.0 MB of 12.0 MB (1.0 MB/s)",
        "nemotron-exec: downloaded large:v3: 12.0 MB in 12.0 s (1.0 MB/s)",
    ]


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    show(stream, threshold="warning")
    assert stream.getvalue() == ""


def test_json_lines_carry_the_figures() -> None:
    stream = io.StringIO()
    show(stream, log_format="json")
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["level"], last["bytes"], last["seconds"]) == ("info", 12_000_000, 12.0)


@pytest.mark.parametrize("threshold", ["info", "warning"])
def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, threshold: str) -> None:
    leader, follower = pty.openpty()
    with open(follower, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        clock = Clock()
        display = TransferDisplay(Messages(threshold), clock=clock)
        for step in range(4):
            clock.now = float(step)
            display.update("large:v3", step * 4_000_000, 12_000_000)
        display.close()
    shown = read_all(leader)
    if threshold == "warning":
        assert shown == ""
    else:
        assert "large:v3" in shown
        assert "12.0 MB of 12.0 MB" in shown
        assert "nemotron-exec: downloaded" not in shown


def test_on_80_columns_a_download_is_one_line_its_name_cut_from_the_left_and_nothing_is_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rich.ansi import AnsiDecoder

    leader, follower = pty.openpty()
    with open(follower, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "80")
        clock = Clock()
        display = TransferDisplay(Messages("info"), clock=clock)
        for step in range(4):
            clock.now = float(step)
            display.update("an-entity/a-project/a-name-of-some-length:v123", step * 10**11, 9 * 10**11)
        display.close()
    shown = read_all(leader)
    # Split the output where the cursor goes back, to find the last drawn lines.
    drawn = re.split(r"\r|\x1b\[\d*A|\x1b\[2K", shown)
    lines = [line.plain.rstrip() for text in drawn for line in AnsiDecoder().decode(text) if line.plain.strip()]
    assert all(len(line) <= 80 and line.startswith("nemotron-exec: …") for line in lines), lines
    assert ":v123 " in lines[-1]
    assert "300.0 GB of 900.0 GB (" in lines[-1]
    assert not re.search(r"\x1b\[(?:\d+;)*(?:31|91|38;5;1|38;2;249;38;114)m\d", shown)
