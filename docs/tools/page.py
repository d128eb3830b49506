"""Writes a page that is generated from the code, or compares it with the file."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path


def write_or_compare(page: Path, text: str) -> int:
    """Write the page; with `--check` on the command line, print its difference instead. Returns the exit code."""
    if "--check" not in sys.argv[1:]:
        page.write_text(text, encoding="utf-8")
        return 0
    written = page.read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(written.splitlines(True), text.splitlines(True), "page", "code"))
    return int(written != text)
