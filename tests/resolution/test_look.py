"""Checks before exec: inputs that a node does not see, a save directory without room, checkpoints of another run."""

from __future__ import annotations

import json
import os
import shlex
import sys

import pytest

from mounts import run_with_mounts
from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.resolution import look
from nemotron_exec.sitecustomize.payload.manifest import inventory, register
from nemotron_exec.sitecustomize.payload.paths.mountinfo import file_system


def artifact(path, version="v1", key="data"):
    return Artifact(key, "blend:latest", "manifest", "blend", version, "dataset", str(path), f"blend:{version}")


@pytest.fixture
def save(tmp_path):
    """A save directory with one registered Megatron checkpoint, and the commit thread's note."""
    directory = tmp_path / "save"
    checkpoint = directory / "iter_0000020"
    checkpoint.mkdir(parents=True)
    (checkpoint / "0.distcp").write_bytes(b"x" * 1000)
    (directory / "latest_checkpointed_iteration.txt").write_text("20")
    store = str(tmp_path / "store")
    version = register.register(store, "m", type="model", path=str(checkpoint), metadata={})
    inventory.record(store, version.directory, str(checkpoint))
    (directory / ".nemotron-exec").mkdir()
    note(directory, version_directory=version.directory)
    return directory


def note(directory, **changes):
    path = directory / ".nemotron-exec/last.json"
    body = (
        json.loads(path.read_text())
        if path.exists()
        else {
            "schema": 1,
            "checkpoint": str(directory / "iter_0000020"),
            "files": 1,
            "bytes": 1000,
            "file_system": file_system(str(directory)),
        }
    )
    path.write_text(json.dumps({**body, **changes}))


def said(save, artifacts=(), **how):
    return list(look.concerns(artifacts, None if save is None else str(save), **{"first": True, "deep": False, **how}))


def test_where_all_is_well_nothing_is_said(save, tmp_path):
    assert said(save, [artifact(tmp_path), artifact("s3://bucket/x")]) == []
    assert said(tmp_path / "new" / "directory") == []
    assert said(None) == []
    assert said("s3://bucket/out") == []


def test_a_node_that_does_not_see_an_input_says_which(save, tmp_path):
    (sentence,) = said(save, [artifact(tmp_path / "nowhere")], first=False)
    assert sentence.startswith(f"node {os.uname().nodename} does not see {tmp_path}/nowhere (run.data: blend:v1)")


def test_room_is_compared_with_the_last_checkpoint(save):
    note(save, bytes=1 << 60, files=1 << 60)
    space, inodes = said(save)
    assert "bytes are free there, and the last checkpoint has 1152921504606846976" in space
    assert "inodes are free there" in inodes
    assert said(save, first=False) == []


def test_another_file_system_than_that_of_the_checkpoints(save):
    note(save, file_system="nfs4 server:/scratch")
    (sentence,) = said(save)
    assert "were saved on nfs4 server:/scratch, and it is on " in sentence


def test_a_file_where_the_save_directory_should_be(tmp_path):
    (tmp_path / "save").write_text("")
    (sentence,) = said(tmp_path / "save" / "run", first=False)
    assert "save is no directory, so no checkpoint can be saved in" in sentence


@pytest.mark.parametrize("below", ["", "/run/1"])
def test_a_link_to_a_directory_that_is_not_there(tmp_path, below):
    # No program makes directories through such a link: mkdir(2) says that it exists.
    (tmp_path / "save").symlink_to(tmp_path / "scratch/me")
    (sentence,) = said(str(tmp_path / "save") + below, first=False)
    assert sentence.startswith(
        f"a link leads to {tmp_path}/scratch/me, which is not there on node {os.uname().nodename}"
    )


def test_a_tracker_that_names_a_checkpoint_that_is_not_there(save):
    (save / "latest_checkpointed_iteration.txt").write_text("40")
    (sentence,) = said(save)
    assert "latest_checkpointed_iteration.txt names iter_0000040, which is not there" in sentence


def test_a_cut_checkpoint_is_not_resumed_without_a_word(save):
    (save / "iter_0000020/0.distcp").write_bytes(b"x")
    (sentence,) = said(save)
    assert "from which the framework resumes, is cut: 0.distcp has 1 of 1000 bytes" in sentence
    note(save, files=1_000_000)
    assert said(save) == []
    assert said(save, deep=True) == [sentence]


@pytest.mark.parametrize(
    ("made", "newest"),
    [
        (["step_4", "step_20", "tmp_step_30"], "step_20"),
        (["LATEST -> epoch_0_step_9", "epoch_0_step_9"], "epoch_0_step_9"),
        ([], None),
    ],
)
def test_the_newest_checkpoint_by_each_frameworks_rule(tmp_path, made, newest):
    for name in made:
        link, _, target = name.partition(" -> ")
        (tmp_path / link).symlink_to(target) if target else (tmp_path / link).mkdir()
    assert look.newest_checkpoint(str(tmp_path)) == (newest and str(tmp_path / newest), None)


@pytest.mark.parametrize("content", ["", "[", "[]", '{"bytes": "many", "files": [], "file_system": 3}'])
def test_a_damaged_note_says_nothing(save, content):
    (save / ".nemotron-exec/last.json").write_text(content)
    assert said(save) == []


def started(nemotron_exec, tmp_path, *options, version="v1"):
    for name in ("v1", "v2"):
        path = tmp_path / "store/blend" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "manifest.json").write_text(json.dumps({"name": "blend", "path": str(tmp_path)}))
    (tmp_path / "cfg.yaml").write_text(
        f"run: {{data: 'blend:{version}'}}\npath: ${{art:data,path}}\ncheckpoint: {{save: {tmp_path}/save}}\n"
    )
    return nemotron_exec("--store", str(tmp_path / "store"), *options, "true", "cfg.yaml")


def test_a_directory_with_the_checkpoints_of_other_inputs_is_a_warning_and_under_strict_an_error(
    nemotron_exec, tmp_path, save
):
    assert started(nemotron_exec, tmp_path).returncode == 0
    strict = started(nemotron_exec, tmp_path, "--strict", version="v2")
    assert strict.returncode == 125
    done = started(nemotron_exec, tmp_path, version="v2")
    assert done.returncode == 0
    for one in (strict, done):
        assert one.stderr.count("run.data was blend:v1 and is blend:v2") == 1, one.stderr
    assert "with other inputs" not in started(nemotron_exec, tmp_path, version="v2").stderr


@pytest.mark.parametrize("content", [None, "[", "{}", '{"artifacts": [3]}', '{"artifacts": [{}]}'])
def test_where_no_pin_is_left_the_run_record_tells_the_inputs(nemotron_exec, tmp_path, save, content):
    record = save / ".nemotron-exec/runs/job-1.json"
    record.parent.mkdir()
    artifacts = [{"key": "data", "reference": "blend:v1", "qualified_name": "blend:v1"}]
    record.write_text(json.dumps({"artifacts": artifacts}) if content is None else content)
    done = started(nemotron_exec, tmp_path, version="v2")
    assert done.returncode == 0, done.stderr
    assert ("run.data was blend:v1 and is blend:v2" in done.stderr) == (content is None)


def test_the_doctor_says_it_too(nemotron_exec, tmp_path, save, bare_path, monkeypatch):
    monkeypatch.setenv("PATH", str(bare_path))
    (save / "latest_checkpointed_iteration.txt").write_text("40")
    assert "cannot be resumed" in started(nemotron_exec, tmp_path, "--doctor").stdout


@pytest.mark.ci
def test_a_save_directory_that_is_mounted_read_only(tmp_path):
    (tmp_path / "disk").mkdir()
    look_at = f"look.concerns((), '{tmp_path}/disk/out', first=False, deep=False)"
    code = f"from nemotron_exec.resolution import look; print(*{look_at})"
    script = f"mount -t tmpfs -o ro none disk || exit 99; {shlex.join([sys.executable, '-c', code])}"
    done = run_with_mounts(script, tmp_path)
    assert "disk is mounted read-only on node" in done.stdout, done.stderr


# Two launchers of one Slurm step; the second has a mount and a host name of its own.
TWO_NODES = """
node() {{
    SLURM_NODEID=$1 SLURM_PROCID=$1 SLURM_LOCALID=0 SLURMD_NODENAME=n$1 unshare --mount --uts sh -c '
        hostname n'$1'; '"$2"' {launcher} --state-dir state cat cfg.yaml >/dev/null 2>n'$1'; echo $? >>n'$1 &
}}
node 0 :\\;
node 1 "mount -t tmpfs none data; mount --bind out out; mount -o remount,bind,ro out;"
wait
"""


@pytest.mark.ci
def test_of_two_nodes_the_one_that_does_not_see_a_directory_says_so_and_the_other_does_not(tmp_path):
    (tmp_path / "data/blend").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    register.register(str(tmp_path / "store"), "blend", type="dataset", path=str(tmp_path / "data/blend"), metadata={})
    (tmp_path / "cfg.yaml").write_text(
        f"run: {{data: 'blend:latest'}}\np: ${{art:data,path}}\ncheckpoint: {{save: {tmp_path}/out/run}}\n"
    )
    script = TWO_NODES.format(launcher=shlex.join([sys.executable, "-m", "nemotron_exec"]))
    slurm = {"JOB_ID": "7", "STEP_ID": "0", "NNODES": "2", "STEP_NUM_NODES": "2", "NTASKS": "2", "STEP_NUM_TASKS": "2"}
    done = run_with_mounts(
        script,
        tmp_path,
        NEMOTRON_EXEC_BACKEND="manifest",
        NEMOTRON_EXEC_STORE=str(tmp_path / "store"),
        SLURM_TASKS_PER_NODE="1(x2)",
        SLURM_STEP_TASKS_PER_NODE="1(x2)",
        **{f"SLURM_{name}": value for name, value in slurm.items()},
    )
    sees, blind = (tmp_path.joinpath(name).read_text() for name in ("n0", "n1"))
    assert sees.endswith("\n0\n"), done.stderr + sees
    assert blind.endswith("\n0\n"), blind
    assert f"node n1 does not see {tmp_path}/data/blend (run.data: blend:v1)" in blind
    assert f"is mounted read-only on node n1, so no checkpoint can be saved in {tmp_path}/out/run" in blind
    assert "does not see" not in sees
    assert "read-only" not in sees
