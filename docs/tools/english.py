"""List sentences of pages that are over 25 words, and words that say no name: python docs/tools/english.py [PAGE…]

Code, tables, headings, quotations and comments of a page are left out. Exits with 1 where something is listed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 25
# These pages are written by a program, or are a log of what was tried.
ELSEWHERE = {"docs/errors.md", "docs/reference.md", "docs/json.md", "CHANGELOG.md"}
_WORDS = re.compile(r"\b(ours|theirs|us|whoever|one that|what is)\b", re.IGNORECASE)
_LEFT_OUT = re.compile(r"^ *```.*?^ *```$|<!--.*?-->|^#.*?$|^\|.*?$|^>.*?$|^!\[.*?$|^---$", re.DOTALL | re.MULTILINE)
_ITEM = re.compile(r"^ *(?:[*-]|\d+\.) ", re.MULTILINE)
_END = re.compile(r"(?<=[.?!·])(?:\*\*|[)\"])*\s+")


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose, and the links of a line that `·` separates. Code counts as one word."""
    text = _ITEM.sub("\n\n", _LEFT_OUT.sub("\n\n", text))
    text = re.sub(r"``.+?``|`[^`]*`", "CODE", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r'"[^"]*"', "QUOTE", text)
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        found += [" ".join(part.split()) for part in _END.split(paragraph) if part.strip()]
    return found


def faults(text: str) -> list[str]:
    """What a reader would stumble over, one line each."""
    found = []
    for sentence in sentences(text):
        words = len([word for word in sentence.split() if re.search(r"\w", word)])
        if words > LONGEST:
            found.append(f"{words} words: {sentence}")
        found += [f"{word!r}: {sentence}" for word in _WORDS.findall(sentence)]
    return found


def main(names: list[str]) -> int:
    """Print the faults of the pages."""
    listed = subprocess.run(
        ["git", "ls-files", "README.md", "docs/*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    count = 0
    for name in names or [name for name in listed.stdout.split() if name not in ELSEWHERE]:
        for fault in faults((ROOT / name).read_text(encoding="utf-8")):
            print(f"{name}: {fault}")
            count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
