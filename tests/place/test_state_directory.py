"""The state directory is seen by all nodes and private, and another user cannot take it over by creating it first."""

from __future__ import annotations

import io
import os
import stat
import tempfile

import pytest

from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.place import state_directory as module
from nemotron_exec.place.rank import Place
from nemotron_exec.place.state_directory import existing, state_directory
from nemotron_exec.shared_directory.file_system import LOCAL_KINDS, file_system
from nemotron_exec.shared_directory.files import make_directory

ONE = Place(0, 1, 0, 1, 0, 1, 0, "test")
TWO = Place(0, 2, 0, 2, 0, 1, 0, "--node-rank")
ELASTIC = Place(None, None, None, None, None, None, 0, "--nnodes")
UID = os.geteuid()


@pytest.fixture
def said():
    return io.StringIO()


@pytest.fixture
def choose(tmp_path, said):
    def choose(explicit=None, environ=None, place=ONE, **more):
        environ = {"TMPDIR": str(tmp_path / "tmp"), **(environ or {})}
        more.setdefault("nemo_run", str(tmp_path / "absent"))
        return state_directory(explicit, environ, place, messages=Messages(stream=said), **more)

    return choose


def test_alone_it_lies_in_the_temporary_directory(choose, tmp_path):
    found = choose()

    assert found.path == str(tmp_path / "tmp" / f"nemotron-exec-{UID}")
    assert (found.source, found.shared) == ("TMPDIR", False)
    assert stat.S_IMODE(os.stat(found.path).st_mode) == 0o700


def test_the_option_wins_and_is_made(choose, tmp_path):
    found = choose(str(tmp_path / "a" / "b"), {"NEMO_RUN_DIR": str(tmp_path)})

    assert found.path == str(tmp_path / "a" / "b" / f"nemotron-exec-{UID}")
    assert found.source == "--state-dir"


def test_a_link_to_the_jobs_directory_counts_as_nemo_run(choose, tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "nemo_run").symlink_to(tmp_path / "job")
    found = choose(nemo_run=str(tmp_path / "nemo_run"))

    assert found.path == str(tmp_path / "job" / ".nemotron-exec" / f"nemotron-exec-{UID}")


def test_nemo_run_dir_is_next(choose, tmp_path):
    assert choose(environ={"NEMO_RUN_DIR": str(tmp_path)}).source == "NEMO_RUN_DIR"


def test_a_nemo_run_dir_that_is_not_here_is_passed_over(choose, tmp_path):
    assert choose(environ={"NEMO_RUN_DIR": str(tmp_path / "not" / "here")}).source == "TMPDIR"


@pytest.mark.parametrize("place", [TWO, ELASTIC])
def test_several_nodes_without_a_shared_directory_are_an_error_at_once(choose, tmp_path, place):
    with pytest.raises(LaunchError) as caught:
        choose(place=place)

    text = str(caught.value)
    assert caught.value.exit_code == 125
    assert str(tmp_path / "tmp") in text
    assert "--state-dir" in text
    assert "--rendezvous c10d" in text


def test_with_c10d_no_other_node_needs_to_see_it(choose):
    assert choose(place=TWO, rendezvous="c10d").source == "TMPDIR"


def test_a_local_file_system_by_default_is_an_error_for_several_nodes(choose, tmp_path):
    if file_system(str(tmp_path)) not in LOCAL_KINDS:
        tmp_path = "/dev/shm"
    with pytest.raises(LaunchError, match="a local file system"):
        choose(environ={"NEMO_RUN_DIR": str(tmp_path)}, place=TWO)


def test_a_local_file_system_by_choice_is_one_warning(choose, tmp_path, said):
    choose(str(tmp_path / "state"), place=TWO)

    assert said.getvalue().count("\n") == (1 if file_system(str(tmp_path)) in LOCAL_KINDS else 0)


def test_a_file_in_its_place_is_refused(choose, tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / f"nemotron-exec-{UID}").write_text("")

    with pytest.raises(LaunchError, match="not a directory"):
        choose()


def test_a_link_in_its_place_is_refused(choose, tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / f"nemotron-exec-{UID}").symlink_to(tmp_path)

    with pytest.raises(LaunchError, match="a symbolic link"):
        choose()


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(choose, tmp_path, mode):
    path = tmp_path / "tmp" / f"nemotron-exec-{UID}"
    path.mkdir(parents=True)
    path.chmod(mode)

    with pytest.raises(LaunchError, match="others may write"):
        choose()


def test_a_directory_that_others_may_only_read_becomes_private(choose, tmp_path):
    path = tmp_path / "tmp" / f"nemotron-exec-{UID}"
    path.mkdir(parents=True)
    path.chmod(0o755)
    choose()

    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_base_directory_that_cannot_be_made_is_an_error(choose, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(LaunchError, match="cannot be made"):
        choose(str(tmp_path / "file" / "state"))


MOUNTS = """\
22 1 0:21 / / rw - overlay overlay rw
23 22 0:22 / /lustre rw - lustre 10.0.0.1@o2ib:/fs rw
24 22 0:23 /jobs/7 /nemo\\040run rw - nfs4 server:/export rw
25 22 8:1 / /lustre/local rw shared:1 master:2 - ext4 /dev/sda1 rw
26 25 0:24 / /lustre/local rw - tmpfs tmpfs rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/lustre/team", "lustre"),
        ("/lustrex", "overlay"),
        ("/nemo run/x", "nfs4"),
        ("/lustre/local/x", "tmpfs"),
    ],
)
def test_file_system_is_that_of_the_longest_and_topmost_mount(path, kind):
    assert file_system(path, MOUNTS) == kind


def test_somebody_elses_directory_is_refused(tmp_path):
    if UID == 0:
        path = tmp_path / "theirs"
        path.mkdir(mode=0o700)
        os.chown(path, 12345, 12345)
    else:
        path = "/"

    with pytest.raises(LaunchError, match="belongs to user"):
        make_directory(str(path), wanted="a directory", remedy="Give another")


def test_which_directory_launchers_on_other_nodes_may_see(choose, tmp_path, monkeypatch):
    tmp = str(tmp_path / "tmp")
    (tmp_path / "job").mkdir()
    link = tmp_path / "nemo_run"
    link.symlink_to(tmp_path / "job")
    for kind, shared in (("lustre", True), (next(iter(LOCAL_KINDS)), False)):
        monkeypatch.setattr(module, "file_system", lambda path, kind=kind: kind)
        assert (choose().shared, choose().kind, choose().local) == (False, kind, tmp)
        assert (choose(tmp).source, choose(tmp).shared) == ("--state-dir", shared)
        found = choose(nemo_run=str(link))
        assert (found.source, found.shared, found.owner) == ("/nemo_run", shared, UID)
        assert choose(environ={"NEMO_RUN_DIR": str(tmp_path)}).shared is shared
    for rendezvous in ("auto", "file", "zzz"):
        for place in (TWO, ELASTIC):
            with pytest.raises(LaunchError) as caught:
                choose(place=place, rendezvous=rendezvous)
            nodes = "2 nodes" if place is TWO else "nodes that are not known before the start"
            assert f"for one answer on {nodes} ({place.source})" in caught.value.wanted
            # A directory that is named before TMPDIR in the alphabet is no other one.
            with pytest.raises(LaunchError, match="a local file system"):
                choose(place=place, rendezvous=rendezvous, nemo_run=str(link))


def test_a_directory_that_is_no_mount_and_no_link_is_not_the_jobs(choose, tmp_path):
    (tmp_path / "nemo_run").mkdir()
    assert choose(nemo_run=str(tmp_path / "nemo_run")).source == "TMPDIR"
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert choose(nemo_run=str(tmp_path / "link")).source == "TMPDIR"


def test_where_it_lies_is_said_without_making_it(tmp_path):
    tmp = tmp_path / "tmp"
    assert existing(None, {"TMPDIR": str(tmp)}, str(tmp_path / "absent")) == str(tmp / f"nemotron-exec-{UID}")
    assert existing("a", {}) == os.path.join(os.getcwd(), "a", f"nemotron-exec-{UID}")
    assert not tmp.exists()


@pytest.mark.parametrize(
    ("environ", "usable", "expected"),
    [
        ({"TMPDIR": "/t", "TEMP": "/e"}, True, "/t"),
        ({}, True, "/tmp"),
        ({"TEMP": "", "TMP": ""}, True, "/tmp"),
        ({"TEMP": "/e"}, True, "asked"),
        ({"TMP": "/e"}, True, "asked"),
        ({"TEMP": "/e", "TMP": "/e"}, True, "asked"),
        ({}, False, "asked"),
    ],
)
def test_the_temporary_directory_is_that_of_python(monkeypatch, environ, usable, expected):
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)) or usable)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "asked")
    assert module._temporary(environ) == expected
    assert set(asked) <= {("/tmp", os.W_OK | os.X_OK)}


def test_where_no_directory_can_be_written_to_it_is_one_error(monkeypatch):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", gone)
    assert module._temporary({"TMP": "/e"}) == ""
    with pytest.raises(LaunchError, match="none of TMPDIR, /tmp, /var/tmp and the working directory"):
        existing(None, {"TMP": "/e"}, "/absent")
