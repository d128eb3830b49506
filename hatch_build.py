"""Build hooks: they make README's links absolute for a package page, and add programs and bytecode to the wheel.

The wheel has bytecode for every Python that the building machine has.

It covers the injector, and the launcher's short way to exec. Without a .pyc, an interpreter that cannot write one
(read-only image, PYTHONDONTWRITEBYTECODE) compiles at every start. That takes about 1 ms for the injector, more than
the rest of its start, and 4 ms for the launcher. The files are of the unchecked kind (PEP 552), so they stay valid if
an image changes modification times.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

MINORS = range(8, 15)  # 3.8 is the oldest Python that the injector runs in
# Maps a program to its file in entrypoint/scripts/. One file serves both commands: it looks at its own name.
PROGRAMS = {
    "nemotron-exec": "nemotron-exec",
    "nemotron-artifact": "nemotron-exec",
    "nemotron-python": "nemotron-python",
}
# The modules that the launcher loads for a command with nothing to resolve, compiled for its Pythons.
LAUNCHER = ("__init__", "cli", "command_scan", "environment", "errors", "message", "process")
LAUNCHER_MINOR = 10

_COMPILE = """
import py_compile, sys
for source, target, shown in zip(*[iter(sys.argv[1:])] * 3):
    py_compile.compile(source, target, shown, True, -1, py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""
_ABOUT = "import sys; print(sys.implementation.cache_tag, sys.version_info >= (3, 8))"


class ReadmeHook(MetadataHookInterface):
    """Makes README.md the description, with links to the repository and pictures to their files."""

    PLUGIN_NAME = "readme"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme` to the text."""
        with open(os.path.join(self.root, "README.md"), encoding="utf-8") as file:
            text = file.read()
        home = metadata["urls"]["Homepage"]

        def whole(match: re.Match[str]) -> str:
            return f"{match[1]}]({home}/{'raw' if match[1].startswith('!') else 'blob'}/main/{match[2]})"

        text = re.sub(r"(!?\[[^\]]*)\]\((?!\w+:|#)([^)\s]+)\)", whole, text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class FilesHook(BuildHookInterface):
    """Adds the programs, and the injector's `__pycache__` file by file: hatchling leaves such directories out."""

    PLUGIN_NAME = "files"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the programs into build/scripts and bytecode into build/bytecode, and both into the wheel."""
        build_data["shared_scripts"].update(self._programs())
        if version != "editable":  # an editable install needs no bytecode
            self._compile(build_data)

    def _programs(self) -> dict[str, str]:
        """Maps a file to its program. The files are executable copies: the tree may have lost its modes."""
        target = os.path.join(self.root, "build", "scripts")
        os.makedirs(target, exist_ok=True)
        found = {}
        for program, source in PROGRAMS.items():
            copy = os.path.join(target, program)
            shutil.copyfile(os.path.join(self.root, "entrypoint", "scripts", source), copy)
            os.chmod(copy, 0o755)  # noqa: S103  (programs are for everybody)
            found[copy] = program
        return found

    def _compile(self, build_data: dict[str, Any]) -> None:
        target = os.path.join(self.root, "build", "bytecode")
        shutil.rmtree(target, ignore_errors=True)
        package = os.path.join(self.root, "entrypoint", "nemotron_exec")
        injector = glob.glob(os.path.join(package, "sitecustomize", "**", "*.py"), recursive=True)
        launcher = [os.path.join(package, name + ".py") for name in LAUNCHER]
        for tag, python in sorted(_interpreters().items()):
            words = []
            for source in injector + (launcher if int(tag.partition("-3")[2]) >= LAUNCHER_MINOR else []):
                name = os.path.relpath(source, package)
                directory, base = os.path.split(name)
                cached = os.path.join(directory, "__pycache__", f"{base[:-3]}.{tag}.pyc")
                compiled = os.path.join(target, cached)
                os.makedirs(os.path.dirname(compiled), exist_ok=True)
                # The file name in the bytecode must not depend on the place of the build.
                words += [source, compiled, os.path.join("nemotron_exec", name)]
                build_data["force_include"][compiled] = f"nemotron_exec/{cached}"
            subprocess.run([python, "-I", "-S", "-c", _COMPILE, *words], check=True)


def _interpreters() -> dict[str, str]:
    """Cache tag (`cpython-311`) to interpreter, for every CPython from 3.8 on that runs here."""
    found = {sys.implementation.cache_tag: sys.executable}
    candidates = [shutil.which(f"python3.{minor}") for minor in MINORS]
    # pyenv's shims on PATH run only the selected versions, so look into its directory of versions, too.
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    candidates += sorted(glob.glob(f"{pyenv}/versions/*/bin/python3"))
    for python in filter(None, candidates):
        try:
            done = subprocess.run([python, "-I", "-S", "-c", _ABOUT], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        tag, _, new_enough = done.stdout.strip().partition(" ")
        if done.returncode == 0 and new_enough == "True":
            found.setdefault(tag, python)
    return found
