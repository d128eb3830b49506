"""CONTRIBUTING.md: applies its worked examples to a copy of the tree, and runs the hooks for each commit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from places import ROOT

_BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_EXAMPLE = re.compile(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
_RULE = re.compile(r"^\t\$\(BIN\)/python (docs/tools/(?:reference|catalogue)\.py)$", re.MULTILINE)
# Tests that a change may break beside its own test: tables that must agree, and pages that are written from them.
HELD = (
    "tests/artifacts/test_reference.py",
    "tests/test_docs.py::test_every_message_says_what_was_wanted_what_was_found_and_what_to_do",
    "tests/test_docs.py::test_the_list_of_messages_is_what_the_code_says",
    "tests/test_docs.py::test_no_message_is_missing_from_the_list",
    "tests/doctor/test_doctor.py::test_the_table_of_patches_is_that_of_the_injector",
)
EXAMPLES = dict(_EXAMPLE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


def test_there_is_an_example_of_each_kind():
    assert list(EXAMPLES) == ["A store", "A launcher", "A patch"]


@pytest.mark.ci
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_works(tmp_path, name):
    tree = tmp_path / "tree"
    for part in ("entrypoint", "sitecustomize", "tests", "docs", "docker", "pyproject.toml", "ARCHITECTURE.md"):
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        # Copy the package's link to sitecustomize/ as a link.
        copy(source, tree / part, **({"symlinks": True} if source.is_dir() else {"follow_symlinks": True}))
    tests = []
    for language, file, text in _BLOCK.findall(EXAMPLES[name]):
        path = tree / file
        if language == "diff":
            before = path.read_text(encoding="utf-8")
            old = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] in " -")
            new = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] in " +")
            assert before.count(old) == 1, f"{file} has not this once:\n{old}"
            path.write_text(before.replace(old, new), encoding="utf-8")
        else:
            assert not path.exists(), f"{file} is there"
            path.write_text(text, encoding="utf-8")
        if file.startswith("tests/"):
            tests.append(file)
    assert tests, "the example shows no test"
    python = _python(tmp_path / "venv", tree / "entrypoint")
    if "`make reference`" in EXAMPLES[name]:
        for page in _RULE.findall((ROOT / "Makefile").read_text(encoding="utf-8")):
            subprocess.run([python, page], cwd=tree, check=True)
    subprocess.run(["git", "init", "--quiet", tree], check=True)  # the tests of the pages list the tracked files
    subprocess.run(["git", "-C", tree, "add", "--all"], check=True)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *HELD],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "deselected" not in done.stdout


def _python(environment, package):
    """An interpreter with the copy in place of the project, and with this interpreter's other packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/*/site-packages")
    ours = [path for path in sys.path if path.endswith("-packages")]
    (packages / "project.pth").write_text("\n".join([str(package), *ours]) + "\n", encoding="utf-8")
    return environment / "bin/python"


@pytest.mark.ci
def test_the_hooks_pass_in_a_clean_clone_and_need_no_network(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / ".venv").symlink_to(sys.prefix)
    # A hook that fetched something would have to use this dead proxy.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--all-files", "--show-diff-on-failure"],
        cwd=clone,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == done.stdout.count("\n"), done.stdout


def test_the_lock_of_ci_pins_all_that_pyproject_asks_for():
    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    locked = {plain(line.partition("==")[0]) for line in (ROOT / "requirements/ci.lock").read_text().split()}
    groups = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[dependency-groups]")[2]
    wanted = {plain(name) for name in re.findall(r'^    "([A-Za-z0-9_.-]+)', groups.partition("\n[tool")[0], re.M)}
    assert len(wanted) > 15
    assert wanted - locked == set(), "run `make lock`"
