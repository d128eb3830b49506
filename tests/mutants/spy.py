"""Which lines a test runs, by coverage.py; the part that every Python of the tree loads, by a .pth file.

A test of the launcher starts it as a process of its own, which execs the command. While `LINES` is a directory of the
tree's environment, each such process leaves its lines there. They belong to the test that runs at that time.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys

LINES = os.path.join(sys.prefix, "lines")


def coverage(root, packages):
    """A measurement of the packages below the root."""
    os.environ["COVERAGE_CORE"] = "ctrace"  # the only one that knows which test runs
    import coverage

    include = [os.path.join(root, "entrypoint", "nemotron_exec", package, "*") for package in packages]
    measured = coverage.Coverage(data_file=None, include=include, messages=False)
    measured.set_option("run:disable_warnings", ["no-data-collected"])  # tests look at what is on stderr
    return measured


def collected(root):
    """The modules and lines that processes have left, each process once."""
    for name in os.listdir(LINES) if os.path.isdir(LINES) else ():
        path = os.path.join(LINES, name)
        if name.endswith(".json"):
            with open(path) as file:
                for module, lines in json.load(file).items():
                    yield os.path.relpath(module, root), lines
            os.unlink(path)


def watch():
    """Measure this process, and leave its lines when it ends or becomes another program."""
    try:
        with open(os.path.join(LINES, "packages")) as file:
            root, *packages = file.read().splitlines()
    except OSError:
        return
    measured = coverage(root, packages)
    del os.environ["COVERAGE_CORE"]
    measured.start()

    def leave(event="os.exec", _=None):
        if event != "os.exec":
            return
        with contextlib.suppress(Exception):
            data = measured.get_data()
            lines = {file: data.lines(file) for file in data.measured_files()}
            path = os.path.join(LINES, f"{os.getpid()}-{os.urandom(4).hex()}")
            with open(path, "w") as file:
                json.dump(lines, file)
            os.rename(path, path + ".json")

    atexit.register(leave)
    sys.addaudithook(leave)
