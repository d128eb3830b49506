"""Xet storage: the real hf_xet against a loopback storage, and downloads without Xet."""

from __future__ import annotations

import pytest

from hub_store import FILES, Store, content


@pytest.fixture
def store(hub, tmp_path):
    return lambda **how: Store(hub, tmp_path, **how)


def test_with_hf_xet_the_files_of_xet_storage_come_from_there(hub, store):
    hub.seed("org/model", FILES, xet=True)
    (model,) = store()("hf://org/model")
    assert content(model.path) == FILES
    assert hub.operations("LFS .*") == 0
    assert hub.operations("XORB .*") == 2
    assert hub.operations("xet-token org/model") == 1


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda hub: hub.fail("xet *", status=403, times=None), ""),
        (lambda hub: hub.fail("xet-token *", status=500, times=None), ""),
        (lambda hub: hub.fail("XORB *", stall=5000, times=None), "nothing came for 2 s"),
        (lambda hub: setattr(hub, "xet_url", "http://127.0.0.1:9"), "nothing came for 2 s"),
    ],
    ids=["refused", "no token", "silent in the middle", "behind a firewall"],
)
def test_without_xet_storage_the_files_come_by_plain_http(hub, store, harm, why):
    hub.seed("org/model", FILES, xet=True)
    harm(hub)
    asked = store(stall=2.0)
    (model,) = asked("hf://org/model")
    assert content(model.path) == FILES
    assert asked.said.count("downloading without it") == 1, asked.said
    assert f"Xet storage of the Hugging Face hub fails ({why}" in asked.said
    assert hub.operations("LFS .*") == 2


def test_who_has_switched_xet_off_is_not_asked_for_it(hub, store):
    hub.seed("org/model", FILES, xet=True)
    (model,) = store(HF_HUB_DISABLE_XET="1")("hf://org/model")
    assert content(model.path) == FILES
    assert hub.operations("(xet|XORB).*") == 0
