"""Chaos: kills trainers that save at random points, and checks that each save is one version and `latest` the newest.

    python tests/support/chaos_saves.py --seconds 300

One seed is one job of several lives, which are forks of this process. Store, outbox, registration and flush are real.

1. Late delivery: in some lives the store cannot be written. Their saves stay in the outbox, and later saves arrive
   first.
2. In half of the seeds the next start does not know the save directory. Only a save of the next life, or a flush by
   hand, finds the entries. If a life died before its rename, the next life saves that step again.
3. A pin is damaged, belongs to another job, or names a version that the store lacks. The next start uses the versions
   of the first start, or stops.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.outbox import flush
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.resolution.pin import Pins
from nemotron_exec.sitecustomize.payload import job as process_job
from nemotron_exec.sitecustomize.payload.checkpoints import commit, deliver, describe, pruning, record, settings
from nemotron_exec.sitecustomize.payload.manifest import listing, read, register

LIVES = 4
SAVES = 4  # at most in one life
QUIET = Messages("error", stream=io.StringIO())


class Job:
    """One save directory, one store."""

    def __init__(self, seed: int, root: str) -> None:
        self.chance = random.Random(seed)
        self.save_dir = os.path.join(root, "out", "grpo")
        self.store = os.path.join(root, "store")
        self.known = self.chance.random() < 0.5
        os.makedirs(self.save_dir)
        self.kills = 0

    def complete(self) -> list[int]:
        """The training steps whose checkpoints are complete: the framework's last step is a rename."""
        names = os.listdir(self.save_dir)
        return sorted(int(name[5:]) for name in names if name.startswith("step_"))

    def live(self) -> None:
        """Run one life: it resumes, saves, and is killed at some point, or ends."""
        first = max(self.complete(), default=0) + 1
        count = self.chance.randint(1, SAVES)
        broken = self.chance.random() < 0.4
        dies = self.chance.random() < 0.8
        if self.known:
            self.flush()
        if not (pid := os.fork()):
            code = 1
            try:
                with open(os.path.join(os.path.dirname(self.store), "stderr"), "a") as log:
                    os.dup2(log.fileno(), 2)
                self._train(range(first, first + count), broken)
                code = 0
            finally:
                os._exit(code)
        if dies:
            time.sleep(self.chance.uniform(0.0, self.chance.choice((0.02, 0.3)) * count))
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
        os.waitpid(pid, 0)

    def _train(self, steps: range, broken: bool) -> None:
        os.environ.update(NEMOTRON_EXEC_STORE=self.store, NEMOTRON_EXEC_BACKEND="manifest", NEMOTRON_EXEC_QUIET="1")
        process_job._parts.pop(settings._Said, None)
        process_job._parts[commit.Committer] = commit.Committer()
        if broken:
            # Simulate an unreachable store server. File permissions would not stop root.
            record.manifest_register.register = _refuse
        for step in steps:
            former, path = (os.path.join(self.save_dir, f"{prefix}step_{step}") for prefix in ("tmp_", ""))
            os.makedirs(former, exist_ok=True)
            with open(os.path.join(former, "weights"), "w") as file:
                file.write(str(os.getpid()))
            announced = record.announce(_completed(self.save_dir, path, step), renamed_from=former)
            os.rename(former, path)
            deliver.deliver(record.complete(announced))
            pruning.look_soon(self.save_dir)
        if not broken:
            commit.committer().settle(5)

    def flush(self) -> None:
        """Flush the outbox as the next start or `nemotron-artifact flush` does."""
        flush.flush(flush.pending([self.save_dir]), to_wandb=False)

    def problem(self) -> tuple[str, str] | None:
        """The problem after the last flush, ("lost" | "twice" | "latest", words), or None."""
        versions = listing.versions(self.store, "grpo") if os.path.isdir(self.store) else []
        found = [read.read_version(self.store, "grpo", one, skip_gone=False).manifest for one in versions]
        steps = collections.Counter(one["metadata"]["iteration"] for one in found)
        complete = self.complete()
        if lost := [step for step in complete if not steps[step]]:
            return "lost", f"steps {lost} have no version; {dict(steps)}"
        if twice := [step for step, count in steps.items() if count > 1]:
            return "twice", f"steps {twice} have several versions"
        if complete:
            latest = read.read_version(self.store, "grpo", "latest").manifest["metadata"]["iteration"]
            if latest != complete[-1]:
                return "latest", f"latest is step {latest}, and {complete[-1]} is the newest save"
        return None


def _refuse(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


def _completed(save_dir: str, path: str, step: int) -> describe.Completed:
    return describe.Completed(
        framework="nemo-rl",
        versions={"nemo-rl": "0"},
        save_dir=save_dir,
        checkpoint_path=path,
        number=step,
        alias=f"step_{step}",
        path_is_checkpoint=True,
        transient=False,
        best=None,
        extra={},
    )


# -- pins --------------------------------------------------------------------------------------------------------------


def pins(seed: int, root: str) -> tuple[str, str] | None:
    """Run a chain of two jobs over a damaged pin. Returns ("pin", words) if the versions changed."""
    chance = random.Random(seed)
    store, save = os.path.join(root, "pinstore"), os.path.join(root, "pinned")
    os.makedirs(os.path.join(save, "step_20"))
    for _ in range(2):
        register.register(store, "blend", type="dataset", path=root, metadata={})
    reference = parse_reference("data", "blend:latest", Origin("cfg.yaml", 2))
    first = Artifact("data", "blend:latest", "manifest", "blend", "v1", "dataset", root, "blend:v1")
    _pins(root, save, "slurm-1.0").write([first])
    path = os.path.join(save, ".nemotron-exec", "pin.json")
    with open(path, "rb") as file:
        content = bytearray(file.read())
    kind = chance.choice(("cut", "flipped", "emptied", "version", "nothing"))
    if kind == "cut":
        del content[chance.randrange(len(content)) :]
    elif kind == "flipped":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "emptied":
        content = bytearray(len(content))
    elif kind == "version":
        content = bytearray(content.replace(b"v1", b"v7"))
    with open(path, "wb") as file:
        file.write(content)
    if chance.random() < 0.3:
        os.chown(path, 12345, 12345)
    try:
        found = _pins(root, save, chance.choice(("slurm-1.0", "slurm-2.0"))).apply([reference])
    except LaunchError:
        return None  # the start stops, and its error tells how to go on
    used = {item.version for item in found.artifacts} | {item.alias for item in found.open}
    if used - {"v1"}:
        return "pin", f"a pin that was {kind}: the next start uses {used}"
    return None


def _pins(root: str, save: str, job: str) -> Pins:
    state = os.path.join(root, "state")
    os.makedirs(state, exist_ok=True)
    return Pins(
        StateDirectory(state, "--state-dir", "ext4", os.geteuid(), False),
        JobIdentity(job, "SLURM_JOB_ID", True, step="0"),
        Place(0, 1, 0, 1, 0, 1, 0, "chaos"),
        save_directory=save,
        file=None,
        refresh=False,
        messages=QUIET,
    )


# -- many seeds --------------------------------------------------------------------------------------------------------


def run(seed: int) -> dict[str, object]:
    """Run one job; returns its problem and its number of kills."""
    root = tempfile.mkdtemp(prefix=f"chaos-saves-{seed}-")
    try:
        job = Job(seed, root)
        for _ in range(LIVES):
            job.live()
        for _ in range(2):
            job.flush()
        found = job.problem() or pins(seed, root)
        if found and "CHAOS_KEEP" in os.environ:
            shutil.copytree(root, os.path.join(os.environ["CHAOS_KEEP"], str(seed)), symlinks=True)
        return {"seed": seed, "kills": job.kills, "saves": len(job.complete()), "found": found}
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=10**9, help="how many at most")
    arguments = parser.parse_args()
    os.environ["NEMOTRON_EXEC_QUIET"] = "1"
    until = time.monotonic() + arguments.seconds
    kills = saves = runs = 0
    kinds: collections.Counter[str] = collections.Counter()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if time.monotonic() > until:
            break
        result = run(seed)
        runs, kills, saves = runs + 1, kills + result["kills"], saves + result["saves"]
        if result["found"]:
            kinds[result["found"][0]] += 1
            sys.stdout.write(f"seed {seed}: {result['found'][1]}\n")
    wrong = {kind: kinds[kind] for kind in ("lost", "twice", "latest", "pin")}
    sys.stdout.write(json.dumps({"runs": runs, "kills": kills, "saves": saves, **wrong}) + "\n")
    return 1 if kinds else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
