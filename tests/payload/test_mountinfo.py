"""The host's paths of container paths, by one pure function over real mountinfo texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_exec.sitecustomize.payload import job
from nemotron_exec.sitecustomize.payload.paths import host, mountinfo

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).resolve().parents[1] / "data" / "mountinfo"

#    name: file, NEMO_RUN_DIR, path in the container, path on the host, whether that path is known
TABLE = {
    "docker: a bind of a subdirectory": (
        "docker",
        None,
        "/nemo_run/pretrain/iter_1",
        "/home/ann/jobs/12345/pretrain/iter_1",
        True,
    ),
    "docker: the mount point itself": ("docker", None, "/nemo_run", "/home/ann/jobs/12345", True),
    "docker: a disk of which nothing else is seen": ("docker", None, "/data/blend.json", "/data/blend.json", False),
    "docker: escaped spaces": ("docker", None, "/with space/a b", "/home/ann/my data/a b", True),
    "docker: a name that only begins alike": ("docker", None, "/nemo_runs/x", "/nemo_runs/x", False),
    "docker: the container's own file system": ("docker", None, "/opt/x", "/opt/x", False),
    "podman: a bind": ("podman", None, "/nemo_run/x", "/scratch/jobs/12345/x", True),
    "podman: a mount inside a mount": ("podman", None, "/nemo_run/shared/x", "/scratch/shared/x", True),
    "pyxis: another mount of the same file system proves nothing": (
        "pyxis_lustre",
        None,
        "/nemo_run/x",
        "/nemo_run/x",
        False,
    ),
    "pyxis: a mount that ends as it does within its file system proves nothing": (
        "pyxis_lustre",
        None,
        "/lustre/team/artifacts/x",
        "/lustre/team/artifacts/x",
        False,
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
    "no container: what is mounted of a file system bears the host's name": (
        "over_mounted",
        None,
        "/work/jobs/x",
        "/work/jobs/x",
        True,
    ),
    "no container: btrfs, whose root is a subvolume": ("btrfs_host", None, "/var/x", "/var/x", True),
    "no container: a bind of a btrfs subvolume": ("btrfs_host", None, "/nemo_run/x", "/home/ann/jobs/1/x", True),
    "docker: a second disk that NEMO_RUN_DIR names": (
        "docker_second_disk",
        "/mnt/scratch/jobs/12345",
        "/nemo_run/x",
        "/mnt/scratch/jobs/12345/x",
        True,
    ),
    "docker: a second disk": ("docker_second_disk", None, "/nemo_run/x", "/nemo_run/x", False),
    "docker: its own directory is on another disk": ("docker_second_disk", None, "/data/x", "/big/data/x", True),
    "docker: the mount point of that disk": ("docker_second_disk", None, "/all", "/big", True),
    "btrfs: a subvolume": ("btrfs", None, "/nemo_run/x", "/nemo_run/x", False),
    "btrfs: a subvolume that NEMO_RUN_DIR names": (
        "btrfs",
        "/home/ann/jobs/1",
        "/nemo_run/x",
        "/home/ann/jobs/1/x",
        True,
    ),
    "btrfs: the subvolume that docker's files lie on": ("btrfs_docker", None, "/srv/x", "/srv/data/x", True),
    "btrfs: another subvolume of that volume": ("btrfs_docker", None, "/nemo_run/x", "/nemo_run/x", False),
    "btrfs: one that is mounted whole": ("btrfs_docker", None, "/scratch/x", "/scratch/x", False),
    "podman rootless: its files lie in memory": ("podman_rootless", None, "/nemo_run/x", "/nemo_run/x", False),
    "podman rootless: NEMO_RUN_DIR": (
        "podman_rootless",
        "/home/ann/jobs/1",
        "/nemo_run/x",
        "/home/ann/jobs/1/x",
        True,
    ),
    "podman rootless: under the name that it has within a disk": (
        "podman_rootless",
        None,
        "/models/x",
        "/models/x",
        False,
    ),
    "podman rootless: under the host's own name": ("podman_rootless", None, "/work/ann/x", "/work/ann/x", False),
    "snap: docker's": ("docker_snap", None, "/nemo_run/x", "/home/ann/jobs/1/x", True),
    "zfs: a dataset": ("zfs", None, "/nemo_run/x", "/nemo_run/x", False),
    "zfs: a dataset that NEMO_RUN_DIR names": ("zfs", "/tank/ann/jobs/1", "/nemo_run/x", "/tank/ann/jobs/1/x", True),
    "zfs: the dataset that docker's files lie on": ("zfs", None, "/srv/x", "/srv/data/x", True),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_host_path(row):
    file, directory, path, expected, certain = row
    mounts = mountinfo.parse((DATA / f"{file}.txt").read_text())
    found = host.host_path(path, mounts, directory)
    assert (found.path, found.certain) == (expected, certain), found.reason


@pytest.mark.parametrize(
    ("path", "source"),
    [("/work/jobs/x", "/dev/sdc1"), ("/work/team/x", "/dev/sdd1")],
    ids=["a covered mount is not met", "of two mounts on one point the last lies on top"],
)
def test_mount_of(path, source):
    mounts = mountinfo.parse((DATA / "over_mounted.txt").read_text())
    assert mountinfo.mount_of(mounts, path).source == source


def test_what_is_not_known_has_a_name_within_its_file_system_and_none_on_the_containers_own():
    mounts = mountinfo.parse((DATA / "docker_second_disk.txt").read_text())
    assert host.host_path("/nemo_run/x", mounts).inside == "/jobs/12345/x"
    assert host.host_path("/opt/x", mounts).inside is None


def test_a_path_that_the_host_has_elsewhere_is_one_warning(monkeypatch, capfd):
    mounts = mountinfo.parse((DATA / "docker_second_disk.txt").read_text())
    monkeypatch.setattr(host, "read_mounts", lambda: mounts)
    monkeypatch.setattr(job, "_once", {})
    paths = ["/nemo_run/iter_1", "/nemo_run/iter_2", "/opt/x", "/data/x"]
    assert [host.to_host(path, {}) for path in paths] == [*paths[:3], "/big/data/x"]
    (line,) = capfd.readouterr().err.splitlines()
    assert "/nemo_run/iter_1 is recorded under the path of this container" in line
    assert "/dev/sdc1 (ext4)" in line
    assert "NEMO_RUN_DIR" in line


#    name: file, NEMO_RUN_DIR, path on the host, candidates here
BACK = {
    "a bind": ("docker", None, "/home/ann/jobs/12345/pretrain", ["/nemo_run/pretrain"]),
    "the bind itself": ("docker", None, "/home/ann/jobs/12345", ["/nemo_run"]),
    "the more specific mount first": ("podman", None, "/scratch/shared/x", ["/nemo_run/shared/x"]),
    "NEMO_RUN_DIR says it": ("pyxis_lustre", "/lustre/user/jobs", "/lustre/user/jobs/12345/x", ["/nemo_run/x"]),
    "another mount of the same file system proves nothing": ("pyxis_lustre", None, "/lustre/user/jobs/12345/x", []),
    "a guess finds nothing": ("docker_second_disk", None, "/data/jobs/12345/x", []),
    "another job's": ("docker", None, "/home/ann/jobs/777/x", []),
}


@pytest.mark.parametrize("row", BACK.values(), ids=BACK)
def test_container_path(row):
    file, directory, path, expected = row
    mounts = mountinfo.parse((DATA / f"{file}.txt").read_text())
    assert host.container_path(path, mounts, directory) == expected


def test_proc_mounts_helps_where_the_source_is_a_path():
    mounts = mountinfo.parse_mounts("overlay / overlay rw 0 0\n/lustre/jobs/12345 /nemo_run none rw,bind 0 0\n")
    assert host.host_path("/nemo_run/x", mounts).path == "/lustre/jobs/12345/x"


def test_lines_that_are_none_are_left_out():
    assert mountinfo.parse("\nnonsense\n1 2 3 - \n") == []


def test_this_machines_own_table_is_read():
    assert host.to_host("/proc/self/../1").startswith("/proc")


def test_a_path_that_exists_here_needs_no_other_name(tmp_path):
    assert host.localise(str(tmp_path)) == str(tmp_path)
    assert host.localise("/no/such/path") == "/no/such/path"


CONTAINER = """
set -e
cd "$1"
truncate -s 16M image
mkfs.ext4 -q image
mkdir -p disk new
mount -o loop image disk
mkdir -p disk/jobs/1
# A root of its own, with the disk's directory under a name that ends as the disk has it.
mount -t tmpfs none new
# All that this machine has, wherever its Python and this tree are.
for path in /*; do
    name="${path#/}"
    if [ "$name" = data ] || [ "$name" = nemo_run ] || [ "$name" = old ]; then
        continue
    elif [ -L "$path" ]; then
        cp -P "$path" new/
    elif [ -d "$path" ]; then
        mkdir "new/$name"
        mount --rbind "$path" "new/$name"
    fi
done
mkdir -p new/data/jobs new/nemo_run new/old
mount --bind disk/jobs new/data/jobs
mount --bind disk/jobs/1 new/nemo_run
cd new
pivot_root . old
cd /
umount -l old
exec "$2" -c "$3"
"""
ASK = """
import json, sys
sys.path.insert(0, {entrypoint!r})
from nemotron_exec.sitecustomize.payload.paths import host
print(json.dumps([host.to_host(path, {{}}) for path in ("/data/jobs/1/x", "/data/jobs/2", "/nemo_run/x")]))
print(host.to_host("/nemo_run/x", {{"NEMO_RUN_DIR": "/mnt/disk2/jobs/1"}}))
"""


@pytest.mark.ci
def test_a_real_loop_mount_under_a_name_that_ends_alike_is_one_warning(tmp_path):
    code = ASK.format(entrypoint=str(ROOT / "entrypoint"))
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", CONTAINER, "sh"]
    done = subprocess.run(
        [*words, str(tmp_path), sys.executable, code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    listed, known = done.stdout.splitlines()
    assert json.loads(listed) == ["/data/jobs/1/x", "/data/jobs/2", "/nemo_run/x"]
    assert known == "/mnt/disk2/jobs/1/x"
    (line,) = done.stderr.splitlines()
    assert "recorded under the path of this container: nothing here says where the host has mounted /dev/loop" in line
