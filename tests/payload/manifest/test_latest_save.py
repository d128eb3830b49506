"""`latest` of a checkpoint is the newest save, in whatever order versions were registered."""

from __future__ import annotations

import itertools
import json

import pytest

from nemotron_exec.sitecustomize.payload.manifest import listing, names, read, register


def save(root, second, **more):
    """Register a checkpoint that a framework completed at that second of one minute."""
    created_at = f"2026-01-01T00:00:{second:02d}+00:00"
    data = root.parent / f"data-{second}"
    data.mkdir(exist_ok=True)
    return register.register(
        str(root),
        "model",
        type="model",
        path=str(data),
        metadata={"iteration": second},
        created_at=created_at,
        extra={"event": f"event-{second}"},
        **more,
    ).number


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def latest(root, **options):
    return read.read_version(str(root), "model", "latest", **options).manifest["metadata"].get("iteration")


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 11, 12))))
def test_whatever_order_saves_are_registered_in_latest_and_best_are_the_newest(root, order):
    for second in order:
        save(root, second, aliases=["best"])
    assert latest(root) == 12
    assert listing.read_latest(str(root), "model") == order.index(12) + 1
    assert listing.aliases(str(root), "model") == {"best": order.index(12) + 1}


def test_latest_of_pruned_versions_goes_back_save_by_save(root):
    numbers = {second: save(root, second) for second in (4, 12, 8, 2)}
    for gone, then in ((12, 8), (8, 4), (4, 2)):
        register.mark_pruned(str(root), "model", numbers[gone])
        assert latest(root) == then


def test_without_the_file_latest_readers_take_the_newest_save(root):
    for second in (11, 12, 2):
        save(root, second)
    (root / "model/latest").unlink()
    assert latest(root) == 12


def test_a_transient_save_is_never_latest_and_has_its_aliases(root):
    save(root, 3, aliases=["iter_1"])
    number = save(root, 5, move_latest=False, aliases=["iter_1"])
    assert latest(root) == 3
    assert listing.aliases(str(root), "model") == {"iter_1": number}


def test_a_version_that_was_added_by_hand_keeps_the_place_of_its_number(root):
    save(root, 30)
    added = register.register(
        str(root), "model", type="model", path="s3://b/x", metadata={}, created_at="2020-01-01T00:00:00+00:00"
    )
    assert listing.read_latest(str(root), "model") == added.number
    save(root, 40)
    assert latest(root) == 40


def test_a_directory_without_manifest_costs_no_number_however_high(root):
    save(root, 1)
    (root / "model/v999999999").mkdir()
    assert save(root, 2) == 2
    assert latest(root) == 2
    (root / "model/v999999999/manifest.json").write_text(json.dumps({"path": "/x"}))
    with pytest.raises(names.StoreError, match="no version can be higher"):
        save(root, 3)
    assert latest(root) == 2
