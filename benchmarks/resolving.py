"""Times a launcher that resolves two artifacts of the manifest store and a config of 300 lines, from spawn to exec.

The baseline is a console script that loads, resolves and saves the same file with OmegaConf, as people write it in
place of a launcher. The script makes no look-ups (its `art` answers from a table), no agreement with other nodes, and
no checks.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from benchmarks import environments
from benchmarks.pairs import Case, be_left_alone, compare
from benchmarks.row import Row, emit

if TYPE_CHECKING:
    from collections.abc import Iterable

PAIRS = 60
BAR = 0.75
CONFIG = os.path.join(environments.ROOT, "benchmarks", "pretrain.yaml")


def main() -> None:
    """Measure a job that has to resolve, and a restart that finds the answer."""
    environment = environments.launcher()
    be_left_alone()
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        write_store(os.path.join(home, "store"))
        environ = {
            **environments.clean_environ(environment, home),
            "TMPDIR": home,
            "NEMO_ARTIFACT_ROOT": os.path.join(home, "store"),
        }
        restarted = {**environ, "SLURM_JOB_ID": "4242", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
        ours = environments.bin_of(environment, "nemotron-exec")
        script = environments.bin_of(environment, "baseline-omegaconf")
        baseline = Case("baseline", [script, CONFIG, os.path.join(home, "resolved.yaml"), "/bin/true"], environ)
        cases = [
            Case("A/A: OmegaConf against itself", baseline.argv, environ),
            Case("nemotron-exec resolves and starts", [ours, "/bin/true", CONFIG], environ),
            Case("nemotron-exec in a restart of the same job", [ours, "/bin/true", CONFIG], restarted),
        ]
        for name, result in compare(baseline, cases, pairs=PAIRS, prepare=None).items():
            bar = "" if name.startswith("A/A") else f"at most {BAR} times"
            emit(
                Row.of(
                    name,
                    result,
                    against="OmegaConf's load, resolve and save in a console script",
                    bar=bar,
                    met=result.ratio <= BAR if bar else None,
                )
            )
        # Show whether the work is linear in the file's length. OmegaConf's script takes seconds, so there are fewer
        # pairs.
        long = os.path.join(home, "long.yaml")
        lines = write_long_config(long)
        unlimited = {**environ, "OMEGACONF_MAX_YAML_EXPANDED_NODES": "none"}  # 2.4 refuses 10,000 nodes
        baseline = Case("baseline", [script, long, os.path.join(home, "resolved.yaml"), "/bin/true"], unlimited)
        case = Case(f"nemotron-exec resolves {lines} lines", [ours, "/bin/true", long], environ)
        for name, result in compare(baseline, [case], pairs=8, prepare=None).items():
            emit(Row.of(name, result, against="OmegaConf's script, on the same file", bar="", met=None))


def write_long_config(path: str) -> int:
    """Write the config with its sections repeated to about 5,000 lines; returns the number of lines."""
    with open(CONFIG, encoding="utf-8") as file:
        text = file.read()
    body = text[text.index("\nrecipe:") + 1 :]
    copies = [text]
    while sum(map(len, copies)) < len(text) / text.count("\n") * 5000:
        indented = "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))
        copies.append(f"copy_{len(copies)}:\n{indented}")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(copies))
    return "\n".join(copies).count("\n")


def write_store(root: str) -> None:
    """Write a store with the two artifacts of pretrain.yaml, three versions each."""
    shutil.rmtree(root, ignore_errors=True)
    for name, kind, metadata in (
        ("PretrainBlendsArtifact-bench", "dataset", {"pack_size": 4096}),
        ("ModelArtifact-bench", "model", {"iteration": 9000}),
    ):
        data = os.path.join(root, "data", name)
        os.makedirs(data)
        write_versions(root, name, (1, 2, 3), kind, data, metadata)


def write_versions(
    root: str, name: str, numbers: Iterable[int], kind: str, data: str, metadata: dict[str, object]
) -> None:
    """Write versions of an artifact in ascending order, as `register` leaves them. The last one is `latest`."""
    created = "2026-03-11T10:00:00+00:00"
    for number in numbers:
        version = os.path.join(root, name, f"v{number}")
        os.makedirs(version)
        manifest = {
            "name": name,
            "version": number,
            "type": kind,
            "path": data,
            "created_at": created,
            "producer": "benchmark",
            "metadata": metadata,
            "inputs": [],
            "used_artifacts": [],
        }
        fields = {
            "path": data,
            "type": kind,
            "created_at": created,
            "iteration": metadata.get("iteration"),
            "absolute_path": data,
            "metadata": metadata,
        }
        for file_name, content in (("manifest.json", manifest), ("metadata.json", fields)):
            with open(os.path.join(version, file_name), "w", encoding="utf-8") as file:
                json.dump(content, file)
    with open(os.path.join(root, name, "latest"), "w", encoding="utf-8") as file:
        file.write(f"v{number}")


if __name__ == "__main__":
    main()
