"""Chaos: kills, stops and wakes launchers of one job at random points, and checks that they still agree.

    python tests/support/chaos.py --seeds 0:5000 --jobs 24

One seed is one job. Its launchers are forks of this process, so that thousands of seeds take minutes. Processes,
signals, file system and filelock are real. The protocol's times are shortened. Three invariants are checked:

1. every launcher that was not killed ends within the bound, all with the same answer or all with the same error;
2. no half-written file stays: every published file is whole, and only published files are left;
3. store and cache are consistent: everything that the published answer names is whole, and a restart of the job gets
   the same answer. In seeds with a real store (chaos_stores.py) the store is undamaged, and the download cache has no
   half file.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for wandb_backend

from chaos_stores import ManifestChaos, NoStore, WandbChaos
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous import agree as rendezvous
from nemotron_exec.rendezvous import leading, relay, waiting  # noqa: F401  loaded before the forks
from nemotron_exec.rendezvous.answer import Lead
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.rendezvous.timing import Timing
from nemotron_exec.shared_directory import lease  # noqa: F401  loaded before the forks

TIMING = Timing(
    lease=0.6,
    heartbeat=0.1,
    retry=0.1,
    head_start=0.05,
    unshared=20.0,
    error_life=60.0,
    gather=0.05,
    settle=0.2,
    progress=0.02,
    abandon=2.0,
)
WANDB = 60
"""One seed in so many resolves from W&B: it takes as much processor time as thirty others."""
BOUND = 60.0
"""Seconds for one seed on a machine that is busy with many others; a lease lasts 0.6 s."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault of a launcher, `at` seconds after its start. A stop lasts `wake` seconds."""

    at: float
    kind: str
    wake: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a seed decides."""

    seed: int
    count: int
    known_ranks: bool
    one_host: bool
    per_node: int
    work: float
    steps: int
    fails: str
    starts: tuple[float, ...]
    faults: dict[int, Fault]
    deaf: bool
    store: str

    @classmethod
    def of(cls, seed: int) -> Plan:
        chance = random.Random(seed)
        count = chance.choice((2, 3, 4, 6, 8))
        survivors = chance.randint(1, count)
        struck = chance.sample(range(count), count - survivors)
        # The leader's death matters most, so half of the seeds strike it.
        if chance.random() < 0.5 and 0 not in struck and count > 1:
            struck = [0, *struck[1:]]
        # W&B's client takes a second to start, and a download from the slow server two more.
        wandb = seed % WANDB == WANDB - 1
        faults = {
            index: Fault(
                chance.uniform(0.0, 6.0 if wandb else 0.8),
                chance.choice(("kill", "kill", "stop", "terminate")),
                chance.choice((0.2, 0.8, 1.5)),
            )
            for index in struck
        }
        return cls(
            seed=seed,
            count=count,
            known_ranks=chance.random() < 0.8,
            one_host=chance.random() < 0.3,
            per_node=chance.choice((1, 1, 2)),
            work=chance.choice((0.0, 0.05, 0.3, 0.6)),
            steps=chance.choice((1, 3, 20)),
            fails=chance.choice(("never", "never", "never", "always", "some")),
            starts=tuple(chance.choice((0.0, 0.0, 0.1, 0.5)) * chance.random() for _ in range(count)),
            faults=faults,
            deaf=chance.random() < 0.2,
            store="wandb" if wandb else chance.choice(("none", "none", "manifest")),
        )


def run(seed: int) -> str | None:
    """Run one job. Returns the broken invariant as text, or None."""
    plan = Plan.of(seed)
    directory = tempfile.mkdtemp(prefix=f"chaos-{seed}-")
    try:
        store = _store(plan, directory)
        with store.prepare():
            problem = _first_life(plan, directory, store) or _second_life(plan, directory, store)
        problem = problem or store.problem((_result(directory, 1, 0) or {})["answer"]["artifacts"])
    finally:
        if "CHAOS_KEEP" not in os.environ:
            shutil.rmtree(directory, ignore_errors=True)
    return problem and f"seed {seed}: {problem}\n  {plan}\n  {directory}"


def _store(plan: Plan, directory: str) -> NoStore:
    chance = random.Random(plan.seed + 0.5)
    if plan.store == "manifest":
        return ManifestChaos(directory, chance)
    return WandbChaos(directory, chance) if plan.store == "wandb" else NoStore()


def _first_life(plan: Plan, directory: str, store: NoStore) -> str | None:
    began = time.monotonic()
    running: dict[int, int] = {}
    due = [(start, "start", index) for index, start in enumerate(plan.starts)]
    for index, fault in plan.faults.items():
        at = plan.starts[index] + fault.at
        due.append((at, fault.kind, index))
        if fault.kind == "stop":
            due.append((at + fault.wake, "wake", index))
    for at, what, index in sorted(due):
        time.sleep(max(0.0, began + at - time.monotonic()))
        if what == "start":
            running[index] = _fork(plan, store, index, directory, attempt=0)
        elif index in running:
            _signal(running[index], what)
    if problem := _reap(running, began):
        return problem
    spared = [index for index in range(plan.count) if plan.faults.get(index, Fault(0, "none")).kind in ("none", "stop")]
    results = {index: _result(directory, 0, index) for index in range(plan.count)}
    missing = [index for index in spared if results[index] is None]
    if missing:
        return f"launchers {missing} said nothing"
    said = {json.dumps(result, sort_keys=True) for result in results.values() if result is not None}
    if len(said) > 1:
        return f"they disagree: {sorted(said)}"
    return None


def _second_life(plan: Plan, directory: str, store: NoStore) -> str | None:
    """Requeue the job: it must get the same answer and remove everything that the first life left."""
    began = time.monotonic()
    before = [_result(directory, 0, index) for index in range(plan.count)]
    first = next((result for result in before if result is not None), None)
    quiet = dataclasses.replace(plan, fails="never", faults={}, work=0.0)
    running = {index: _fork(quiet, store, index, directory, attempt=1) for index in range(2)}
    if problem := _reap(running, began):
        return f"second life: {problem}"
    results = [_result(directory, 1, index) for index in range(2)]
    if None in results or results[0] != results[1] or "answer" not in (results[0] or {}):
        return f"second life: {results}"
    if first is not None and "answer" in first and results[0] != first:
        return f"the answer has changed: {first} {results[0]}"
    return _untidy(plan, Path(directory))


def _untidy(plan: Plan, directory: Path) -> str | None:
    [meeting] = directory.glob("state/jobs/*/*.k")
    published = {}
    for path in meeting.glob("answer.*.json"):
        try:
            published[path.name] = json.loads(path.read_text())
        except ValueError:
            return f"{path} is not whole"
    files = {body["files"] for body in published.values()} - {None}
    for name in files:
        config = meeting / name / "cfg.yaml"
        if not config.exists() or config.read_text() != "whole: yes\n":
            return f"{name} is not whole"
    left = {path.name for path in meeting.iterdir()} - files - set(published) - {"nodes"}
    if any(fault.kind == "kill" for fault in plan.faults.values()):
        # A leader may be killed between its publication and the end of its lease. The lease then expires, and no
        # launcher waits for it.
        left -= {"lease", "progress.json"}
    return f"left behind: {sorted(left)}" if left else None


# -- one launcher ---------------------------------------------------------------------------------------------------


def _fork(plan: Plan, store: NoStore, index: int, directory: str, attempt: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _launcher(plan, store, index, directory, attempt)
    except BaseException as error:  # noqa: BLE001  a fork must not return to its parent's code
        with open(os.path.join(directory, f"crash.{attempt}.{index}"), "w") as file:
            file.write(repr(error))
    finally:
        os._exit(code)


def _launcher(plan: Plan, store: NoStore, index: int, directory: str, attempt: int) -> int:
    if not plan.one_host:
        name, kernel = f"host{index // plan.per_node}", os.uname()
        # filelock reads the first name, nemotron-exec the second.
        socket.gethostname = lambda: name
        os.uname = lambda: os.uname_result((kernel.sysname, name, *kernel[2:]))
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(number))
    chance = random.Random(plan.seed * 1000 + index)
    nodes = (plan.count + plan.per_node - 1) // plan.per_node
    known = plan.known_ranks
    place = Place(
        index=index if known else None,
        count=plan.count if known else None,
        node=index // plan.per_node if known else None,
        nodes=nodes if known else None,
        local_index=index % plan.per_node if known else None,
        local_count=plan.per_node if known else None,
        attempt=attempt,
        source="chaos",
    )
    state = os.path.join(directory, "state")
    local = os.path.join(directory, f"local{index // plan.per_node}")
    for path in (state, local):
        os.makedirs(path, 0o700, exist_ok=True)

    def produce(lead: Lead) -> dict[str, object]:
        path = os.path.join(lead.directory, "cfg.yaml")
        with open(path, "w") as file:
            file.write("whole: ")
            file.flush()
            for _ in range(plan.steps):
                time.sleep(plan.work / plan.steps)
                # Some leaders do not learn that another launcher has overtaken them.
                if not plan.deaf:
                    lead("data")
            file.write("yes\n")
        artifacts = store.resolve((lambda *_: None) if plan.deaf else lead)
        if plan.fails == "always" or (plan.fails == "some" and chance.random() < 0.5):
            raise TemporaryError("something", f"nothing, says {index}", "Again")
        return {"made_by": f"{index} in attempt {attempt}", "artifacts": artifacts}

    try:
        agreement = rendezvous.agree(
            place,
            JobIdentity("chaos", "--job-id", shared=True),
            StateDirectory(state, "--state-dir", "ext4", os.geteuid(), shared=False, local=local),
            question=Question("k"),
            produce=produce,
            timeout=BOUND,
            stall=BOUND,
            refresh=False,
            messages=Messages("error"),
            timing=TIMING,
        )
        result = {"answer": dict(agreement.answer)}
        assert agreement.directory is not None
        with open(os.path.join(agreement.directory, "cfg.yaml")) as file:
            assert file.read() == "whole: yes\n", "half a file"
    except LaunchError as error:
        result = {"error": str(error), "code": error.exit_code}
    path = os.path.join(directory, f"result.{attempt}.{index}")
    with open(path + ".part", "w") as file:
        json.dump(result, file)
    os.rename(path + ".part", path)
    return 0


def _signal(pid: int, what: str) -> None:
    numbers = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "wake": signal.SIGCONT, "terminate": signal.SIGTERM}
    # An ended launcher is a zombie until this process waits for it, so no other process has its number.
    os.kill(pid, numbers[what])


def _reap(running: dict[int, int], began: float) -> str | None:
    left = dict(running)
    while left:
        for index, pid in list(left.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del left[index]
        if time.monotonic() - began > BOUND + 30:
            for pid in left.values():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            return f"launchers {sorted(left)} have not ended after {BOUND + 30:.0f} s"
        time.sleep(0.02)
    return None


def _result(directory: str, attempt: int, index: int) -> dict | None:
    try:
        with open(os.path.join(directory, f"result.{attempt}.{index}")) as file:
            return json.load(file)
    except FileNotFoundError:
        crash = os.path.join(directory, f"crash.{attempt}.{index}")
        if os.path.exists(crash):
            text = Path(crash).read_text()
            return None if text.startswith("SystemExit") else {"crash": text}
        return None


# -- many seeds -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:1000", metavar="FIRST:LAST", help="LAST is not included")
    parser.add_argument("--jobs", type=int, default=16, help="seeds at once; they mostly wait")
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split(":"))
    workers = []
    for number in range(arguments.jobs):
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            os.close(reading)
            with os.fdopen(writing, "w") as report:
                for seed in range(first + number, last, arguments.jobs):
                    if problem := run(seed):
                        report.write(problem + "\n")
                        report.flush()
            os._exit(0)
        os.close(writing)
        workers.append((pid, reading))
    problems = ""
    for pid, reading in workers:
        with os.fdopen(reading) as report:
            problems += report.read()
        if os.waitpid(pid, 0)[1]:
            problems += f"worker {pid} has failed\n"
    sys.stdout.write(problems)
    stores = collections.Counter(Plan.of(seed).store for seed in range(first, last))
    counts = ", ".join(f"{count} with {name}" for name, count in sorted(stores.items()) if name != "none")
    sys.stdout.write(
        f"{last - first} seeds ({counts or 'none with a store'}), {problems.count('seed ')} with problems\n"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
