"""Makes mutants of the code and reports those that no test notices: `make mutants`.

There are two kinds. `steps.toml` lists steps that only matter when something fails halfway, each with the tests that
must fail without it. For the pure packages, cosmic-ray makes a random sample. Mutants without an effect are in
`equivalent.toml`.

A listed step is tried with its tests alone. A mutant of the sample is tried with the tests that run the changed line:
first every test of the pure packages runs once, and coverage.py says which lines it runs.

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
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import warnings
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
BOUNDS = "test_bounds.py"  # compares constants: none of its tests runs a line of a function
BAR = 0.95
TIMEOUT = 600.0  # seconds for the tests of one mutant
PATIENCE = 60.0  # seconds for one test; a mutant whose test takes longer is tried again, alone, with more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Tree:
    """A copy of the tree in which a mutant lives, and the process that runs tests there (worker.py)."""

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
        (self.site,) = (self.path / ".venv" / "lib").glob("python3*/site-packages")
        (self.site / "mutants.pth").write_text(f"{self.path / 'entrypoint'}\n{sysconfig.get_path('purelib')}\n")
        # Only this run writes bytecode, because bytecode of a mutant would outlive it.
        collect = [self.python, "-m", "pytest", "--collect-only", "-q", "-n0", "-m", "not ci", "tests"]
        subprocess.run(collect, cwd=self.path, stdout=subprocess.DEVNULL, check=True)
        self.worker = subprocess.Popen(
            [self.python, HERE / "worker.py"],
            cwd=self.path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.path / ".venv" / "output", "wb"),  # noqa: SIM115 - of the worker
            text=True,
        )
        atexit.register(self.worker.kill)

    def code(self) -> dict[Path, str]:
        """The source files."""
        return read_code(self.path)

    def run(self, files: Iterable[str], *, patience: float, seconds: float = TIMEOUT, **job: object) -> dict:
        """Run tests; returns the names of those that failed and passed, and whether one ran out of time."""
        job = {"stop": False, "random": False, "files": sorted(files), "patience": patience, "seconds": seconds, **job}
        self.worker.stdin.write(json.dumps(job) + "\n")
        self.worker.stdin.flush()
        return json.loads(self.worker.stdout.readline())

    @contextlib.contextmanager
    def watched(self):
        """A context in which each process of the tree's Python leaves the lines that it runs (spy.py)."""
        lines = self.path / ".venv" / "lines"
        lines.mkdir()
        shutil.copy(HERE / "spy.py", self.site / "nemotron_exec_spy.py")
        (lines / "packages").write_text("\n".join([str(self.path), *PURE]))
        (self.site / "spy.pth").write_text("import nemotron_exec_spy; nemotron_exec_spy.watch()\n")
        try:
            yield
        finally:
            (self.site / "spy.pth").unlink()
            shutil.rmtree(lines)


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
    files = {node.split("::")[0] for node in nodes}
    with instead_of(path, path.read_text().replace(row["text"], without(row))):
        came = tree.run(files, tests=nodes, patience=patience, seconds=TIMEOUT * patience / PATIENCE)
    if came["late"]:
        return "slow"
    return judge_step(nodes, came)


def refuse_red(trees: list[Tree], rows: list[dict]) -> None:
    """Run the tests of the steps once without any mutant.

    Raises:
        SystemExit: One of them does not pass.
    """
    functions = test_functions(trees[0].path)
    nodes = sorted({node_of(name, functions) for row in rows for name in row["killed_by"]})
    parts = [nodes[number :: 4 * len(trees)] for number in range(4 * len(trees))]

    def one(tree: Tree, part: list[str], patience: float = 3 * PATIENCE) -> dict:
        return tree.run({node.split("::")[0] for node in part}, tests=part, patience=patience, seconds=2 * TIMEOUT)

    passed: set[str] = set()
    for _, came in spread(trees, [part for part in parts if part], one, float("inf")):
        passed |= set(came["passed"]) - set(came["failed"])
    passed |= {name.split("[")[0] for name in passed}
    if red := [node for node in nodes if node not in passed]:
        raise SystemExit("the tests of steps.toml are red without any mutant: " + " ".join(red))


def judge_step(nodes: Iterable[str], came: dict) -> str:
    """What became of a step: each of its tests must have failed, in at least one of its cases."""
    for node in nodes:
        if not any(name == node or name.split("[")[0] == node for name in came["failed"]):
            return f"survived {node}" if came["passed"] else f"broken {node}"
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


def sample(tree: Tree, seed: int, size: int, module: str = "") -> list[Mutation]:
    """A random place of the pure packages, then one of the changes that are possible there; size 0: each place."""
    possible = {key: changes for key, changes in places(tree).items() if module in key[1]}
    chance = random.Random(seed)
    found = []
    for key in chance.sample(sorted(possible), min(size or len(possible), len(possible))):
        package, path, (line, _), _ = key
        found.append(Mutation(package, Path(path), tree, line, *chance.choice(possible[key])))
    return [one for one in found if is_python(one.code)]


def is_python(code: str | None) -> bool:
    """Whether there is a mutant, and Python compiles it without a warning: lint refuses `is` with a literal."""
    if code is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile(code, "mutant", "exec", dont_inherit=True)
        except SyntaxError:
            return False
    return True


def silent_ranges(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Ranges in which a change has no effect at run time: annotations, and imports for them.

    Three more have none: `TYPE_CHECKING = False`, the star of a signature, which calls do not notice, and `strict=True`
    of `zip`, which only a fault of the code would reach.
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
        if isinstance(node, ast.FunctionDef) and node.args.kwonlyargs and node.args.vararg is None:
            named = node.args.kwonlyargs[0]
            before = [one for one in (*node.args.args, *node.args.defaults) if one.lineno <= named.lineno]
            start = max(
                [(one.end_lineno, one.end_col_offset) for one in before], default=(node.lineno, node.col_offset)
            )
            found.append((start, (named.lineno, named.col_offset)))
        found += [((p.lineno, p.col_offset), (p.end_lineno, p.end_col_offset)) for p in parts if p is not None]
    return found


def read_equivalent() -> dict[tuple[str, ...], str]:
    """Changes without a visible effect, with the reason."""
    with open(HERE / "equivalent.toml", "rb") as file:
        return {tuple(row["lines"]): row["why"] for row in tomllib.load(file).get("mutant", [])}


class Lines:
    """Which tests run which lines of the pure packages, and how long each takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tests: dict[str, dict[int, set[str]]] = {}
        self.red: set[str] = set()

    def add(self, measured: dict) -> None:
        """Add what one worker has measured."""
        if "lines" not in measured:
            raise SystemExit(f"the tests of the pure packages cannot be measured: {measured}")
        self.red.update(measured["failed"])
        self.seconds.update(measured["tests"])
        for module, lines in measured["lines"].items():
            of_module = self.tests.setdefault(module, {})
            for line, names in lines.items():
                of_module.setdefault(int(line), set()).update(names)

    def measure(self, trees: list[Tree]) -> None:
        """Run every test of the pure packages once, a file at a time.

        A test that is red while it is measured says nothing about mutants, and is left out.
        """
        files = [
            str(path.relative_to(ROOT)) for one in PURE for path in sorted((ROOT / "tests" / one).glob("test_*.py"))
        ]

        def one(tree: Tree, file: str, patience: float = 3 * PATIENCE) -> dict:
            return tree.run([file], patience=patience, measure=PURE, random=True)

        with contextlib.ExitStack() as stack:
            for tree in trees:
                stack.enter_context(tree.watched())
            for _, measured in spread(trees, files, one, float("inf")):
                self.add(measured)
        for name in sorted(self.red):
            print(f"left out, because it is red without any mutant: {name}", flush=True)
            self.seconds.pop(name, None)
            for lines in self.tests.values():
                for names in lines.values():
                    names.discard(name)

    def of(self, module: str, code: str, line: int) -> list[str]:
        """The tests that run the statement at a line, the quickest first.

        For a statement that runs on import these are the module's tests; for a module of definitions, the package's.
        """
        of_module = self.tests.get(module, {})
        first, last = statement_at(code, line)
        found = set().union(*(of_module.get(number, ()) for number in range(first, last + 1)))
        name = Path(module).stem
        if "" in found or not found:
            package = f"tests/{Path(module).parent.name}/"
            found = set().union(*of_module.values())
            few = not found - {""}
            found |= {test for test in self.seconds if BOUNDS in test or (test.startswith(package) and few)}
        return sorted(found - {""}, key=lambda test: (name not in test.split("::")[0], self.seconds[test], test))


def statement_at(code: str, line: int) -> tuple[int, int]:
    """The first and last line of the innermost statement at a line; of a statement with a body, its head."""
    found = (line, line)
    width = None
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.stmt) or not node.lineno <= line <= (node.end_lineno or 0):
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno
        last = max(last, node.lineno)
        if line <= last and (width is None or last - node.lineno <= width):
            found, width = (node.lineno, last), last - node.lineno
    return found


def try_mutation(tree: Tree, mutation: Mutation, lines: Lines, patience: float = PATIENCE) -> str:
    """Try one mutation; returns "killed", "survived", "equivalent" or "slow".

    A mutant that keeps the tests from being loaded is killed, too.
    """
    if tuple(mutation.lines) in read_equivalent():
        return "equivalent"
    path = tree.path / mutation.module
    names = lines.of(mutation.module, path.read_text(), mutation.line)
    if not names:
        return "survived"
    files = {name.split("::")[0] for name in names}
    seconds = patience + 4 * sum(lines.seconds[name] for name in names)
    with instead_of(path, mutation.code):
        came = tree.run(files, tests=names, patience=patience, seconds=seconds, stop=True, random=True)
    if came["late"]:
        return "slow"
    return "killed" if came["failed"] or came.get("died") else "survived"


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


class Table:
    """How many mutants of each part were noticed."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.survivors: list[str] = []

    def add(self, part: str, came: str, text: str) -> None:
        """Count one mutant, and report it."""
        word = came.split()[0]
        counts = self.counts.setdefault(part, {})
        counts[word] = counts.get(word, 0) + 1
        if word not in ("killed", "equivalent"):
            self.survivors.append(f"{came:10} {text}")
        print(f"{came:10} {text}", flush=True)

    @staticmethod
    def score(counts: dict[str, int]) -> float:
        """The share that was noticed of what has an effect."""
        tried = sum(count for word, count in counts.items() if word not in ("equivalent", "not"))
        return counts.get("killed", 0) / tried if tried else 1.0

    def lines(self, heading: str) -> list[str]:
        """The table: a row for each part, and the total."""
        words = ("killed", "survived", "broken", "equivalent", "not")
        total: dict[str, int] = {}
        for counts in self.counts.values():
            for word, count in counts.items():
                total[word] = total.get(word, 0) + count
        rows = [*sorted(self.counts.items(), key=lambda row: (self.score(row[1]), row[0])), ("all", total)]
        width = max(len(heading), *(len(name) for name, _ in rows))
        titles = ("noticed", "survived", "broken", "equivalent", "not tried", "score")
        found = [f"{heading:{width}}  " + "  ".join(f"{title:>10}" for title in titles)]
        for name, counts in rows:
            cells = [f"{counts.get(word, 0) or '':>10}" for word in words]
            found.append(f"{name:{width}}  " + "  ".join([*cells, f"{self.score(counts):>10.0%}"]))
        return found

    @property
    def total(self) -> tuple[int, float]:
        """How many mutants with an effect were tried, and the share that was noticed."""
        counts: dict[str, int] = {}
        for row in self.counts.values():
            for word, count in row.items():
                counts[word] = counts.get(word, 0) + count
        return sum(n for word, n in counts.items() if word not in ("equivalent", "not")), self.score(counts)


def main() -> int:
    """Run the selected parts; returns 1 if the score is below the bar or a step survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--size", type=int, default=75, help="of the sample: how many places; 0 for each place")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing more is begun")
    parser.add_argument("--workers", type=int, default=max(1, os.cpu_count() or 2))
    parser.add_argument("--only", choices=("steps", "sample"))
    parser.add_argument("--match", default="", help="only steps whose sentence or text has this")
    parser.add_argument("--module", default="", help="only places of modules whose path has this")
    options = parser.parse_args()
    begun = time.monotonic()
    deadline = begun + 60 * options.minutes
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        trees = list(pool.map(Tree, range(options.workers)))
    steps, mutants = Table(), Table()
    if options.only != "sample":
        rows = [row for row in read_steps() if options.match in row["step"] + row["text"]]
        refuse_red(trees, rows)
        for row, came in spread(trees, rows, try_step, deadline):
            steps.add(package_of(place_of(row["text"], trees[0].code()), trees[0].path), came, row["step"])
    if options.only != "steps":
        lines = Lines()
        lines.measure(trees)
        print(f"measured: {len(lines.seconds)} tests, {time.monotonic() - begun:.0f} s", flush=True)

        def one(tree: Tree, mutation: Mutation, patience: float = PATIENCE) -> str:
            return try_mutation(tree, mutation, lines, patience)

        for mutation, came in spread(
            trees, sample(trees[0], options.seed, options.size, options.module), one, deadline
        ):
            name = mutation.module.removeprefix("entrypoint/nemotron_exec/").removesuffix(".py")
            mutants.add(name, came, str(mutation))
    for table, heading in ((steps, "listed steps"), (mutants, f"sample, seed {options.seed}")):
        if table.counts:
            print("", *table.survivors, "", *table.lines(heading), sep="\n")
    print(f"\n{(time.monotonic() - begun) / 60:.0f} minutes")
    failed = bool(steps.survivors)
    if mutants.counts:
        tried, score = mutants.total
        print(f"score of the sample: {score:.1%} of {tried}, the bar is {BAR:.0%}")
        failed = failed or score < BAR
    return int(failed)


def package_of(path: Path, tree: Path) -> str:
    """The package of a source file, as the table names it."""
    parts = path.relative_to(tree).with_suffix("").parts
    return "/".join(parts[1:-1]) or parts[-1]


if __name__ == "__main__":
    sys.exit(main())
