"""Draw what --dry-run and --doctor print on a terminal: python docs/tools/screenshots.py (make screenshots)

Runs both for real, in a scratch directory, and has rich write what they print as SVG.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

import nemotron_exec

ASSETS = Path(__file__).resolve().parent.parent / "assets"
COLUMNS = 128
_SOURCE = os.path.dirname(os.path.realpath(nemotron_exec.__file__))
CONFIG = """\
run:
  data: my-blend:latest          # an artifact

data:
  path: ${art:data,path}/blend.json
  seq_length: ${art:data,pack_size}
"""


def main() -> None:
    """Write docs/assets/{dry-run,doctor}.svg."""
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as home:
        _draw(Path(work), home)


def _draw(work: Path, home: str) -> None:
    environ = {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"]),
        "HOME": home,
        "TMPDIR": home,
        "FORCE_COLOR": "1",
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        "NEMOTRON_EXEC_STORE": str(work / "artifacts"),
        "NEMOTRON_EXEC_STATE_DIR": str(work / "state"),
        "NEMOTRON_EXEC_JOB_ID": "pretrain-7",
    }
    for name in ("blend", "state"):
        (work / name).mkdir()
    (work / "cfg.yaml").write_text(CONFIG)
    (work / "train.py").write_text("import sys\nprint(open(sys.argv[1]).read())\n")
    _run(["nemotron-artifact", "add", "my-blend", "blend", "--meta", "pack_size=4096"], work, environ)
    for name in ("dry-run", "doctor"):
        words = ["nemotron-exec", f"--{name}", "python3", "train.py", "cfg.yaml"]
        shown = _run(words, work, environ)
        # What differs from one machine to the next, and is of no interest.
        for path, stand_in in (
            (str(work), "/data"),
            (home, "/tmp"),
            (sys.prefix, "/venv"),
            (_SOURCE, "/venv/nemotron_exec"),
        ):
            shown = shown.replace(path, stand_in)
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        console.print(Text(f"$ {' '.join(words)}", style="bold"))
        console.print(Text.from_ansi(shown))
        ASSETS.mkdir(exist_ok=True)
        drawn = console.export_svg(title="nemotron-exec", unique_id=name)
        # rich has the font fetched from a server; the reader's own will do.
        drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
        lines = (line.rstrip() for line in drawn.splitlines())
        (ASSETS / f"{name}.svg").write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")


def _run(words: list[str], work: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(words, cwd=work, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
