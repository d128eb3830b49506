"""A sample of the kills of tests/support/hook_chaos.py."""

from __future__ import annotations

import pytest

import hook_chaos


@pytest.mark.ci
def test_killed_trainers_and_runners_repeat_and_lose_no_effect_of_a_hook():
    made, found = hook_chaos.run(kills=10, seed=1)
    assert sum(made.values()) >= 10
    assert found["pairs"] >= 8
