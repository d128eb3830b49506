"""The bounds that keep a start short, whatever a config or a directory holds: a change of one is meant."""

from __future__ import annotations

import pytest

from nemotron_exec.command import hydra_main, shell_text
from nemotron_exec.config import evaluate, files, further_files, hydra, inherit, touched
from nemotron_exec.document import literal, parse
from nemotron_exec.interpolation import parse as interpolation
from nemotron_exec.interpolation import tree

KIB, MIB = 2**10, 2**20

BOUNDS = [
    (hydra_main, "_MAX_BYTES", 4 * MIB),  # a script
    (shell_text, "_MAX_BYTES", 64 * KIB),  # a shell script
    (evaluate, "_MAX_TOTAL", 50_000_000),  # characters
    (evaluate, "_MAX_RESULT", 1_000_000),
    (files, "_MAX_SIBLINGS", 4096),  # links beside a config
    (further_files, "_MAX_BYTES", MIB),  # a script
    (further_files, "_MAX_KEYS", 128 * KIB),  # a file that a person writes
    (hydra, "_MAX_FILES", 4096),
    (hydra, "_MAX_LOOKED_AT", 100_000),
    (inherit, "_MAX_FILES", 1000),
    (inherit, "_MAX_DEPTH", 100),
    (touched, "_MAX_BYTES", 64 * KIB),  # a file of words
    (parse, "MAX_BYTES", 10 * MIB),  # a config
    (parse, "MAX_DEPTH", 200),
    (parse, "_MAX_EXPANDED", 1_000_000),  # nodes
    (parse, "_MAX_RATIO", 100),  # of aliases, as in OmegaConf 2.4
    (parse, "_MIN_RATIO_NODES", 10_000),
    (literal, "_MAX_DEPTH", 100),
    (tree, "MAX_DEPTH", 50),
    (interpolation, "_MAX_LENGTH", 64 * KIB),  # an expression
]


@pytest.mark.parametrize(("module", "name", "bound"), BOUNDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_bound_is_what_it_was(module, name, bound):
    assert getattr(module, name) == bound
