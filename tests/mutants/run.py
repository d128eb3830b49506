"""Makes mutants of the code and reports those that no test notices: `make mutants`.

There are two kinds. `steps.toml` lists steps that only matter when something fails halfway, each with the tests that
must fail without it. For the pure packages, cosmic-ray makes a random sample. Mutants without an effect are in
`equivalent.toml`.

The tree is not changed. Each worker has a copy below build/mutants, with an environment that takes the launcher from
there and all other packages from this one.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import concurrent.futures
import contextlib
import difflib
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "mutants"
CODE = ("entrypoint/nemotron_exec", "sitecustomize")
PURE = ("config", "document", "interpolation", "place", "command")
BAR = 0.95
TIMEOUT = 900.0  # seconds for the tests of one mutant
PATIENCE = 60.0  # seconds for one test; a mutant whose test takes longer is tried again, alone, with more
SLOW = 124  # the exit status of tests that ran out of time


class Tree:
    """A copy of the tree in which a mutant lives."""

    def __init__(self, number: int) -> None:
        self.path = BUILD / f"tree-{os.getpid()}-{number}"
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            source, target = ROOT / name, self.path / name
            if source.is_symlink() or source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.path / ".venv"], check=True)
        self.python = str(self.path / ".venv" / "bin" / "python")
        self.output = self.path / ".venv" / "output"
        (site,) = (self.path / ".venv" / "lib").glob("python3*/site-packages")
        (site / "mutants.pth").write_text(f"{self.path / 'entrypoint'}\n{sysconfig.get_path('purelib')}\n")
        # Only this run writes bytecode, because bytecode of a mutant would outlive it.
        self.command("-m", "pytest", "--collect-only", "-q", "-n0", "-m", "not ci", "tests", bytecode=True)

    def code(self) -> dict[Path, str]:
        """The source files."""
        return read_code(self.path)

    def pytest(self, *words: str, patience: float = PATIENCE) -> int:
        """The exit status of pytest: 0 for green, SLOW where a test ran out of time, anything else for red."""
        common = (
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            "--timeout",
            str(patience),
            "-m",
            "not ci",
        )
        status = self.command(*common, *words, limit=TIMEOUT * patience / PATIENCE)
        if status == 5:  # no test was selected
            return 0
        return SLOW if status and b"Timeout" in self.output.read_bytes() else status

    def command(self, *words: str, bytecode: bool = False, limit: float = TIMEOUT) -> int:
        """The exit status of a run of this tree's Python; SLOW if it does not end."""
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "" if bytecode else "1"}
        with open(self.output, "wb") as output:
            process = subprocess.Popen(
                [self.python, *words],
                cwd=self.path,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                return SLOW
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, 9)
                    process.wait()


def read_code(tree: Path) -> dict[Path, str]:
    """The source files of a tree, with their text."""
    return {path: path.read_text() for part in CODE for path in sorted((tree / part).rglob("*.py"))}


# The safety steps ---------------------------------------------------------------------------------------------------


def read_steps() -> list[dict]:
    """The rows of steps.toml."""
    with open(HERE / "steps.toml", "rb") as file:
        return tomllib.load(file)["step"]


def place_of(text: str, code: dict[Path, str]) -> Path:
    """The file that has the text, once. No other file may have it."""
    found = [path for path, content in code.items() for _ in range(content.count(text))]
    if len(found) != 1:
        raise SystemExit(f"steps.toml is out of date: the text is in {[str(path) for path in found]}\n{text}")
    return found[0]


def test_functions(tree: Path) -> dict[str, list[str]]:
    """The files, relative to the tree, of each test function."""
    found: dict[str, list[str]] = {}
    for path in sorted((tree / "tests").rglob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE):
            found.setdefault(name, []).append(str(path.relative_to(tree)))
    return found


def node_of(name: str, functions: dict[str, list[str]]) -> str:
    """The id of a test, from the name of its function."""
    files = functions.get(name.split("[")[0], [])
    if len(files) != 1:
        raise SystemExit(f"steps.toml is out of date: {len(files)} files have the test {name}")
    return f"{files[0]}::{name}"


def without(row: dict) -> str:
    """The replacement of the step: the row's `instead`, or `pass` with the same indentation."""
    if "instead" in row:
        return row["instead"]
    indent = row["text"][: len(row["text"]) - len(row["text"].lstrip())]
    return indent + "pass" + "\n" * row["text"].endswith("\n")


def try_step(tree: Tree, row: dict, patience: float = PATIENCE) -> str:
    """Try one row; returns "killed", or the test that did not fail."""
    path = place_of(row["text"], tree.code())
    functions = test_functions(tree.path)
    nodes = [node_of(name, functions) for name in row["killed_by"]]
    with instead_of(path, path.read_text().replace(row["text"], without(row))):
        for node in nodes:
            status = tree.pytest(node, patience=patience)
            if status == SLOW:
                return "slow"
            if status != 1:
                return f"survived {node}" if status == 0 else f"broken ({status}) {node}"
        return "killed"


@contextlib.contextmanager
def instead_of(path: Path, content: str):
    """A context in which a file has another content."""
    whole, times = path.read_bytes(), path.stat()
    ast.parse(content)
    path.write_text(content)
    try:
        yield
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


# The sample -----------------------------------------------------------------------------------------------------------


class Mutation:
    """One change of one module of a pure package, by cosmic-ray, at the `occurrence`-th place of an operator."""

    def __init__(self, package: str, path: Path, tree: Tree, line: int, operator: str, occurrence: int) -> None:
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        code = path.read_text()
        self.package, self.module, self.line = package, str(path.relative_to(tree.path)), line
        self.code = mutate_code(code, get_operator(operator)(), occurrence)
        old, new = code.splitlines(), (self.code or code).splitlines()
        changed = [one for one in difflib.unified_diff(old, new, lineterm="", n=0) if one[:1] in "+-"][2:]
        self.lines = [one[0] + " " + one[1:].strip() for one in changed]

    def __str__(self) -> str:
        return f"{self.module}:{self.line}  " + "  ".join(self.lines)


def places(tree: Tree) -> dict[tuple, list[tuple[str, int]]]:
    """Every place of the pure packages that can be changed, with the operators that can change it."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    found: dict[tuple, list[tuple[str, int]]] = {}
    operators = [(name, get_operator(name)) for name in sorted(operator_names())]
    for package in PURE:
        for path in sorted((tree.path / "entrypoint" / "nemotron_exec" / package).glob("*.py")):
            silent, nodes = silent_ranges(path), list(ast_nodes(get_ast_from_path(path)))
            for name, kind in operators:
                if kind.arguments():
                    continue
                spans = (span for node in nodes for span in kind().mutation_positions(node))
                for occurrence, (start, end) in enumerate(spans):
                    if not any(first <= tuple(start) and tuple(end) <= last for first, last in silent):
                        found.setdefault((package, str(path), tuple(start), tuple(end)), []).append((name, occurrence))
    return found


def sample(tree: Tree, seed: int, size: int) -> list[Mutation]:
    """A random place of the pure packages, then one of the changes that are possible there; `size` times."""
    possible = places(tree)
    chance = random.Random(seed)
    found = []
    for key in chance.sample(sorted(possible), min(size, len(possible))):
        package, path, (line, _), _ = key
        found.append(Mutation(package, Path(path), tree, line, *chance.choice(possible[key])))
    return [one for one in found if is_python(one.code)]


def is_python(code: str | None) -> bool:
    """Whether there is a mutant, and it is valid Python."""
    try:
        return code is not None and bool(ast.parse(code))
    except SyntaxError:
        return False


def silent_ranges(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Ranges in which a change has no effect at run time: annotations, and imports for them.

    Two more have none: `TYPE_CHECKING = False`, and `strict=True` of `zip`, which only a fault of the code would reach.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            parts.append(node)
        if isinstance(node, ast.Assign) and ast.unparse(node) == "TYPE_CHECKING = False":
            parts.append(node)
        if isinstance(node, ast.keyword) and node.arg == "strict":
            parts.append(node)
        found += [((p.lineno, p.col_offset), (p.end_lineno, p.end_col_offset)) for p in parts if p is not None]
    return found


def read_equivalent() -> dict[tuple[str, ...], str]:
    """Changes without a visible effect, with the reason."""
    with open(HERE / "equivalent.toml", "rb") as file:
        return {tuple(row["lines"]): row["why"] for row in tomllib.load(file).get("mutant", [])}


def rounds_of_tests(tree: Path, package: str, module: str) -> list[list[str]]:
    """The rounds of tests for a mutant, until one fails: the module's own test files, those of its package, all others.

    A module's own test files have its name in their names, or import it. Files outside of the pure packages' tests that
    import it come last.
    """
    name = Path(module).stem
    imports = re.compile(rf"nemotron_exec\.{package}(\.{name}\b| import .*\b{name}\b)")
    files = [path for one in PURE for path in sorted((tree / "tests" / one).glob("test_*.py"))]
    own = [path for path in files if name in path.stem or imports.search(path.read_text())]
    own.sort(key=lambda path: (name not in path.stem, path.parent.name != package))
    rest = [f"tests/{one}" for one in PURE if one != package]
    others = sorted(set((tree / "tests").rglob("test_*.py")) - set(files))
    far = [path for path in others if imports.search(path.read_text())]
    return [_relative(tree, own), [f"tests/{package}"], rest, _relative(tree, far)]


def _relative(tree: Path, files: list[Path]) -> list[str]:
    return [str(path.relative_to(tree)) for path in files]


def try_mutation(tree: Tree, mutation: Mutation, patience: float = PATIENCE) -> str:
    """Try one mutation; returns "killed", "survived", "equivalent" or "slow".

    A mutant that keeps the tests from being loaded is killed, too.
    """
    if tuple(mutation.lines) in read_equivalent():
        return "equivalent"
    with instead_of(tree.path / mutation.module, mutation.code):
        for files in filter(None, rounds_of_tests(tree.path, mutation.package, mutation.module)):
            status = tree.pytest(*files, patience=patience)
            if status:
                return "slow" if status == SLOW else "killed"
    return "survived"


# Both -----------------------------------------------------------------------------------------------------------------


def spread(trees: list[Tree], work: list, what, deadline: float):
    """Try each piece of work in a free tree; yields (piece, result) until the time is over."""
    free: queue.SimpleQueue = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(piece):
        if time.monotonic() > deadline:
            return piece, "not tried"
        tree = free.get()
        try:
            return piece, what(tree, piece)
        finally:
            free.put(tree)

    slow = []
    with concurrent.futures.ThreadPoolExecutor(len(trees)) as pool:
        for piece, came in pool.map(one, work):
            if came == "slow":
                slow.append(piece)
            else:
                yield piece, came
    # A test may be late because the machine is busy. Alone and with more time, only a mutant without an end is late.
    for piece in slow:
        came = what(trees[0], piece, 3 * PATIENCE)
        yield piece, "killed" if came == "slow" else came


def main() -> int:
    """Run the selected parts; returns 1 if the score is below the bar or a step survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--size", type=int, default=100, help="of the sample")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing more is begun")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--only", choices=("steps", "sample"))
    parser.add_argument("--match", default="", help="only steps whose sentence or text has this")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    trees = [Tree(number) for number in range(options.workers)]
    failed = False
    if options.only != "sample":
        rows = [row for row in read_steps() if options.match in row["step"] + row["text"]]
        functions = test_functions(trees[0].path)
        nodes = sorted({node_of(name, functions) for row in rows for name in row["killed_by"]})
        if trees[0].pytest(*nodes) != 0:
            raise SystemExit("the tests of steps.toml are red without any mutant: " + " ".join(nodes))
        tally: dict[str, int] = {}
        for row, came in spread(trees, rows, try_step, deadline):
            print(f"{came:12} {row['step']}", flush=True)
            tally[came.split()[0]] = tally.get(came.split()[0], 0) + 1
            failed = failed or came != "killed"
        print("steps: " + ", ".join(f"{count} {came}" for came, count in sorted(tally.items())), flush=True)
    if options.only != "steps":
        if trees[0].pytest(*(f"tests/{package}" for package in PURE)) != 0:
            raise SystemExit("the tests of the pure packages are red without any mutant")
        tally = {}
        for mutation, came in spread(trees, sample(trees[0], options.seed, options.size), try_mutation, deadline):
            print(f"{came:12} {mutation}", flush=True)
            tally[came] = tally.get(came, 0) + 1
        tried = tally.get("killed", 0) + tally.get("survived", 0)
        score = tally.get("killed", 0) / max(1, tried)
        print(f"sample (seed {options.seed}): " + ", ".join(f"{n} {came}" for came, n in sorted(tally.items())))
        print(f"score: {score:.1%} of {tried}, the bar is {BAR:.0%}")
        failed = failed or score < BAR
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
