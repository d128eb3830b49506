"""Measures `nemotron-exec CMD` with nothing to resolve, from spawn to the end of CMD, against the smallest script.

pip has installed both scripts from wheels into the same environment, and both become `/bin/true`. So they differ only
in the launcher's work before exec.
"""

from __future__ import annotations

import os
import tempfile

from benchmarks import environments
from benchmarks.pairs import Case, be_left_alone, compare
from benchmarks.row import Row, emit

PAIRS = 150
BAR = 4.0


def main() -> None:
    """Measure three typical commands."""
    environment = environments.launcher()
    shipped = environments.launcher(compile_on_install=False)
    be_left_alone()
    with tempfile.TemporaryDirectory() as home:
        config = os.path.join(home, "plain.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("train:\n  lr: 1.0e-4\n" * 150)
        os.chdir(home)
        environ = environments.clean_environ(environment, home)
        ours, floor = (environments.bin_of(environment, name) for name in ("nemotron-exec", "baseline-exec"))
        baseline = Case("baseline", [floor, "/bin/true"], environ)
        unwritten = {**environments.clean_environ(shipped, home), "PYTHONDONTWRITEBYTECODE": "1"}
        as_shipped = environments.bin_of(shipped, "nemotron-exec")
        results = compare(
            baseline,
            [
                Case("A/A: the floor against itself", [floor, "/bin/true"], environ),
                Case("nemotron-exec CMD", [ours, "/bin/true"], environ),
                Case("nemotron-exec CMD with a config of 300 lines", [ours, "/bin/true", config], environ),
            ],
            pairs=PAIRS,
        )
        results |= compare(
            # The baseline is installed compiled: its wheel has no bytecode, so it would compile itself at each start.
            Case("baseline", [floor, "/bin/true"], {**environ, "PYTHONDONTWRITEBYTECODE": "1"}),
            [Case("… installed without compiling, PYTHONDONTWRITEBYTECODE=1", [as_shipped, "/bin/true"], unwritten)],
            pairs=PAIRS,
        )
        for name, result in results.items():
            bar = "" if name.startswith("A/A") else f"at most +{BAR:g} ms"
            emit(
                Row.of(
                    name,
                    result,
                    against="a console script that only calls os.execvp",
                    bar=bar,
                    met=result.added <= BAR if bar else None,
                )
            )


if __name__ == "__main__":
    main()
