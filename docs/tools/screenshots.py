"""Draw the programs' output on a terminal, and the lineage page: python docs/tools/screenshots.py [DEMO]

Runs the programs on a pseudo-terminal, 80 and 128 columns wide, and has rich write their output as SVG. DEMO is the
directory of `make demo` with its output in DEMO/output.txt. With DEMO, the recording of the demo is drawn, too, and
Chromium takes a picture of its lineage.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

import nemotron_exec

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "docs/assets"
# The first width is readable in a column of 690 pixels, and on a phone.
WIDTHS = {"": 80, "-wide": 128}
_SOURCE = os.path.dirname(os.path.realpath(nemotron_exec.__file__))
CONFIG = """\
run:
  data: my-blend:latest          # an artifact

data:
  path: ${art:data,path}/blend.json
  seq_length: ${art:data,pack_size}
"""


def main() -> None:
    """Write docs/assets/*.svg, and lineage.png."""
    ASSETS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as home:
        _commands(Path(work), home)
    if sys.argv[1:]:
        demo = Path(sys.argv[1]).resolve()
        text = (demo / "output.txt").read_text(encoding="utf-8").replace(str(demo), "/tmp/demo")
        _record("demo", text, 100)
        _lineage(demo)


def _commands(work: Path, home: str) -> None:
    environ = {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"]),
        "HOME": home,
        "TMPDIR": home,
        "TERM": "xterm-256color",
        "NEMOTRON_EXEC_STORE": str(work / "artifacts"),
        "NEMOTRON_EXEC_STATE_DIR": str(work / "state"),
        "NEMOTRON_EXEC_JOB_ID": "pretrain-7",
    }
    for name in ("blend", "state"):
        (work / name).mkdir()
    (work / "cfg.yaml").write_text(CONFIG)
    (work / "train.py").write_text("import sys\nprint(open(sys.argv[1]).read())\n")
    add = ["nemotron-artifact", "add", "my-blend", "blend", "--meta", "pack_size=4096"]
    subprocess.run(add, cwd=work, env=environ, check=True, capture_output=True)
    stand_ins = ((str(work), "/data"), (home, "/tmp"), (sys.prefix, "/venv"), (_SOURCE, "/venv/nemotron_exec"))
    for name, words in {
        "dry-run": ["nemotron-exec", "--dry-run", "python3", "train.py", "cfg.yaml"],
        "doctor": ["nemotron-exec", "--doctor", "python3", "train.py", "cfg.yaml"],
        "help": ["nemotron-exec", "--help"],
        "show": ["nemotron-artifact", "show", "my-blend"],
    }.items():
        for suffix, columns in WIDTHS.items():
            shown = _run(words, work, environ, columns)
            # Replace paths that differ between machines.
            for path, stand_in in stand_ins:
                shown = shown.replace(path, stand_in)
            _draw(name + suffix, f"$ {' '.join(words)}", shown, columns)


def _run(words: list[str], work: Path, environ: dict[str, str], columns: int) -> str:
    """The output of a program on a terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    process = subprocess.Popen(words, cwd=work, env=environ, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:  # EIO: the last writer has closed the terminal
            break
        if not data:
            break
        shown += data
    os.close(leader)
    if process.wait():
        sys.exit(f"{' '.join(words)}: exit code {process.returncode}\n{shown.decode()}")
    return shown.decode().replace("\r\n", "\n")


def _draw(name: str, title: str, shown: str, columns: int) -> None:
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text(title, style="bold"))
    console.print(Text.from_ansi(shown))
    _write(name, console.export_svg(title="nemotron-exec", unique_id=name))


def _record(name: str, shown: str, columns: int) -> None:
    """Draw a recording: each line appears after the previous one, and a command after a pause."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    lines = [line for line in shown.splitlines() if not re.match(r"\s*\d*W\d{4} |W\d{4}", line)]
    for index, line in enumerate(lines):
        # Shorten the long name of a config's file in the state directory.
        short = re.sub(r"/\S*/files\.\d+\.\w+/", "/tmp/…/", line)
        lines[index] = short if len(short) <= columns else short[: columns - 1] + "…"
        console.print(Text(lines[index], style="bold" if line.startswith("$ ") else ""))
    drawn = console.export_svg(title="make demo", unique_id=name)
    delays, now = [], 0.0
    for line in lines:
        now += 1.2 if line.startswith("$ ") else 0.15
        delays.append(now)

    def appear(match: re.Match[str]) -> str:
        delay = delays[min(int(match[1]), len(delays) - 1)]
        return f'{match[0]} style="animation: appear 0.1s steps(1) {delay:.1f}s both"'

    drawn = re.sub(r'clip-path="url\(#demo-line-(\d+)\)"', appear, drawn)
    drawn = drawn.replace("<style>", "<style>\n    @keyframes appear { from { opacity: 0 } to { opacity: 1 } }", 1)
    _write(name, drawn)


def _write(name: str, drawn: str) -> None:
    # Drop rich's fonts, which would come from a server: the reader's own font is used.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    lines = (line.rstrip() for line in drawn.splitlines())
    (ASSETS / f"{name}.svg").write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")


def _lineage(demo: Path) -> None:
    """Take a picture of the demo's lineage page in Chromium, with the last model selected."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("install chromium")
    with tempfile.TemporaryDirectory() as work:
        page = Path(work) / "lineage.html"
        graph = ["nemotron-artifact", "graph", "-o", str(page), "--store", str(demo / "artifacts")]
        subprocess.run([os.path.join(os.path.dirname(sys.executable), graph[0]), *graph[1:]], check=True)
        shown = (
            page.read_text(encoding="utf-8").replace(str(demo), "/tmp/demo").replace(str(ROOT), "/src/nemotron-exec")
        )
        page.write_text(shown, encoding="utf-8")
        # Only the page's data are changed, so the script's hash in its policy stays valid.
        for name, size in (("lineage", "1100,560"), ("lineage-phone", "500,900")):
            words = [chromium, "--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={size}"]
            picture = f"--screenshot={ASSETS / name}.png"
            subprocess.run([*words, picture, f"{page.as_uri()}#sft:v1"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
