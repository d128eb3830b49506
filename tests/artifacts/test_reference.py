"""docs/reference.md says what the code does: every option and every variable, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys

from nemotron_exec.options import OPTIONS
from nemotron_exec.variables import VARIABLES
from places import ROOT

NAME = re.compile(r"\bNEMOTRON_EXEC_[A-Z][A-Z0-9_]*\b")


def test_the_page_is_what_the_code_says():
    check = [sys.executable, "docs/tools/reference.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make reference`:\n{done.stdout}{done.stderr}"


def test_every_variable_of_the_code_is_in_a_table():
    listed = {variable.name for variable in VARIABLES} | {option.variable for option in OPTIONS}
    named = set()
    table = ROOT / "entrypoint/nemotron_exec/variables.py"
    for directory in ("entrypoint", "sitecustomize", "docker"):
        for path in (ROOT / directory).rglob("*"):
            if path.is_file() and path != table and path.suffix in (".py", ".sh", ""):
                named.update(NAME.findall(path.read_text(encoding="utf-8", errors="replace")))
    assert named - listed == set(), "add them to nemotron_exec/variables.py"
    assert {variable.name for variable in VARIABLES} - named == set(), "nothing reads these"
