"""Checks the mounts that may hold data, and the host's directory behind `/nemo_run`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.doctor.finding import Patient

__all__ = ["check"]

_PSEUDO = frozenset((
    "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "tmpfs", "devtmpfs", "overlay", "securityfs",
    "debugfs", "tracefs", "bpf", "pstore", "fusectl", "configfs", "hugetlbfs", "autofs", "rpc_pipefs",
    "binfmt_misc", "nsfs", "ramfs", "efivarfs",
))  # fmt: skip
_SYSTEM = ("/proc", "/sys", "/dev", "/etc/", "/run", "/boot", "/snap")


def check(patient: Patient) -> Iterator[Finding]:
    """The findings about `/nemo_run`, and then about the mounts that may hold data."""
    yield _nemo_run(patient)
    for line in _data_mounts():
        yield Finding(Level.OK, "mount", line, detail=True)


def _nemo_run(patient: Patient) -> Finding:
    from nemotron_exec.sitecustomize.payload.paths import host

    directory = patient.environ.get("NEMO_RUN_DIR")
    if not os.path.lexists("/nemo_run"):
        if directory:
            level = Level.OK if os.path.isdir(directory) else Level.WARNING
            there = "" if level is Level.OK else ", which does not exist"
            remedy = "" if level is Level.OK else "Set NEMO_RUN_DIR to the job's directory on this machine"
            return Finding(
                level, "/nemo_run", f"does not exist; NEMO_RUN_DIR={directory}{there} takes its place", remedy
            )
        found = "does not exist, and NEMO_RUN_DIR is not set: no path is translated"
        return Finding(Level.OK, "/nemo_run", found, detail=True)
    found = host.nemo_run()
    if found is not None and found.certain:
        return Finding(Level.OK, "/nemo_run", f"is {found.path} on the host ({found.reason})")
    if found is not None and found.inside is not None:
        return Finding(
            Level.WARNING,
            "/nemo_run",
            f"is recorded as {found.path}, which no other job may have: {found.reason}",
            "Set NEMO_RUN_DIR to what the host mounts there",
        )
    return Finding(
        Level.WARNING,
        "/nemo_run",
        "is a directory of this container alone: checkpoints under it end with the container, or cannot be found",
        "Mount the job's directory there",
    )


def _data_mounts() -> list[str]:
    """`host path -> path here (type)` of every mount that is neither the system's nor a pseudo file system."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        point, root = (_unescape(field) for field in (fields[4], fields[3]))
        if kind[0] in _PSEUDO or point == "/" or (point + "/").startswith(_SYSTEM):
            continue
        found.append(f"{point} is {root} of {_unescape(kind[1])} ({kind[0]})")
    return found


def _unescape(text: str) -> str:
    """Undo the escapes of proc(5): blanks and the like are an octal number after a backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
