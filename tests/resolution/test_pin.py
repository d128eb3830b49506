"""Pins: a job that resumes in a directory keeps the versions of the first job there."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import StateDirectory
from nemotron_exec.rendezvous.answer import Answer
from nemotron_exec.resolution.pin import Pins, holds_checkpoint
from nemotron_exec.sitecustomize.payload.manifest.register import register


def reference(text: str, key: str = "data"):
    return parse_reference(key, text, Origin("cfg.yaml", 2))


def artifact(text: str, version: str, path: Path, key: str = "data") -> Artifact:
    name = text.partition(":")[0]
    return Artifact(key, text, "manifest", name, version, "dataset", str(path), f"{name}:{version}")


def completed(directory: Path, framework: str = "megatron") -> None:
    directory.mkdir(exist_ok=True)
    if framework == "megatron":
        (directory / "latest_checkpointed_iteration.txt").write_text("20")
    else:
        (directory / "step_20").mkdir()


@pytest.fixture
def said():
    return io.StringIO()


@pytest.fixture
def pins(tmp_path, said):
    def pins(job: str = "slurm-1.0", save: Path | None = tmp_path / "save", attempt: int = 0, **more) -> Pins:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        return Pins(
            StateDirectory(str(state), "--state-dir", "ext4", os.geteuid(), False),
            JobIdentity(job, "SLURM_JOB_ID", True, step=more.pop("step", "0")),
            Place(0, 1, 0, 1, 0, 1, attempt, "test"),
            save_directory=None if save is None else str(save),
            file=more.pop("file", None),
            refresh=more.pop("refresh", False),
            messages=Messages(stream=said),
        )

    return pins


LATEST = [reference("blend:latest")]
DEAD = 2**22 + 1
"""The PID of no process: it is above the kernel's largest PID."""


@pytest.mark.parametrize("framework", ["megatron", "nemo-rl"])
def test_a_chain_of_jobs_with_new_ids_keeps_its_versions(pins, tmp_path, said, framework):
    pins("slurm-1.0").write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save", framework)

    pinned = pins("slurm-2.0").apply(LATEST)

    assert [item.version for item in pinned.artifacts] == ["v3"]
    assert pinned.open == []
    assert said.getvalue().count("\n") == 1
    assert "blend:latest is v3" in said.getvalue()


def test_a_job_without_any_slurm_variable_keeps_them_too(pins, tmp_path):
    pins("slurm-1.0").write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")

    assert [item.version for item in pins("process-1-2-3").apply(LATEST).artifacts] == ["v3"]


def test_a_fresh_output_directory_does_not(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")

    assert pins("slurm-2.0", tmp_path / "fresh").apply(LATEST).open == LATEST


def test_an_output_directory_in_which_nothing_was_completed_does_not(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    (tmp_path / "save" / "tmp_step_20").mkdir()

    assert pins("slurm-2.0").apply(LATEST).open == LATEST


def test_a_pin_file_counts_whatever_lies_beside_it(pins, tmp_path):
    file = str(tmp_path / "pins" / "my.json")
    pins(file=file).write([artifact("blend:latest", "v3", tmp_path)])

    assert pins("slurm-2.0", None, file=file).apply(LATEST).artifacts[0].version == "v3"


def test_another_version_in_the_config_wins(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    explicit = [reference("blend:v7")]

    assert pins("slurm-2.0").apply(explicit).open == explicit

    pins("slurm-2.0").write([artifact("blend:v7", "v7", tmp_path)])
    assert pins("slurm-3.0").apply(LATEST).open == LATEST


def test_only_what_the_pin_names_is_pinned(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    both = [*LATEST, reference("base:latest", "model")]

    pinned = pins("slurm-2.0").apply(both)

    assert [item.version for item in pinned.artifacts] == ["v3"]
    assert pinned.open == both[1:]


def test_refresh_asks_again_and_pins_that(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    again = pins("slurm-2.0", refresh=True)
    assert again.apply(LATEST).open == LATEST

    again.write([artifact("blend:latest", "v4", tmp_path)])
    assert pins("slurm-3.0").apply(LATEST).artifacts[0].version == "v4"


def test_data_that_is_gone_is_asked_for_in_its_pinned_version(pins, tmp_path):
    pins().write([artifact("blend:latest", "v3", tmp_path / "gone")])
    completed(tmp_path / "save")
    pinned = pins("slurm-2.0").apply(LATEST)

    assert pinned.artifacts == []
    assert [(item.name, item.alias) for item in pinned.open] == [("blend", "v3")]


def answer(tmp_path, entries, *, job="slurm-1.0", meeting="0.-.k", number=1, created=1.0, pid=1, **more):
    """Write an answer of an earlier launcher, for a later start to find."""
    identity = JobIdentity(job, "SLURM_JOB_ID", True, step="0")
    directory = tmp_path / "state" / "jobs" / identity.directory / meeting
    (directory / "nodes").mkdir(parents=True, exist_ok=True)
    host = os.uname().nodename
    (directory / "nodes" / f"{number}.0.0.{host}.{pid}.ab.0").touch()
    content = {"artifacts": [item.to_json() for item in entries]}
    published = Answer(job, "k", number, more.pop("attempt", 0), None, "launcher 0", created, content, **more)
    (directory / f"answer.{number}.json").write_bytes(published.to_bytes())


def test_a_later_start_keeps_the_versions_of_its_job_whatever_else_has_changed(pins, tmp_path, said):
    answer(tmp_path, [artifact("blend:latest", "v3", tmp_path)], pid=DEAD)

    for attempt in (0, 1):
        assert pins(save=None, attempt=attempt).apply(LATEST).artifacts[0].version == "v3"
    assert pins("slurm-2.0", None, attempt=1).apply(LATEST).open == LATEST
    assert pins(save=None, refresh=True).apply(LATEST).open == LATEST
    assert said.getvalue().count("blend:latest is v3 (--refresh asks again)") == 2


def test_the_newest_answer_of_the_job_counts(pins, tmp_path):
    answer(tmp_path, [artifact("blend:latest", "v3", tmp_path)], pid=DEAD, created=1.0)
    answer(tmp_path, [artifact("blend:latest", "v4", tmp_path)], pid=DEAD, created=2.0, meeting="0.-.l")

    assert pins(save=None).apply(LATEST).artifacts[0].version == "v4"


@pytest.mark.parametrize(
    ("step", "attempt", "running", "kept"),
    [
        ("1", 0, False, True),
        ("1", 0, True, False),
        ("1", 1, True, True),
        ("0", 0, True, True),
    ],
    ids=["an ended step", "a step at the same time", "a requeue", "the same step"],
)
def test_a_step_of_slurm_separates_what_runs_at_once_and_nothing_else(pins, tmp_path, step, attempt, running, kept):
    answer(tmp_path, [artifact("blend:latest", "v3", tmp_path)], pid=os.getpid() if running else DEAD)
    found = pins(f"slurm-1.{step}", None, attempt=attempt, step=step).apply(LATEST)

    assert [item.version for item in found.artifacts] == (["v3"] if kept else [])


def test_the_output_is_a_stronger_pin_than_the_job(pins, tmp_path):
    answer(tmp_path, [artifact("blend:latest", "v4", tmp_path)], pid=DEAD)
    pins("slurm-2.0").write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")

    assert pins().apply(LATEST).artifacts[0].version == "v3"


DAMAGED = {
    "empty": "",
    "cut off": "{",
    "no object": "[]",
    "of another schema": '{"schema": 9, "artifacts": {}}',
    "no artifact": '{"schema": 1, "artifacts": {"blend:latest": 3}}',
    "half an artifact": '{"schema": 1, "artifacts": {"blend:latest": {"path": "/x"}}}',
    "deep": "[" * 100_000,
}


def damage(tmp_path, content: str) -> Path:
    completed(tmp_path / "save")
    path = tmp_path / "save" / ".nemotron-exec" / "pin.json"
    path.parent.mkdir()
    path.write_text(content)
    return path


@pytest.mark.parametrize(("was", "now"), [("blend:latest", "blend:latdst"), ('"v3"', '"v7"')])
def test_a_flipped_bit_that_leaves_json_is_damage_too(pins, tmp_path, was, now):
    pins("slurm-1.0").write([artifact("blend:latest", "v3", tmp_path)])
    completed(tmp_path / "save")
    path = tmp_path / "save" / ".nemotron-exec" / "pin.json"
    path.write_text(path.read_text().replace(was, now))
    with pytest.raises(LaunchError, match="its checksum is another"):
        pins("slurm-2.0").apply(LATEST)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_pin_stops_a_start_that_would_change_versions(pins, tmp_path, content):
    path = damage(tmp_path, content)

    with pytest.raises(LaunchError, match="--refresh") as error:
        pins().apply(LATEST)
    assert str(path) in str(error.value)
    assert pins(refresh=True).apply(LATEST).open == LATEST


def test_where_the_pin_is_damaged_the_jobs_own_answer_counts(pins, tmp_path, said):
    damage(tmp_path, "{")
    answer(tmp_path, [artifact("blend:latest", "v3", tmp_path)], pid=DEAD)

    assert pins().apply(LATEST).artifacts[0].version == "v3"
    assert said.getvalue().count("warning: the pin") == 1


def test_where_nothing_else_is_left_the_run_record_of_the_last_checkpoint_counts(pins, tmp_path, said):
    runs = damage(tmp_path, "{").parent / "runs"
    runs.mkdir()
    for name, version, when in (("job-old.json", "v2", 1), ("job-new.json", "v3", 2)):
        named = [{"reference": "blend:latest", "qualified_name": f"blend:{version}"}]
        (runs / name).write_text(json.dumps({"artifacts": named}))
        os.utime(runs / name, (when, when))
    found = pins("slurm-2.0").apply(LATEST)

    assert [(item.text, item.alias) for item in found.open] == [("blend:latest", "v3")]
    assert said.getvalue().count("blend:latest is v3") == 1


@pytest.mark.parametrize(("there", "believed"), [("v9", True), ("v8", False), (None, True)])
def test_a_pin_whose_version_the_store_lacks_is_not_believed(pins, tmp_path, there, believed):
    # If the store is not mounted here now, only the pin is left, and is trusted.
    if there:
        (tmp_path / "store/blend" / there).mkdir(parents=True)
        (tmp_path / "store/blend" / there / "manifest.json").write_text("{}")
    fields = vars(artifact("blend:latest", "v9", tmp_path)) | {"source": str(tmp_path / "store/blend/v9")}
    damage(tmp_path, json.dumps({"schema": 1, "artifacts": {"blend:latest": Artifact(**fields).to_json()}}))

    if believed:
        assert pins().apply(LATEST).artifacts[0].version == "v9"
    else:
        with pytest.raises(LaunchError, match=r"the store has no blend:v9.*--refresh"):
            pins().apply(LATEST)


def test_a_record_of_a_registrys_source_is_no_version_of_its_collection(pins, tmp_path):
    runs = damage(tmp_path, "{").parent / "runs"
    runs.mkdir()
    named = [{"reference": "blend:latest", "qualified_name": "team/project/source:v7"}]
    (runs / "job-1.json").write_text(json.dumps({"artifacts": named}))

    with pytest.raises(LaunchError, match="--refresh"):
        pins("slurm-2.0").apply(LATEST)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_a_pin_that_is_no_file_is_neither_followed_nor_waited_for(pins, tmp_path, kind):
    completed(tmp_path / "save")
    path = tmp_path / "save" / ".nemotron-exec" / "pin.json"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other.json").write_text(json.dumps({"schema": 1, "artifacts": {}}))
        path.symlink_to(tmp_path / "other.json")
    else:
        path.mkdir()

    with pytest.raises(LaunchError, match="cannot be used"):
        pins().apply(LATEST)


def test_an_output_directory_that_cannot_be_written_is_one_warning(pins, tmp_path, said):
    (tmp_path / "file").write_text("")
    pins(save=tmp_path / "file" / "save").write([artifact("blend:latest", "v3", tmp_path)])

    assert said.getvalue().count("warning") == 1
    assert "cannot be pinned" in said.getvalue()


def test_a_link_beside_the_output_is_neither_written_through_nor_read(pins, tmp_path, said):
    completed(tmp_path / "save")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "save/.nemotron-exec").symlink_to(elsewhere)
    pins().write([artifact("blend:latest", "v3", tmp_path)])
    pins().run_identity()

    assert list(elsewhere.iterdir()) == []
    assert said.getvalue().count("is a symbolic link: remove it") >= 1
    with pytest.raises(LaunchError, match="is a symbolic link"):
        pins().apply(LATEST)


def test_holds_checkpoint(tmp_path):
    assert not holds_checkpoint(None)
    assert not holds_checkpoint(str(tmp_path / "absent"))
    (tmp_path / "iter_0000020").mkdir()
    (tmp_path / "tmp_step_2").mkdir()
    assert not holds_checkpoint(str(tmp_path))
    completed(tmp_path)
    assert holds_checkpoint(str(tmp_path))


@pytest.mark.parametrize("option", [["--save", "out"], ["--save=out"]])
def test_a_chain_of_megatron_lm_jobs_keeps_its_versions(nemotron_exec, tmp_path, option):
    """Megatron-LM's save directory is an option of the command, and no key of a config."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data.yaml").write_text("run: {data: 'blend:latest'}\nversion: ${art:data,version}\n")
    words = ["cat", "data.yaml"]
    script = ["sh", "-c", 'cat "$0"', "data.yaml", "--num-layers", "2", *option]
    for number in (1, 2):
        register(str(tmp_path / "store"), "blend", type="dataset", path=str(tmp_path / "data"), metadata={})
        done = nemotron_exec("--store", "store", "--job-id", f"job-{number}", *script)
        assert "version: v1" in done.stdout, done.stderr
        completed(tmp_path / "out")
    assert "version: v2" in nemotron_exec("--store", "store", "--job-id", "job-3", *words).stdout
