"""Finds the Python file that a command starts: `python x.py`, `torchrun … x.py`, `python -m pkg.mod`.

Only the job's interpreter would know for certain, but starting it costs more than the rest of the launcher's work. So
its search path is rebuilt here from the working directory, PYTHONPATH and its site-packages.
"""

from __future__ import annotations

import os

from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["package_directory", "script_of_module"]


def script_of_module(module: str, words: Sequence[str], environ: Mapping[str, str], directory: str = "") -> str | None:
    """The file that `python -m MODULE` runs; None if it is not found.

    Args:
        module: Dotted name of the module.
        words: The command up to the module. The packages of its interpreter are searched, too.
        environ: The environment.
        directory: The working directory of the command.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    name = module.replace(".", "/")
    for root in _roots(words, environ):
        for path in (os.path.join(root, name, "__main__.py"), os.path.join(root, name + ".py")):
            if os.path.isfile(os.path.join(directory, path)):
                return os.path.join(directory, path)
    return None


def package_directory(
    package: str, words: Sequence[str], environ: Mapping[str, str], beside: str, directory: str = ""
) -> str | None:
    """The directory of `pkg://PACKAGE` (dots or slashes between its parts); None if it is not found.

    Args:
        package: Name of the package.
        words: The command up to its program.
        environ: The environment.
        beside: The directory of the program, which is first on its search path.
        directory: The working directory of the command.
    """
    for root in (beside, *(os.path.join(directory, root) for root in _roots(words, environ))):
        path = os.path.join(root, *package.replace("/", ".").split("."))
        if os.path.isdir(path):
            return path
    return None


def _roots(words: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """sys.path of the job's interpreter, as far as it is known without starting it."""
    yield ""
    yield from (entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry)
    for position, word in enumerate(words):
        path = _on_path(word, environ, known=position == 0)
        if path is not None:
            yield from _site_packages(os.path.dirname(os.path.dirname(absolute(path))))


def _on_path(word: str, environ: Mapping[str, str], *, known: bool) -> str | None:
    """The file of a word that may be an interpreter or lie beside one; None for any other word.

    `known` says that the word is a program for certain.
    """
    name = os.path.basename(word)
    if not known and not name.startswith(("python", "pypy", "torchrun", "ft_launcher", "accelerate", "deepspeed")):
        return None
    if os.sep in word:
        return word
    for directory in os.get_exec_path(dict(environ)):
        if os.path.isfile(os.path.join(directory, name)):
            return os.path.join(directory, name)
    return None


def _site_packages(prefix: str) -> Iterator[str]:
    for library in ("lib", "local/lib"):
        for version in _listed(os.path.join(prefix, library)):
            if not version.startswith(("python3", "pypy3")):
                continue
            for name in ("site-packages", "dist-packages"):
                directory = os.path.join(prefix, library, version, name)
                names = _listed(directory)
                if names:
                    yield directory
                # A .pth file names the directories of editable installations, one a line (site.addpackage).
                for path in (os.path.join(directory, name) for name in names if name.endswith(".pth")):
                    yield from (os.path.join(directory, line) for line in _lines(path))


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file]
    except OSError:
        return []
    return [line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]
