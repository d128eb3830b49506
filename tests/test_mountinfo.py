"""Container paths as the host has them: one pure function over real mountinfo texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_exec.sitecustomize.payload import mountinfo

DATA = Path(__file__).parent / "data" / "mountinfo"

#    name: file, NEMO_RUN_DIR, path in the container, path on the host, whether that is known
TABLE = {
    "docker: a bind of a subdirectory": (
        "docker",
        None,
        "/nemo_run/pretrain/iter_1",
        "/home/ann/jobs/12345/pretrain/iter_1",
        True,
    ),
    "docker: the mount point itself": ("docker", None, "/nemo_run", "/home/ann/jobs/12345", True),
    "docker: a disk of which nothing else is seen": ("docker", None, "/data/blend.json", "/blends/blend.json", False),
    "docker: escaped spaces": ("docker", None, "/with space/a b", "/home/ann/my data/a b", True),
    "docker: a name that only begins alike": ("docker", None, "/nemo_runs/x", "/nemo_runs/x", False),
    "docker: the container's own file system": ("docker", None, "/opt/x", "/opt/x", False),
    "podman: a bind": ("podman", None, "/nemo_run/x", "/scratch/jobs/12345/x", True),
    "podman: a mount inside a mount": ("podman", None, "/nemo_run/shared/x", "/scratch/shared/x", True),
    "pyxis: by another mount of the same device": (
        "pyxis_lustre",
        None,
        "/nemo_run/x",
        "/lustre/user/jobs/12345/x",
        True,
    ),
    "pyxis: a mount under its own name": (
        "pyxis_lustre",
        None,
        "/lustre/team/artifacts/x",
        "/lustre/team/artifacts/x",
        True,
    ),
    "pyxis: NEMO_RUN_DIR is this directory": (
        "pyxis_alone",
        "/lustre/user/jobs/12345",
        "/nemo_run/x",
        "/lustre/user/jobs/12345/x",
        True,
    ),
    "pyxis: NEMO_RUN_DIR is the root of all jobs": (
        "pyxis_alone",
        "/lustre/user/jobs",
        "/nemo_run/x",
        "/lustre/user/jobs/12345/x",
        True,
    ),
    "pyxis: NEMO_RUN_DIR is somewhere else": ("pyxis_alone", "/elsewhere", "/nemo_run/x", "/nemo_run/x", False),
    "pyxis: nothing says it": ("pyxis_alone", None, "/nemo_run/x", "/nemo_run/x", False),
    "kubernetes: an emptyDir": (
        "kubernetes_pvc",
        None,
        "/cache/x",
        "/var/lib/kubelet/pods/7c1d/volumes/kubernetes.io~empty-dir/cache/x",
        True,
    ),
    "kubernetes: a volume whose place nobody knows": (
        "kubernetes_pvc",
        None,
        "/nemo-workspace/x",
        "/nemo-workspace/x",
        False,
    ),
    "no container: the root": ("nfs_same_name", None, "/var/x", "/var/x", True),
    "no container: NFS": ("nfs_same_name", None, "/home/ann/x", "/home/ann/x", True),
    "no container: Lustre": ("nfs_same_name", None, "/mnt/fast/x", "/mnt/fast/x", True),
    "a covered mount is not met": ("over_mounted", None, "/work/jobs/x", "/new/jobs/x", False),
    "of two mounts on one point the last lies on top": ("over_mounted", None, "/work/team/x", "/top/x", False),
    "btrfs subvolumes": ("btrfs", None, "/nemo_run/x", "/@home/ann/jobs/1/x", False),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_host_path(row):
    file, directory, path, expected, certain = row
    mounts = mountinfo.parse((DATA / f"{file}.txt").read_text())
    found = mountinfo.host_path(path, mounts, directory)
    assert (found.path, found.certain) == (expected, certain), found.reason


#    name: file, NEMO_RUN_DIR, path on the host, candidates here
BACK = {
    "a bind": ("docker", None, "/home/ann/jobs/12345/pretrain", ["/nemo_run/pretrain"]),
    "the bind itself": ("docker", None, "/home/ann/jobs/12345", ["/nemo_run"]),
    "the more specific mount first": ("podman", None, "/scratch/shared/x", ["/nemo_run/shared/x"]),
    "by inference": ("pyxis_lustre", None, "/lustre/user/jobs/12345/x", ["/nemo_run/x"]),
    "another job's": ("docker", None, "/home/ann/jobs/777/x", []),
}


@pytest.mark.parametrize("row", BACK.values(), ids=BACK)
def test_container_path(row):
    file, directory, path, expected = row
    mounts = mountinfo.parse((DATA / f"{file}.txt").read_text())
    assert mountinfo.container_path(path, mounts, directory) == expected


def test_proc_mounts_helps_where_the_source_is_a_path():
    mounts = mountinfo.parse_mounts("overlay / overlay rw 0 0\n/lustre/jobs/12345 /nemo_run none rw,bind 0 0\n")
    assert mountinfo.host_path("/nemo_run/x", mounts).path == "/lustre/jobs/12345/x"


def test_lines_that_are_none_are_left_out():
    assert mountinfo.parse("\nnonsense\n1 2 3 - \n") == []


def test_this_machines_own_table_is_read():
    assert mountinfo.to_host("/proc/self/../1").startswith("/proc")


def test_a_path_that_exists_here_needs_no_other_name(tmp_path):
    assert mountinfo.localise(str(tmp_path)) == str(tmp_path)
    assert mountinfo.localise("/no/such/path") == "/no/such/path"
