"""Runs tests in one tree, one job after the other: the worker of run.py, in the Python of the tree.

A job is a line of JSON on stdin, its answer a line of JSON on stdout. Each job runs in a fork, which imports the code
of the tree afresh. What costs time to import, and has nothing of the tree in it, is imported once, before the fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import sys
import time

import pytest
import spy

QUICKER = (  # what tests import and has nothing of the tree in it
    "doctest",
    "http.server",
    "hydra.core.override_parser.overrides_parser",
    "hypothesis.internal.conjecture.engine",
    "hypothesis.strategies",
    "omegaconf",
    "unittest.mock",
    "yaml",
)
MEMORY = 6 << 30  # bytes; a mutant may ask for more than there is


class Chosen:
    """The tests of a job, in its order; what became of each."""

    def __init__(self, names: list[str] | None) -> None:
        self.place = None if names is None else {name: number for number, name in enumerate(names)}
        self.failed: list[str] = []
        self.passed: list[str] = []
        self.late = False

    def pytest_collection_modifyitems(self, items):
        """Leave the chosen tests; a name without parameters stands for all of them."""
        if self.place is not None:
            found = [(self.place.get(item.nodeid, self.place.get(item.nodeid.split("[")[0])), item) for item in items]
            items[:] = [
                item for _, item in sorted((one for one in found if one[0] is not None), key=lambda one: one[0])
            ]

    def pytest_runtest_logreport(self, report):
        """Note what became of a test."""
        if report.failed:
            self.failed.append(report.nodeid)
            self.late = self.late or "from pytest-timeout" in str(report.longrepr)
        elif report.when == "call" and report.passed:
            self.passed.append(report.nodeid)

    def pytest_collectreport(self, report):
        """Note that a test file cannot be loaded."""
        if report.failed:
            self.failed.append(report.nodeid)


class Measured(Chosen):
    """The lines of the pure packages that each test runs, in this process and in each that it starts."""

    def __init__(self, root: str, packages: list[str]) -> None:
        super().__init__(None)
        self.root, self.tests, self.lines = root, {}, {}
        self.coverage = spy.coverage(root, packages)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        """Measure one test."""
        begun = time.monotonic()
        self.coverage.switch_context(item.nodeid)
        yield
        self.coverage.switch_context("")
        self.tests[item.nodeid] = time.monotonic() - begun
        for module, lines in spy.collected(self.root):
            for line in lines:
                self.lines.setdefault(module, {}).setdefault(line, set()).add(item.nodeid)

    def result(self) -> dict:
        """Seconds by test, and tests by module and line. A line that runs on import has the test ""."""
        data = self.coverage.get_data()
        for file in data.measured_files():
            of_module = self.lines.setdefault(os.path.relpath(file, self.root), {})
            for line, names in data.contexts_by_lineno(file).items():
                of_module.setdefault(line, set()).update(names)
        lines = {module: {n: sorted(names) for n, names in found.items()} for module, found in self.lines.items()}
        return {"tests": self.tests, "lines": lines}


def run(job: dict) -> dict:
    """Run the tests of one job in this process."""
    words = ["-q", "-n0", "-p", "no:cacheprovider", "--timeout", str(job["patience"]), *job["files"]]
    if job["random"]:  # a step names its tests, whatever they need
        words += ["-m", "not ci"]
    if job.get("measure"):
        measured = Measured(os.getcwd(), job["measure"])
        measured.coverage.start()
        status = pytest.main(words, plugins=[measured])
        measured.coverage.stop()
        return {"status": int(status), "failed": measured.failed, **measured.result()}
    chosen = Chosen(job.get("tests"))
    status = pytest.main(["-x"] * job["stop"] + words, plugins=[chosen])
    return {"status": int(status), "failed": chosen.failed, "passed": chosen.passed, "late": chosen.late}


def in_a_fork(job: dict) -> dict:
    """The answer of one job; {"late": True} without one in time, {"died": True} if the process ended before."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.setsid()
            if job["random"]:
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            answer = run(job)
        except BaseException as error:  # noqa: BLE001 - a mutant may raise anything
            answer = {"status": 3, "failed": [repr(error)[:300]], "passed": [], "late": False}
        with open(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    end, parts = time.monotonic() + job["seconds"], []
    with open(reader, "rb", 0) as pipe:
        while (left := end - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0]:
                parts.append(pipe.read(1 << 16))
                if not parts[-1]:
                    break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if left <= 0:
        return {"late": True, "failed": [], "passed": []}
    return json.loads(b"".join(parts) or b'{"died": true, "failed": [], "passed": [], "late": false}')


def main() -> None:
    """Answer jobs until there are none."""
    for name in QUICKER:
        importlib.import_module(name)
    sys.dont_write_bytecode = True  # bytecode of a mutant would outlive it
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(in_a_fork(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
