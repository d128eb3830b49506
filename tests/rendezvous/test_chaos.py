"""Agreement under kills, stops and failures at random points, and a model of the protocol.

`make chaos` runs thousands of seeds of the same (tests/support/chaos.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

CHAOS = Path(__file__).resolve().parents[1] / "support/chaos.py"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", ["0:24", pytest.param("24:144", marks=pytest.mark.ci)])
def test_survivors_agree_whatever_happens_to_the_others(seeds):
    done = subprocess.run(
        [sys.executable, str(CHAOS), "--seeds", seeds, "--jobs", "24"],
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )

    assert done.returncode == 0, done.stdout + done.stderr


class Protocol(RuleBasedStateMachine):
    """The protocol of docs/coordination.md, step by step, in any order and without any clock.

    Time is left out on purpose: any launcher may take the lease at any moment, as if the holder had been silent. So the
    invariants hold for any clocks, and for a process that is stopped for any time.
    """

    launchers = Bundle("launchers")
    leaders = Bundle("leaders")
    results = Bundle("results")

    @initialize()
    def begin(self):
        self.count = 0
        self.lease: int | None = None
        self.answer: tuple[str, int] | None = None
        self.adopted: dict[int, tuple[str, int]] = {}
        self.published = 0
        self.files: set[int] = set()

    @rule(target=launchers)
    def start(self):
        self.count += 1
        return self.count

    @rule(launcher=consumes(launchers), target=leaders)
    def take_the_lease(self, launcher):
        # The lease is free or expired, or its holder is dead. The launcher that takes it cannot tell.
        if self.answer is not None:
            self.adopted[launcher] = self.answer
            return multiple()
        self.lease = launcher
        return launcher

    @rule(leader=consumes(leaders), target=results)
    def resolve(self, leader):
        self.files.add(leader)
        return leader

    @rule(leader=consumes(results))
    def publish_an_answer(self, leader):
        # link(2) lets the first leader win, whether it holds the lease or not.
        if self.answer is None:
            self.answer = ("answer", leader)
            self.published += 1
            self.files = {leader}
        else:
            self.files.discard(leader)
        self.adopted[leader] = self.answer

    @rule(leader=consumes(results), target=launchers)
    def publish_an_error(self, leader):
        self.files.discard(leader)
        if self.answer is None and self.lease != leader:
            # Another launcher has overtaken this leader. So its error is not the job's, and it waits again.
            return leader
        if self.answer is None:
            self.answer = ("error", leader)
            self.published += 1
            self.files = set()
        self.adopted[leader] = self.answer
        return multiple()

    @rule(launcher=consumes(launchers))
    def look(self, launcher):
        if self.answer is not None:
            self.adopted[launcher] = self.answer

    @rule(dead=st.one_of(consumes(launchers), consumes(leaders), consumes(results)))
    def kill(self, dead):
        """A dead launcher keeps its lease. To the others it is only silent."""

    @invariant()
    def all_have_the_same_answer(self):
        assert len(set(self.adopted.values())) <= 1

    @invariant()
    def there_is_one_answer(self):
        assert self.published == (self.answer is not None)

    @invariant()
    def the_answers_files_are_there(self):
        if self.answer is not None and self.answer[0] == "answer":
            assert self.answer[1] in self.files

    @invariant()
    def whoever_is_through_is_through_with_the_published_answer(self):
        assert all(adopted == self.answer for adopted in self.adopted.values())


Protocol.TestCase.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestProtocol = Protocol.TestCase
