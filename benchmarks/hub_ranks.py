"""Counts requests and time of 64 ranks that load a model's config and tokenizer from the hub with transformers.

A snapshot is measured, too: by the launcher, and by `hf download` of the same huggingface_hub.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import environments
from benchmarks.row import Row, emit

sys.path.insert(0, os.path.join(environments.ROOT, "tests"))
sys.path.insert(0, os.path.join(environments.ROOT, "tests", "support"))

from hub_backend import Hub
from tiny_model import FILES

PROGRAM = os.path.join(environments.ROOT, "tests", "support", "hub_ranks.py")
RANKS = 64
RUNS = 3
PART = 16 << 20  # bytes of one file of a snapshot
LATENCY = 0.05  # seconds before every answer of the hub
CONFIG = """\
run: {model: hf://org/model}
policy: {model_name: org/model, tokenizer: {name: org/model}}
"""


def main() -> None:
    ranks()
    snapshot()


def ranks() -> None:
    """Measure ranks that load the model."""
    python = environments.bin_of(environments.peer("transformers"), "python")
    launcher = [sys.executable, "-m", "nemotron_exec"]
    seconds, requests = {}, {}
    for name, before in (("without", []), ("with", launcher)):
        with Hub() as hub, tempfile.TemporaryDirectory() as home:
            hub.seed("org/model", FILES)
            hub.latency = LATENCY
            config = Path(home, "cfg.yaml")
            config.write_text(CONFIG, encoding="utf-8")
            environ = {**os.environ, **hub.environ(Path(home, "hf")), "TMPDIR": home}
            command = [*before, python, PROGRAM, str(config), str(RANKS)]
            started = time.monotonic()
            subprocess.run(command, env=environ, cwd=home, check=True, capture_output=True)
            seconds[name] = time.monotonic() - started
            requests[name] = hub.operations()
    note = f"an empty cache, {LATENCY * 1000:.0f} ms before every answer, one node"
    emit(
        Row(
            f"{RANKS} ranks and a model of the hub: requests",
            "requests",
            requests["with"],
            requests["without"],
            bar="at most 30, whatever the number of ranks",
            met=requests["with"] <= 30,
            against="the same ranks without nemotron-exec",
            pairs=1,
            note=note,
        )
    )
    emit(
        Row(
            f"{RANKS} ranks and a model of the hub: all have loaded it",
            "s",
            seconds["with"],
            seconds["without"],
            against="the same ranks without nemotron-exec",
            pairs=1,
            note=note,
        )
    )


def snapshot() -> None:
    """Measure a snapshot of eight files of 16 MB, into an empty cache and with a full one."""
    weights = {f"model-{number}.safetensors": os.urandom(PART) for number in range(8)}
    by_hand = [os.path.join(os.path.dirname(sys.executable), "hf"), "download", "org/model"]
    seconds: dict[tuple[str, str], list[float]] = {}
    with Hub() as hub:
        hub.seed("org/model", {**FILES, **weights})
        hub.latency = LATENCY
        for _ in range(RUNS):
            for way in ("ours", "hf download"):
                with tempfile.TemporaryDirectory() as home:
                    config = Path(home, "cfg.yaml")
                    config.write_text("run: {model: hf://org/model}\npath: ${art:model,path}\n", encoding="utf-8")
                    ours = [sys.executable, "-m", "nemotron_exec", "/bin/true", str(config)]
                    environ = {**os.environ, **hub.environ(Path(home, "hf")), "TMPDIR": home, "HOME": home}
                    for cache in ("into an empty cache", "with a full cache"):
                        started = time.monotonic()
                        command = ours if way == "ours" else by_hand
                        subprocess.run(command, env=environ, cwd=home, check=True, capture_output=True)
                        seconds.setdefault((way, cache), []).append(time.monotonic() - started)
    for cache in ("into an empty cache", "with a full cache"):
        emit(
            Row(
                f"a snapshot of the hub {cache}",
                "s",
                statistics.median(seconds["ours", cache]),
                statistics.median(seconds["hf download", cache]),
                against="hf download",
                pairs=RUNS,
                note=f"eight files of 16 MB, {LATENCY * 1000:.0f} ms before every answer",
            )
        )


if __name__ == "__main__":
    main()
