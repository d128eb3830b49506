"""Checks the documents: commands run, README's excerpt is real output, the site builds, all messages are listed.

Blocks of `sh`, `bash` or `console` are run, all blocks of a page one after the other in one shell. Blocks with
`title="needs …"` (a GPU, a cluster, an engine) are only parsed by bash. `make TARGET` is only asked for its commands:
CI runs the targets themselves.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pages
from nemotron_exec.options import OPTIONS
from nemotron_exec.variables import VARIABLES

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PAGES = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
_BLOCK = re.compile(r"^```(sh|bash|console)\b([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def _blocks(page, *, needy):
    """The shell blocks of a page, as scripts; without transcripts, which also show output."""
    for language, info, text in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "console":
            lines = text.splitlines()
            if any(line and not line.startswith("$ ") for line in lines):
                continue
            text = "\n".join(line.removeprefix("$ ") for line in lines) + "\n"
        if ("needs" in info) is needy:
            yield text


def _with(pages, *, needy):
    return [page for page in pages if any(_blocks(page, needy=needy))]


@pytest.mark.parametrize("page", _with(PAGES, needy=True))
def test_commands_that_need_more_than_this_machine_are_valid_shell(page):
    for script in _blocks(page, needy=True):
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script


@pytest.mark.ci
@pytest.mark.parametrize("page", _with(PAGES, needy=False))
def test_the_commands_of_a_page_run(page, tmp_path):
    head = f'set -eo pipefail\nmake() {{ command make -n -C "{ROOT}" "$@" > /dev/null; }}\n'
    done = subprocess.run(
        ["bash"],
        input=head + "".join(_blocks(page, needy=False)),
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ci
def test_the_site_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    landing = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[2].split(" with ")[0] in landing  # the landing page is README
    from nemotron_exec import __version__

    assert f"Changes ({__version__})" in landing
    assert (tmp_path / "site/source/examples/slurm/pyxis.sbatch").exists()


def test_sentences_of_the_pages_are_short_and_name_their_subject():
    rest = {"errors", "reference", "json"}  # a program writes them
    pages = [
        page for page in PAGES if re.fullmatch(r"README\.md|docs/[\w-]+\.md", page) and Path(page).stem not in rest
    ]
    words = [sys.executable, "docs/tools/english.py", *pages]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(pages) >= 19


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("word " * 26 + ".", "26 words"),
        ("word " * 20 + "`a b c d e f g`.", None),
        ("| " + "word " * 40 + "|", None),
        ("Whoever starts it.", "Whoever"),
        ("```sh\n" + "word " * 40 + "\n```\n", None),
    ],
)
def test_a_long_sentence_and_a_word_without_a_name_are_found(text, fault):
    sys.path.insert(0, str(ROOT / "docs/tools"))
    from english import faults

    found = faults(text)
    assert bool(found) is bool(fault)
    assert fault is None or fault in found[0]


def test_links_between_the_documents_lead_somewhere():
    # `make bench` writes the files that benchmarks/README.md names.
    for page in [page for page in PAGES if not page.startswith("benchmarks")]:
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_every_message_says_what_was_wanted_what_was_found_and_what_to_do():
    assert pages.tool("catalogue").incomplete() == []


def test_the_list_of_messages_is_what_the_code_says():
    shown = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert pages.tool("catalogue").text() == shown, "run `make reference`"


def test_the_recipes_are_the_files_of_the_examples():
    done = subprocess.run([sys.executable, "docs/tools/recipes.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run `make reference`"
    shown = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    examples = subprocess.run(["git", "ls-files", "examples/*/*"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = [name for name in examples.stdout.split() if f"](../{name})" not in shown]
    assert missing == [], "an example of a launcher is no recipe yet"


def test_the_address_of_the_project_is_the_same_everywhere():
    from nemotron_exec import __url__

    for name in ("pyproject.toml", "mkdocs.yml"):
        found = set(re.findall(r"https://github\.com/[\w-]+/nemotron-exec", (ROOT / name).read_text(encoding="utf-8")))
        assert found == {__url__}, name


def test_the_table_of_packages_is_what_their_docstrings_say():
    done = subprocess.run(
        [sys.executable, "docs/tools/packages.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, "run `make reference`\n" + done.stdout


_SAYS = re.compile(
    r"(?<!class )\b(?:(?:Launch|Store|Temporary|Usage|UnknownArtifact|GivenUp)Error|Command\w+Error)\("
    r"|\b(?:notice|_?messages(?:\(\))?|Messages\(\))\.(?:info|warning|error)\("
    r"|\bStatus\(\w+, STOOD_DOWN"
)


def test_no_message_is_missing_from_the_list():
    """Search the source text for calls that look like messages, independently of the list: each must be listed."""
    listed = set(pages.tool("catalogue").sites())
    missing = []
    for source in ("entrypoint/nemotron_exec", "sitecustomize"):
        for path in (ROOT / source).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if name.startswith("entrypoint/nemotron_exec/sitecustomize/"):
                continue
            lines = path.read_text(encoding="utf-8").splitlines()
            missing += [
                f"{name}:{number}: {line.strip()}"
                for number, line in enumerate(lines, 1)
                if _SAYS.search(line.partition("  #")[0]) and f"{name}:{number}" not in listed
            ]
    assert missing == [], "docs/tools/catalogue.py does not find these"


NOT_OURS = {"train.py", "main.py", "x.py", "cfg.yaml", "config/default.yaml", "nemo_runspec/config/resolvers.py"}
PROSE = [page for page in PAGES if page not in ("docs/errors.md", "docs/reference.md")]


def _said(pattern):
    """(page, match) for all matches of a pattern in the pages."""
    return [(page, found) for page in PROSE for found in re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"))]


def test_what_the_pages_name_exists():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = {f"/{name}" for name in tracked}
    examples = re.findall(r'title="([^"]+)"', (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for page, name in _said(r"`([a-zA-Z_][\w./-]*\.(?:py|sh|md|yaml|lock|js|mk))(?::\w+)?`"):
        known = any(file.endswith(f"/{name}") for file in files) or name in examples or name in NOT_OURS
        assert known, f"{page} names {name}"
    targets = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for page, target in _said(r"(?:`|\$ |\n)make ([a-z][a-z-]+)"):
        assert f"\n{target} " in f"\n{targets}", f"{page} names make {target}"
    variables = {variable.name for variable in VARIABLES} | {option.variable for option in OPTIONS}
    for page, name in _said(r"\bNEMOTRON_EXEC_[A-Z][A-Z_]*\b"):
        assert name in variables, f"{page} names {name}"
    flags = {flag for option in OPTIONS for flag in option.flags}
    for page, flag in _said(r"nemotron-exec (--[a-z][a-z-]*)"):
        assert flag in flags | {"--version", "--help"}, f"{page} names {flag}"


def test_every_command_of_a_page_stands_in_a_block_that_is_run_or_read():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        # Leave fences out: a command over several lines is indented there, too.
        outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        indented = re.findall(
            r"^(?: {4}|\t)(?:\$ |python3? |make |pip |nemotron-|torchrun |srun |docker ).*", outside, re.M
        )
        assert indented == [], f"{page}: put it in a block of sh or console"
        fences = re.findall(r"^ *```(?:sh|bash|shell|console)\b", text, re.M)
        assert len(fences) == sum(1 for _ in _BLOCK.finditer(text)), f"{page}: a block in a list is not seen"


def test_the_benchmarks_example_of_a_row_runs():
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"bar": "at most 100 ms"' in done.stdout
