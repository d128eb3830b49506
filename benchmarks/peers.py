"""Starts the same job through each peer, and times the wrapper alone, a Python of the job, and the whole command.

nemotron-exec and a peer run in pairs: a ratio is nemotron-exec's time divided by the peer's. Each peer has an
environment of its own and uses that environment's Python, because it imports itself into the job from there.
nemotron-exec adds one file to a Python without packages; in a peer's Python it would do the same. All reporting is
switched off, since there is no collector, and OpenTelemetry has no instrumentors. So each figure of a peer is a lower
bound.
"""

from __future__ import annotations

import os
import statistics
import tempfile

from benchmarks import environments
from benchmarks.pairs import Case, be_left_alone, compare
from benchmarks.row import Row, emit

PAIRS = 50

# The peer's program, and variables that switch its reporting off. autowrapt has no program: its .pth file is the
# wrapper.
PEERS = {
    "opentelemetry": (
        ["opentelemetry-instrument"],
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
    ),
    "ddtrace": (
        ["ddtrace-run"],
        {
            f"DD_{name}": "false"
            for name in (
                "TRACE_ENABLED",
                "INSTRUMENTATION_TELEMETRY_ENABLED",
                "REMOTE_CONFIGURATION_ENABLED",
                "CRASHTRACKING_ENABLED",
                "RUNTIME_METRICS_ENABLED",
            )
        },
    ),
    "newrelic": (["newrelic-admin", "run-program"], {}),
    "autowrapt": ([], {"AUTOWRAPT_BOOTSTRAP": "bench"}),
}


def main() -> None:
    """Measure each peer, then the same commands without any wrapper."""
    ours_at = environments.launcher()
    bare = environments.bare()
    paths = {name: environments.peer(name) for name in PEERS}
    be_left_alone()
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        plain = environments.clean_environ(bare, home)
        launcher, python = environments.bin_of(ours_at, "nemotron-exec"), environments.bin_of(bare, "python")
        ours = {
            "wrapper": Case("ours", [launcher, "/bin/true"], plain),
            "interpreter": Case("ours", [python, "-c", "pass"], environments.job_environ([launcher], plain)),
            "whole": Case("ours", [launcher, python, "-c", "pass"], plain),
        }
        for name, (program, variables) in PEERS.items():
            theirs = peer_cases(name, paths[name], program, variables, home)
            for what, case in theirs.items():
                result = compare(ours[what], [case], pairs=PAIRS)[case.name]
                mine, other = statistics.median(result.baseline), statistics.median(result.case)
                emit(
                    Row(
                        f"{name}: {what}",
                        "ms",
                        mine,
                        other,
                        bar="cheaper",
                        met=-result.added < 0,
                        against=" ".join(program) or f"{name}'s .pth file",
                        added=-result.added,
                        interval=(-result.interval[1], -result.interval[0]),
                        pairs=PAIRS,
                    )
                )
        for what, argv in (("interpreter", [python, "-c", "pass"]), ("whole", [python, "-c", "pass"])):
            case = Case("bare", argv, plain)
            result = compare(case, [Case("ours", ours[what].argv, ours[what].environ)], pairs=PAIRS)["ours"]
            emit(Row.of(f"nothing: {what}", result, against="the command alone", bar="", met=None))


def peer_cases(name: str, path: str, program: list[str], variables: dict[str, str], home: str) -> dict[str, Case]:
    """The three measurements of a peer; without a program, only the interpreter."""
    environ = {**environments.clean_environ(path, home), **variables}
    if name == "newrelic":
        settings = os.path.join(home, "newrelic.ini")
        with open(settings, "w", encoding="utf-8") as file:
            file.write("[newrelic]\nlicense_key = 0000000000000000000000000000000000000000\nmonitor_mode = false\n")
        environ["NEW_RELIC_CONFIG_FILE"] = settings
    python = environments.bin_of(path, "python")
    if not program:
        return {"interpreter": Case(name, [python, "-c", "pass"], environ)}
    wrapper = [environments.bin_of(path, program[0]), *program[1:]]
    return {
        "wrapper": Case(name, [*wrapper, "/bin/true"], environ),
        "interpreter": Case(name, [python, "-c", "pass"], environments.job_environ(wrapper, environ)),
        "whole": Case(name, [*wrapper, python, "-c", "pass"], environ),
    }


if __name__ == "__main__":
    main()
