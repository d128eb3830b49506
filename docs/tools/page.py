"""A page, or a part of one, that comes from the code: written, or compared with what stands there."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path


def write_or_compare(page: Path, text: str) -> int:
    """Write the page, or with `--check` on the command line print how it differs; returns the exit code."""
    if "--check" not in sys.argv[1:]:
        page.write_text(text, encoding="utf-8")
        return 0
    written = page.read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(written.splitlines(True), text.splitlines(True), "page", "code"))
    return int(written != text)
