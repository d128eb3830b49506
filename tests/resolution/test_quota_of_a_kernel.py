"""The room that real quotas of user, group and project leave, on XFS in a Linux kernel that runs as a process (UML)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ci

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t tmpfs none /mnt
mkdir /mnt/save
mount -t xfs -o usrquota,grpquota,prjquota /dev/ubda /mnt/save
{python} {script} /mnt/save
umount /mnt/save
halt -f
"""

# As root: the limits, by quotactl_fd(2). As user 1000: what the product says, and how much can really be written.
GUEST = """
import ctypes, fcntl, json, os, struct, sys

from nemotron_exec.resolution import look, quota

save = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
descriptor = os.open(save, os.O_RDONLY)


def limit(kind, number, blocks, inodes):
    limits = struct.pack("@8QI4x", blocks, blocks, 0, inodes, inodes, 0, 0, 0, 1 | 4)
    assert libc.syscall(443, descriptor, ctypes.c_uint(0x800008 << 8 | kind), number, limits) == 0, os.strerror(
        ctypes.get_errno()
    )


limit(0, 1000, 5000, 50)
limit(1, 2000, 8000, 0)
limit(2, 7, 3000, 20)
attributes = struct.Struct("@5I8x")
for name in ("plain", "project"):
    os.mkdir(f"{save}/{name}")
    os.chown(f"{save}/{name}", 1000, 2000)
inside = os.open(f"{save}/project", os.O_RDONLY)
buffer = bytearray(attributes.size)
fcntl.ioctl(inside, 0x801C581F, buffer)
flags, size, extents, _, cow = attributes.unpack(buffer)
fcntl.ioctl(inside, 0x401C5820, attributes.pack(flags | 0x200, size, extents, 7, cow))  # files inherit the project
of_root = [str(one) for one in quota.quotas(f"{save}/project")]
list(look.concerns((), save, first=True, deep=False))  # imports what user 1000 may not read
os.setgroups([])
os.setgid(2000)
os.setuid(1000)
said = {}
for name in ("plain", "project"):
    os.mkdir(f"{save}/{name}/.nemotron-exec")
    with open(f"{save}/{name}/.nemotron-exec/last.json", "w") as file:
        json.dump({"bytes": 6_000_000, "files": 60}, file)
    found = [(one.whose, one.left, one.inodes) for one in quota.quotas(f"{save}/{name}")]
    concerns = list(look.concerns((), f"{save}/{name}", first=True, deep=False))
    written = 0
    try:
        with open(f"{save}/{name}/big", "wb", buffering=0) as file:
            while True:
                written += file.write(bytes(4096))
    except OSError:
        os.unlink(f"{save}/{name}/big")
    said[name] = {"quotas": found, "concerns": concerns, "written": written}
print("ANSWER", json.dumps({**said, "root": of_root}), flush=True)
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """What the guest has said."""
    directory = tmp_path_factory.mktemp("uml")
    uml = shutil.which("linux.uml")
    assert uml, "linux.uml is not installed: .ci/engines installs it"
    image = directory / "xfs.img"
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-f", image], check=True)
    (directory / "guest.py").write_text(GUEST)
    init = directory / "init"
    init.write_text(INIT.format(python=sys.executable, script=directory / "guest.py"))
    init.chmod(0o755)
    words = ["mem=384M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", f"ubd0={image}"]
    done = subprocess.run(
        [uml, *words, f"uml_dir={directory}/", "con0=null,fd:1", "con=null", "quiet"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=240,
        check=False,
    )
    lines = [line.partition("ANSWER ")[2] for line in done.stdout.splitlines() if "ANSWER" in line]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(lines[0])


def test_what_is_said_to_be_left_can_be_written_and_no_more(answer):
    plain = answer["plain"]
    left = {whose: room for whose, room, _ in plain["quotas"]}
    assert set(left) == {"user 1000", "group 2000"}
    assert 0 <= left["user 1000"] - plain["written"] <= 8192
    assert left["group 2000"] - left["user 1000"] == 3000 * 1024
    assert [sentence.split(": ")[1].split(" leaves")[0] for sentence in plain["concerns"]] == [
        "the quota of user 1000",
        "the quota of user 1000",
    ]


def test_the_quota_of_a_project_is_in_statvfs_for_a_user_and_in_the_call_for_root(answer):
    project = answer["project"]
    (sentence,) = [one for one in project["concerns"] if "bytes are free there" in one]
    free = int(sentence.split(": ")[1].split()[0])
    assert abs(free - project["written"]) <= 8192
    assert any("project 7" in one for one in answer["root"])
