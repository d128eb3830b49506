"""Chaos: kills trainers that save with the real wandb while W&B fails, and checks that each save arrives once.

    python tests/support/chaos_wandb.py --seconds 300

One seed is one job of several lives: a `Trainer` each, against one W&B server of `tests/wandb_backend`. The server
fails in every way that it knows: at the start of a life, between two saves, and at its end. A life is killed alone,
killed together with the client's service, ended by SIGTERM, or exits. In some lives the save directory's store cannot
be written. Some lives are followed by a flush, which is killed now and then.

At the end W&B answers again and a flush runs. Then each acknowledged save is one version in the manifest store and one
in W&B, `latest` is the newest save in both, and the outbox is empty. No save, start or end may take longer than BOUND.
No outage may end a job at its start.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from nemotron_exec.outbox import flush
from nemotron_exec.sitecustomize.payload.checkpoints import outbox
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from trainers import Trainer
from wandb_backend import Backend

LIVES = 3
SAVES = 3  # at most in one life
BOUND = 180.0  # seconds for one save, start or end; what they wait for takes 60 s at most, and a machine may be busy
NAME = "pretrain"

# What the server does, by `Backend.fail`. None stands for a key that has expired.
WAYS = {
    "500": {"status": 500},
    "503": {"status": 503, "retry_after": 0},
    "429": {"status": 429, "retry_after": 1},
    "hangs": {"delay": 600},
    "resets": {"hang_up": True},
    "nulls": {"null": True},
    "refuses": {"status": 400},
    "expired": None,
}
WHERE = ("*", "*", "graphql", "UpsertBucket", "CreateArtifact", "*Manifest*", "CommitArtifact", "PUT *", "file_stream")

# Makes the client give up in seconds; by default it takes an hour.
CLIENT = {
    f"WANDB__{part}_{name}": value
    for part in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for name, value in (
        ("RETRY_MAX", "2"),
        ("RETRY_WAIT_MIN_SECONDS", "1"),
        ("RETRY_WAIT_MAX_SECONDS", "1"),
        ("TIMEOUT_SECONDS", "5"),
    )
}


# Answers of a server that is not down: the client's error ends the job.
NO_OUTAGE = ("nulls", "refuses", "expired")


class HangError(Exception):
    """Something took longer than BOUND."""


class CostError(Exception):
    """An outage ended a job that does not require W&B."""


class Job:
    """One save directory, one store, one W&B server."""

    def __init__(self, seed: int, root: Path, backend: Backend) -> None:
        self.chance = random.Random(seed)
        self.root = root
        self.backend = backend
        self.save_dir = root / "out" / NAME
        self.store = root / "store"
        self.environ = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            **backend.environ(root / "home"),
            **CLIENT,
            "NEMOTRON_EXEC_STORE": str(self.store),
            "NEMOTRON_EXEC_BACKEND": "wandb",
            "NEMOTRON_EXEC_CHECKPOINT_DRAIN": "3",
            "NEMOTRON_EXEC_WANDB_REQUIRED": "0",
            "NEMOTRON_EXEC_WANDB_TIMEOUT": "3",
            "TRAINER_LINEAGE": "1",
            "SAVE_DIR": str(self.save_dir),
        }
        self.step = 0
        self.saved: set[int] = set()
        self.way: str | None = None
        self.figures: collections.Counter[str] = collections.Counter()

    def trouble(self) -> None:
        """Let the server fail in one way, once or from now on, or answer again."""
        self.recover()
        self.way = None
        if self.chance.random() < 0.25:
            return
        self.way = way = self.chance.choice(list(WAYS))
        self.figures["faults"] += 1
        self._log(f"W&B: {way}")
        how = WAYS[way]
        if how is None:
            self.backend.keys.clear()
            return
        where = "graphql" if way == "nulls" else self.chance.choice(WHERE)
        times = self.chance.choice((None, None, 1, 3))
        self._log(f"… {where}, {times or 'all'} times")
        self.backend.fail(where, times=times, **how)

    def recover(self) -> None:
        """The server answers again."""
        self.backend.faults.clear()
        self.backend.keys.add(self.environ["WANDB_API_KEY"])

    def live(self) -> None:
        """Run one life, which ends in some way."""
        self.trouble()
        self.figures["lives"] += 1
        broken = self.chance.random() < 0.2
        if broken:
            self._break_store()
        try:
            trainer = self._start()
        except TimeoutError as error:
            raise HangError(f"a start: {error}") from None
        if trainer is not None:
            try:
                self._train(trainer)
            finally:
                trainer.close()
                self._log(trainer.errors())
        if broken:
            self._mend_store()

    def _start(self) -> Trainer | None:
        """A trainer; None if its start failed by an answer that is no outage."""
        process = Trainer.popen(self.environ, wandb=True)
        trainer = Trainer(process)
        deadline = time.monotonic() + BOUND
        while True:
            with contextlib.suppress(TimeoutError):
                trainer.answer("ready", timeout=0.5)
                return trainer
            if process.poll() is not None:
                self.figures["refused"] += 1
                errors = trainer.errors()
                trainer.close()
                if self.way not in NO_OUTAGE:
                    raise CostError(f"a start under {self.way}: {errors}")
                self._log(f"refused: {errors[-300:]}")
                return None
            if time.monotonic() > deadline:
                trainer.close()
                raise TimeoutError(trainer.errors())

    def _train(self, trainer: Trainer) -> None:
        for _ in range(self.chance.randint(1, SAVES)):
            if self.chance.random() < 0.5:
                self.trouble()
            self.step += 1
            trainer.say(f"save {self.step}")
            self._log(f"save {self.step}")
            if self.chance.random() < 0.15:
                time.sleep(self.chance.uniform(0.0, 0.05))
                break  # dies inside the save
            try:
                trainer.answer("done", timeout=BOUND)
            except TimeoutError as error:
                raise HangError(f"save {self.step}: {error}") from None
            self.saved.add(self.step)
            time.sleep(self.chance.choice((0.0, 0.0, 0.3, 1.5)) * self.chance.random())
        if self.chance.random() < 0.5:
            self.trouble()
        how = self.chance.choice(("kill", "kill", "tree", "term", "exit", "finish"))
        self._log(f"step {self.step}: {how}")
        if how in ("kill", "tree"):
            self.figures["kills"] += 1
            below = descendants(trainer.process.pid) if how == "tree" else []
            for pid in (trainer.process.pid, *below):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif how == "term":
            trainer.process.send_signal(signal.SIGTERM)
        else:
            with contextlib.suppress(BrokenPipeError):
                if how == "finish":
                    trainer.say("finish")
                trainer.say("exit 0")
        try:
            trainer.end(BOUND)
        except subprocess.TimeoutExpired:
            raise HangError(f"the end by {how}: {trainer.errors()}") from None

    def flush(self, timeout: float = 120.0) -> list[tuple[str, str]]:
        """Flush the outbox as the next start does; returns the entries that stay."""
        began = time.monotonic()
        places = [str(self.save_dir), str(self.store)]
        report = flush.replay([one for one in places if os.path.isdir(one)], timeout=timeout, environ=self.environ)
        if time.monotonic() - began > timeout + BOUND:
            raise HangError(f"a flush took {time.monotonic() - began:.0f} s")
        return report.kept

    def _break_store(self) -> None:
        if self.store.is_dir():
            self.store.rename(self.root / "unmounted")
        self.store.write_text("no directory")

    def _mend_store(self) -> None:
        if self.store.is_file():
            self.store.unlink()
        if (self.root / "unmounted").is_dir():
            self.store.mkdir(exist_ok=True)
            shutil.copytree(self.root / "unmounted", self.store, dirs_exist_ok=True)
            shutil.rmtree(self.root / "unmounted")

    def problem(self) -> tuple[str, str] | None:
        """The problem after the last flush, (kind, words), or None."""
        store = str(self.store)
        found = [
            read.read_version(store, NAME, one, skip_gone=False).manifest["metadata"]["iteration"]
            for one in (listing.versions(store, NAME) if self.store.is_dir() else [])
        ]
        in_wandb = self._in_wandb()
        for where, steps in (("the store", found), ("W&B", in_wandb)):
            if lost := sorted(self.saved - set(steps)):
                return "lost", f"{where} lacks {lost}; it has {steps}"
            if len(steps) > len(set(steps)):
                return "twice", f"{where} has {steps}"
        if set(found) != set(in_wandb):
            return "disagree", f"the store has {found}, W&B {in_wandb}"
        if found:
            latest = read.read_version(store, NAME, "latest").manifest["metadata"]["iteration"]
            if not latest == self._latest_in_wandb() == max(found):
                return "latest", f"latest is {latest}, in W&B {self._latest_in_wandb()}; {max(found)} is the newest"
        boxes = [Path(outbox.directory_of(str(place))) for place in (self.save_dir, self.store)]
        if waiting := [str(entry) for box in boxes for entry in box.glob("*.json")]:
            return "waiting", f"{waiting} stay"
        if self.backend.unknown:
            return "unknown", f"the server does not know {self.backend.unknown}"
        return None

    def _collection(self):
        project = self.backend.model.entities["team"].get("nemotron")
        return project and project.collections.get(NAME)

    def _in_wandb(self) -> list[int]:
        collection = self._collection()
        versions = collection.versions if collection else []
        return sorted(one.metadata["iteration"] for one in versions if one.state == "COMMITTED")

    def _latest_in_wandb(self) -> int | None:
        collection = self._collection()
        return collection and collection.versions[collection.aliases["latest"]].metadata["iteration"]

    def _log(self, text: str) -> None:
        """Keep a line for the person who reads what CHAOS_KEEP has kept."""
        with open(self.root / "log", "a") as file:
            file.write(f"{time.monotonic() - self.backend._started:7.2f} {text}\n")

    def keep(self, directory: str) -> None:
        """Copy everything, and what the server was asked."""
        for one in self.backend.log:
            self._log(f"{one.at:7.2f} {one.status} {one.name} {json.dumps(one.variables)[:1500]}")
        shutil.copytree(self.root, directory, symlinks=True)


def descendants(pid: int) -> list[int]:
    """The processes below one, among them the client's service."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def run(seed: int) -> tuple[collections.Counter[str], tuple[str, str] | None]:
    """Run one job; returns its figures and its problem."""
    root = Path(tempfile.mkdtemp(prefix=f"chaos-wandb-{seed}-"))
    with Backend() as backend:
        job = Job(seed, root, backend)
        try:
            for _ in range(LIVES):
                job.live()
                if job.chance.random() < 0.4:
                    job.flush(timeout=job.chance.choice((1.0, 5.0, 20.0)))  # killed after that, wherever it is
            job.recover()
            deadline = time.monotonic() + BOUND
            while (kept := job.flush()) and time.monotonic() < deadline:
                job._log(f"kept: {kept}")
            found = job.problem()
        except HangError as error:
            found = ("hang", str(error))
        except CostError as error:
            found = ("cost", str(error))
        job.figures["saves"] = len(job.saved)
        if found and "CHAOS_KEEP" in os.environ:
            job.keep(os.path.join(os.environ["CHAOS_KEEP"], str(seed)))
    shutil.rmtree(root, ignore_errors=True)
    return job.figures, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=10**9, help="how many at most")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    figures: collections.Counter[str] = collections.Counter()
    wrong = dict.fromkeys(("lost", "twice", "disagree", "latest", "waiting", "unknown", "hang", "cost"), 0)
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if time.monotonic() > until:
            break
        found, problem = run(seed)
        figures += found
        figures["runs"] += 1
        if problem:
            wrong[problem[0]] += 1
            sys.stdout.write(f"seed {seed}: {problem[0]}: {problem[1]}\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps({**figures, **wrong}) + "\n")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
