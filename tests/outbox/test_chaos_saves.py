"""Saves, late deliveries, damaged pins and a W&B that fails, under kills; `make chaos` runs many more seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"
CHAOS = SUPPORT / "chaos_saves.py"


@pytest.mark.ci
def test_every_save_is_one_version_and_the_newest_is_latest_whatever_is_killed():
    words = [sys.executable, str(CHAOS), "--seeds", "5", "--seconds", "240"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (figures["lost"], figures["twice"], figures["latest"], figures["pin"]) == (0, 0, 0, 0)
    assert figures["runs"] >= 1


@pytest.mark.ci
@pytest.mark.timeout(1200)
def test_each_save_reaches_wandb_once_however_it_fails_and_whatever_is_killed():
    words = [sys.executable, str(SUPPORT / "chaos_wandb.py"), "--seeds", "4", "--seconds", "240"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=1100)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = ("lost", "twice", "disagree", "latest", "waiting", "unknown", "hang", "cost")
    assert [figures[kind] for kind in wrong] == [0] * len(wrong)
    assert figures["runs"] >= 1
