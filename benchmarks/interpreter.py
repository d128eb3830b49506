"""Measures the injector's cost in every Python of a job: start, imports, memory.

The job's variables are those that the installed launcher gives to `env -0`. The Python is one of an environment without
packages, and is compared with itself without the injector.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks import environments
from benchmarks.pairs import Case, Comparison, be_left_alone, compare, median_interval
from benchmarks.row import Row, emit

PAIRS = 300
PAIRS_IDLE = 600  # the bar is a tenth of the others
PAIRS_PER_VERSION = 250
ADDED = 0.25  # ms
ENTRY = 0.03  # ms
MISS = 100  # ns
MEMORY = 0.3  # MB
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")

_MISS = """
import sys, time
finder = next(f for f in sys.meta_path if "nemotron" in (getattr(f, "__module__", "") + repr(f)).lower()
              or type(f).__module__ == "sitecustomize" or getattr(f, "__module__", "") == "sitecustomize")
find, names = finder.find_spec, ["json.decoder", "torch.nn.functional", "numpy"]
def took(call):
    best = 1e9
    for _ in range(40):
        start = time.perf_counter_ns()
        for _ in range(1000):
            call("json.decoder", None, None); call("torch.nn.functional", None, None)
            call("numpy", None, None); call("a.b.c", None, None)
        best = min(best, time.perf_counter_ns() - start)
    return best / 4000
class Nothing:
    @staticmethod
    def find_spec(name, path=None, target=None): return None
print(took(find), took(Nothing.find_spec), sum(type(f).__module__ == type(finder).__module__ and f is finder
      for f in sys.meta_path))
"""
_MEMORY = """
import argparse, json, logging, subprocess, threading, urllib.request, asyncio
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""
_MODULES = "import sys; print(*sorted(sys.modules))"


def main() -> None:
    """Measure the start with and without a job, each supported Python, the finder's miss, memory and modules."""
    installed = environments.launcher()
    shipped = environments.launcher(compile_on_install=False)
    bare = environments.bare()
    python = environments.bin_of(bare, "python")
    be_left_alone()
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        plain = environments.clean_environ(bare, home)
        job = environments.job_environ([environments.bin_of(installed, "nemotron-exec")], plain)
        as_shipped = environments.job_environ([environments.bin_of(shipped, "nemotron-exec")], plain)
        empty = os.path.join(home, "empty")
        os.mkdir(empty)
        handoff = os.path.join(home, "handoff.json")
        with open(handoff, "w", encoding="utf-8") as file:
            file.write('{"schema": 1, "artifacts": []}')
        no_job = {**plain, "PYTHONPATH": job["PYTHONPATH"]}
        an_entry = {**plain, "PYTHONPATH": empty}
        started = compare(
            Case("bare", [python, "-c", "pass"], plain),
            [
                Case("A/A: bare Python against itself", [python, "-c", "pass"], plain),
                Case("a job is active", [python, "-c", "pass"], job),
                Case(
                    "a job with a hand-off is active",
                    [python, "-c", "pass"],
                    {**job, "NEMOTRON_EXEC_HANDOFF": handoff},
                ),
            ],
            pairs=PAIRS,
        )
        for name, result in started.items():
            report_start(name, result)
        # Any entry on PYTHONPATH costs a start 0.05 ms, whatever is in it: the floor is an empty directory there.
        idle = compare(
            Case("an empty directory on PYTHONPATH", [python, "-c", "pass"], an_entry),
            [
                Case("A/A: an empty directory on PYTHONPATH", [python, "-c", "pass"], an_entry),
                Case("on PYTHONPATH without a job", [python, "-c", "pass"], no_job),
                Case("NEMOTRON_EXEC_DISABLE=1", [python, "-c", "pass"], {**job, "NEMOTRON_EXEC_DISABLE": "1"}),
            ],
            pairs=PAIRS_IDLE,
        )
        for name, result in idle.items():
            report_idle(name, result)
        unwritten = {"PYTHONDONTWRITEBYTECODE": "1"}
        name = "a job, installed without compiling, PYTHONDONTWRITEBYTECODE=1"
        result = compare(
            Case("bare", [python, "-c", "pass"], {**plain, **unwritten}),
            [Case(name, [python, "-c", "pass"], {**as_shipped, **unwritten})],
            pairs=PAIRS,
        )[name]
        report_start(name, result)
        for version in VERSIONS:
            if other := interpreter(version):
                report_start(f"a job under Python {version}, as shipped", per_version(other, plain, as_shipped))
        report_miss(python, job)
        report_memory(python, plain, job)
        report_modules(python, plain, job)


def report_start(name: str, result: Comparison) -> None:
    """Emit a start under a job. The bar bounds the added time."""
    bar, met = (f"at most +{ADDED:g} ms", result.added <= ADDED) if not name.startswith("A/A") else ("", None)
    emit(Row.of(f"start: {name}", result, against="bare Python", bar=bar, met=met))


def report_idle(name: str, result: Comparison) -> None:
    """Emit a start without a job. It is missed where the whole interval of the added time is above the bar."""
    bar, met = f"at most +{ENTRY:g} ms, with the interval", result.interval[0] <= ENTRY
    if name.startswith("A/A"):
        bar, met = "", None
    emit(Row.of(f"start: {name}", result, against="an empty directory on PYTHONPATH", bar=bar, met=met))


def interpreter(version: str) -> str:
    """The path of that Python, empty if the machine has none (PATH, then pyenv)."""
    from shutil import which

    for candidate in (which(f"python{version}"), *pyenv(version)):
        if candidate and subprocess.run([candidate, "-c", ""], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return os.path.realpath(candidate)
    return ""


def pyenv(version: str) -> list[str]:
    """Pythons of that version under pyenv's root."""
    root = os.path.join(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    return [os.path.join(root, name, "bin", "python") for name in names if name.startswith(version + ".")]


def per_version(python: str, plain: dict[str, str], job: dict[str, str]) -> Comparison:
    """The start of another Python without flags, as a job starts it."""
    argv = [environments.bin_of(environments.bare(python), "python"), "-c", "pass"]
    return compare(Case("bare", argv, plain), [Case("job", argv, job)], pairs=PAIRS_PER_VERSION)["job"]


def report_miss(python: str, job: dict[str, str]) -> None:
    """Emit the time that the injector's finder needs for a module without a hook."""
    runs = [printed(python, _MISS, job).split() for _ in range(7)]
    emit(
        Row(
            "the finder's miss",
            "ns",
            statistics.median(float(run[0]) for run in runs),
            statistics.median(float(run[1]) for run in runs),
            against="a find_spec that returns None",
            bar=f"under {MISS} ns",
            met=statistics.median(float(run[0]) for run in runs) < MISS,
            pairs=len(runs),
        )
    )
    emit(Row("finders", "", float(runs[0][2]), bar="one", met=runs[0][2] == "1"))


def report_memory(python: str, plain: dict[str, str], job: dict[str, str]) -> None:
    """Emit the resident memory of a process with much of the standard library and no patched module."""
    with_ours, without = [], []
    for _ in range(50):
        without.append(int(printed(python, _MEMORY, plain)) / 1024)
        with_ours.append(int(printed(python, _MEMORY, job)) / 1024)
    added = [ours - bare for ours, bare in zip(with_ours, without, strict=True)]
    emit(
        Row(
            "resident memory, no patched module imported",
            "MB",
            statistics.median(with_ours),
            statistics.median(without),
            against="the same process without ours",
            bar=f"at most +{MEMORY} MB",
            met=statistics.median(added) <= MEMORY,
            added=statistics.median(added),
            interval=median_interval(added),
            pairs=len(added),
        )
    )


def report_modules(python: str, plain: dict[str, str], job: dict[str, str]) -> None:
    """Emit the modules that a start with the injector loads beyond a bare start."""
    more = set(printed(python, _MODULES, job).split()) - set(printed(python, _MODULES, plain).split())
    emit(
        Row(
            "modules loaded at start beyond bare Python's",
            "",
            len(more),
            bar="sitecustomize alone",
            met=more == {"sitecustomize"},
            note=" ".join(sorted(more)),
        )
    )


def printed(python: str, program: str, environ: dict[str, str]) -> str:
    """The output of the program."""
    done = subprocess.run([python, "-c", program], env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
