"""Mistyped interpolations of an artifact: `$art:data`, `{art:data}`, `${art.data.path}`, `${artifact:data}`."""

from __future__ import annotations

import re

from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.paths.absolute import working_directory

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["near_misses"]

_NEAR = pattern(
    r"(?<![\\\w$])(?P<open>\$\{\{|\{\{|\$\{|\$\(|\$\[|%\{|\{|\$|<)\s*(?P<name>arts?|artifacts?|artefacts?)"
    r"(?P<colon>\s*[:.,;=/|]\s*|\s+|-|[{(\[]\s*)(?P<rest>[\w\-]+(?:\s*[,.:;/]\s*[\w\-]+)*)(?P<close>\s*[\])}>]*)",
    re.IGNORECASE,
)
_NAKED = pattern(r"^(?:.*?[:=]\s*|\s*-\s+)?(?P<quote>[\"']?)(?P<all>art:(?P<rest>[\w-]+(?:,\s*[\w.]+)?))(?P=quote)\s*$")
_RIGHT = pattern(r"\$\{\s*art\s*:")


def near_misses(files: Sequence[tuple[str, str]], sections: str = "", *, sure: bool) -> Iterator[str]:
    """A warning for each mistyped interpolation, with the right spelling.

    Args:
        files: Paths and texts that the program reads together; the path is empty for a word of the command.
        sections: A further text. A section of it, or of the files, that has the name used is no mistake.
        sure: Whether the files are written for nemotron-exec. A template of another program may have `{{ artifact.name
            }}`.
    """
    known = "\n".join([sections, *(text for _, text in files)])
    here = working_directory() + "/"
    for path, text in files:
        # In a file `#` after a blank begins a comment. In a word of the command both are part of the word.
        shown = path.removeprefix(here)
        yield from _near(shown, [_without_comment(line) for line in text.splitlines()] if path else [text], known, sure)


def _without_comment(line: str) -> str:
    return "" if line.lstrip().startswith("#") else line.partition(" #")[0]


def _near(path: str, lines: Sequence[str], known: str, sure: bool) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "art" not in line.lower():
            continue
        place = f"{path}:{number}" if path else "the command"
        for match in _NEAR.finditer(line):
            before, name, colon = match["open"], match["name"], match["colon"]
            if _RIGHT.match(match.group()):
                if not path and "}" not in line[match.start() :]:
                    yield _spelled(match.group().strip(), place, match["rest"])
                continue
            if colon.strip() in ("-", "{", "(", "[") and (
                name.lower() != "art" or before != ("${" if colon == "-" else "$")
            ):
                continue
            if before == "{" and colon.endswith(" "):
                continue  # a mapping with the key `art`
            if before in ("$", "<") and not colon.strip():
                continue
            if before in ("${", "$") and re.search(rf"(?m)^[ {{]*[\"']?{name}[\"']?\s*:", known):
                continue  # the name is a section of the config
            if not sure and not _is_sure(before, name, colon.strip()):
                continue
            yield _spelled(match.group().strip(), place, match["rest"])
        if sure and (naked := _NAKED.match(line)):
            yield _spelled(naked["all"], place, naked["rest"])


def _is_sure(before: str, name: str, colon: str) -> bool:
    """Whether a mistyped interpolation can mean nothing else, in a file that has nothing else for nemotron-exec."""
    if colon == ":":
        return before not in ("<", "$[") or name.lower() == "art"
    return before == "${" and name.lower() == "art" and colon in (".", ",", ";")


def _spelled(found: str, place: str, rest: str) -> str:
    key, _, field = re.sub(r"\s*[,.:;/]\s*", ",", rest).partition(",")
    right = f"${{art:{key},{field.replace(',', '.')}}}" if field else f"${{art:{key},path}}"
    return f"{found} of {place} is no artifact: write {right}, on a command line in single quotes"
