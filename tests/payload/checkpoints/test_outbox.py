"""Other users may write to the outbox. A file that is no entry is named and left alone, and never stops a start."""

from __future__ import annotations

import json
import os
import sys

import pytest

from nemotron_exec.sitecustomize.payload.checkpoints import outbox

ENTRY = {"event": "0" * 32, "save_dir": "/s", "wandb": {"name": "m", "aliases": ["iter_0000010"]}}


def _fifo(path):
    os.mkfifo(path)


def _sparse(path):
    with open(path, "wb") as stream:
        stream.truncate(400 << 20)


def _link(path):
    good = path.parent.parent / "elsewhere.json"
    good.write_text(json.dumps({**ENTRY, "schema": outbox.SCHEMA}))
    path.symlink_to(good)


def _content(data):
    return lambda path: path.write_bytes(data)


def _entry(**changes):
    return _content(json.dumps({**ENTRY, "schema": outbox.SCHEMA, **changes}).encode())


HOSTILE = {
    "a FIFO": (_fifo, "it is not a regular file"),
    "a sparse file": (_sparse, "419430400 bytes long"),
    "a link to an entry": (_link, "symbolic link"),
    "a directory": (os.mkdir, "it is not a regular file"),
    "an empty file": (_content(b""), "it is not JSON"),
    "half an entry": (_content(json.dumps(ENTRY).encode()[:-9]), "it is not JSON"),
    "brackets without end": (_content(b"[" * 200_000), "it is not JSON"),
    "other bytes": (_content(b"\xff\xfe\x00"), "it is not JSON"),
    "a list": (_content(b"[]"), "it is no outbox entry"),
    "a later schema": (_entry(schema=99), "its schema is 99"),
    "an event that is no text": (_entry(event=7), "it is no outbox entry"),
    "a save directory that is no text": (_entry(save_dir=[]), "its save_dir"),
    "a W&B target that is no mapping": (_entry(wandb="x"), "its wandb"),
    "W&B aliases that are no list": (_entry(wandb={"name": "m", "aliases": 5}), "its wandb.aliases"),
    "a process that is no mapping": (_entry(process="1"), "its process"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_entry_is_left_out_and_named(tmp_path, name):
    make, why = HOSTILE[name]
    box = tmp_path / "outbox"
    outbox.write(str(box), ENTRY)
    make(box / "checkpoint-x.json")
    assert [entry["event"] for _, entry in outbox.entries(str(box))] == [ENTRY["event"]]
    ((path, said),) = outbox.unreadable(str(box))
    assert path == str(box / "checkpoint-x.json")
    assert why in said


@pytest.mark.parametrize("place", ["the save directory", "the store"])
def test_a_start_does_not_wait_for_what_is_no_entry(nemotron_exec, tmp_path, place):
    save = tmp_path / "save"
    box = tmp_path / {"the save directory": "save", "the store": "store"}[place] / ".nemotron-exec" / "outbox"
    box.mkdir(parents=True)
    for number, (make, _) in enumerate(HOSTILE.values()):
        make(box / f"checkpoint-{number}.json")
    (tmp_path / "cfg.yaml").write_text(f"run: {{}}\ncheckpoint: {{save: {save}}}\n")
    store = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store")}
    done = nemotron_exec(sys.executable, "-c", "print('trained')", "cfg.yaml", env=store)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert "Traceback" not in done.stderr
    # A file in the store may belong to another job, so this start does not report it.
    assert ("it is not a regular file" in done.stderr) == (place == "the save directory")


def test_what_a_killed_process_left_goes_with_the_next_entry(tmp_path):
    box = tmp_path / "outbox"
    box.mkdir()
    old, young = box / "checkpoint-1.json.7.aaaa.tmp", box / "checkpoint-2.json.8.bbbb.tmp"
    for path in (old, young):
        path.write_text("{")
    os.utime(old, (1, 1))
    outbox.write(str(box), ENTRY)
    assert [path.exists() for path in (old, young)] == [False, True]


@pytest.mark.parametrize("part", [".nemotron-exec", ".nemotron-exec/outbox"])
def test_a_link_in_the_save_directory_leads_nowhere(tmp_path, part):
    elsewhere = tmp_path / "elsewhere"
    save = tmp_path / "save"
    (save / part).parent.mkdir(parents=True)
    elsewhere.mkdir()
    (save / part).symlink_to(elsewhere)
    with pytest.raises(OSError, match="is a symbolic link"):
        outbox.write(outbox.directory_of(str(save)), ENTRY)
    assert list(elsewhere.iterdir()) == []
    (elsewhere / "outbox").mkdir()
    assert outbox.find(str(save)) == []


def test_a_save_directory_below_a_link_is_a_directory_as_any_other(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    box = outbox.directory_of(str(tmp_path / "link"))
    outbox.write(box, ENTRY)
    assert outbox.find(str(tmp_path / "link")) == [box]
