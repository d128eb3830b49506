"""Kills trainers, runners and commands of hooks at random points, and checks the hooks' effects in the end.

    python tests/support/hook_chaos.py --kills 200

One job has several lives in one directory. In each life, processes are killed at random times, then the next start goes
on. In the end `nemotron-artifact flush` runs the open hooks. The command writes a line when it begins, does something,
and writes its effect. Checked for each hook and each checkpoint that a life has reported:

1. the effect exists, and no hook is left to run;
2. the effect exists once, or at most once more for each time that the command itself was killed or told to end;
3. the command has begun once, with the same exception: killing a trainer or runner repeats no command.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = """
import os, sys, time
from nemotron_exec import record_checkpoint

first, count, pause = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
for step in range(first, first + count):
    path = os.path.join("out", "iter_%07d" % step)
    os.makedirs(path, exist_ok=True)
    if record_checkpoint(path):
        os.write(os.open("recorded", os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"%d\\n" % step)
    time.sleep(pause)
"""
COMMAND = """echo begin $NEMOTRON_CHECKPOINT_ITERATION >> NAME
sleep PAUSE
echo effect $NEMOTRON_CHECKPOINT_ITERATION >> NAME"""
HOOKS = {"fast": "0.01", "slow": "0.3"}
LIVES = 4
CHECKPOINTS = 4
TARGETS = ("trainer KILL", "trainer TERM", "runner KILL", "command KILL")


class Job:
    """One job, its lives and its kills."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.kills: collections.Counter[str] = collections.Counter()
        self.struck: collections.Counter[tuple[str, int]] = collections.Counter()
        self.hooks = directory / "out/.nemotron-exec/hooks"
        self.environ = {
            **os.environ,
            "NEMOTRON_EXEC_STORE": str(directory / "store"),
            "NEMOTRON_EXEC_STATE_DIR": str(directory / "state"),
            "NEMOTRON_EXEC_HOOK_BACKOFF": "0.02",
            "NEMOTRON_EXEC_HOOK_DRAIN": "0",
        }
        (directory / "train.py").write_text(TRAIN)
        hooks = [
            {
                "name": name,
                "command": COMMAND.replace("NAME", name).replace("PAUSE", pause),
                "retries": 1000,
                "catch_up": self.random.choice(("beside", "before")),
            }
            for name, pause in HOOKS.items()
        ]
        config = {"run": {"on_checkpoint": hooks}, "checkpoint": {"save": "out"}}
        (directory / "cfg.yaml").write_text(json.dumps(config))

    def live(self, number: int) -> None:
        """Run one start of the job, with kills."""
        pause = self.random.choice((0.02, 0.15))
        words = [
            "nemotron_exec",
            sys.executable,
            "train.py",
            "cfg.yaml",
            str(100 * number),
            str(CHECKPOINTS),
            str(pause),
        ]
        trainer = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.directory,
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._wait_for_first(trainer, 100 * number)
        for target in self.random.sample(TARGETS, 3):
            time.sleep(self.random.uniform(0, 0.3))
            self._kill(target, trainer)
        if number % 2:
            trainer.wait()
        else:
            trainer.kill()
        trainer.communicate()

    def _wait_for_first(self, trainer: subprocess.Popen[str], step: int) -> None:
        reported = f"{step}\n"
        while trainer.poll() is None:
            with contextlib.suppress(OSError):
                if reported in (self.directory / "recorded").read_text():
                    return
            time.sleep(0.01)

    def _kill(self, target: str, trainer: subprocess.Popen[str]) -> None:
        who, _, name = target.partition(" ")
        if who == "trainer":
            if trainer.poll() is None:
                trainer.send_signal(getattr(signal, f"SIG{name}"))
                self.kills[target] += 1
        elif who == "runner":
            for pid in self._runners():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills[target] += 1
        else:
            self._kill_command()

    def _runners(self) -> list[int]:
        """The processes that run this job's hooks."""
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if b"-S" in words and str(self.hooks).encode() in words:
                    found.append(int(name))
        return found

    def _kill_command(self) -> None:
        for path in self.hooks.glob("hook-*.json"):
            with contextlib.suppress(OSError, ValueError):
                entry = json.loads(path.read_text())
                child = entry.get("child") or {}
                if entry["state"] == "running" and _is(child):
                    os.killpg(child["pid"], signal.SIGKILL)
                    self.kills["command KILL"] += 1
                    self.struck[entry["hook"]["name"], entry["checkpoint"]["iteration"]] += 1
                    return

    def end(self) -> None:
        """Run the open hooks."""
        for _ in range(5):
            words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", "out"]
            done = subprocess.run(
                words, cwd=self.directory, env=self.environ, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return
            time.sleep(0.5)
        raise AssertionError(f"{self.directory}: something is left: {done.stderr}")

    def check(self, found: collections.Counter[str]) -> None:
        """Check the three invariants, and count the observations."""
        recorded = {int(line) for line in (self.directory / "recorded").read_text().split()}
        for hook in HOOKS:
            lines = [line.split() for line in (self.directory / hook).read_text().splitlines()]
            for step in sorted(recorded):
                begun, effects = (lines.count([what, str(step)]) for what in ("begin", "effect"))
                cut = self.struck[hook, step] + self._told(hook, step)
                where = f"{self.directory} {hook} {step}: {begun} begun, {effects} effects, {cut} times cut"
                assert effects >= 1, where
                assert effects <= begun <= 1 + cut, where
                found["effects"] += effects
                found["pairs"] += 1
                found["exactly once"] += effects == 1
                found["once more, cut in the middle"] += effects > 1
                found["cut"] += bool(cut)

    def _told(self, hook: str, step: int) -> int:
        """The number of times that the runner told the command to end, according to the command's output."""
        logs = (self.directory / "out/.nemotron-exec/runs").glob(f"hook-{hook}-iter_{step:07d}-*.log")
        return sum(log.read_text().count("== told to end: ") for log in logs)


def _is(child: dict[str, int]) -> bool:
    try:
        stat = Path(f"/proc/{child['pid']}/stat").read_text().rpartition(")")[2].split()
    except (OSError, KeyError):
        return False
    return int(stat[19]) == child["start"] and stat[0] != "Z"


def run(kills: int, seed: int = 0, *, tell: bool = False) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """Run jobs until so many kills were made; returns the kills by target, and the observations."""
    made: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    while sum(made.values()) < kills:
        directory = Path(tempfile.mkdtemp(prefix="hook-chaos-"))
        job = Job(directory, seed)
        for number in range(1, LIVES + 1):
            job.live(number)
        job.end()
        job.check(found)
        made += job.kills
        found["jobs"] += 1
        if tell:
            print(f"seed {seed}: {sum(made.values())} kills so far, {dict(made)}, {dict(found)}", flush=True)
        seed += 1
        shutil.rmtree(directory)
    return made, found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    made, found = run(chosen.kills, chosen.seed, tell=True)
    print(f"{sum(made.values())} kills: {dict(made)}")
    print(dict(found))


if __name__ == "__main__":
    main()
