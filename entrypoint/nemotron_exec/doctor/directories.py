"""Checks the store, the state directory and the cache: writable, lasting, shared, and with the same clock."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING

from nemotron_exec.doctor.finding import Finding, Kept, Level
from nemotron_exec.errors import LaunchError
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nemotron_exec.doctor.finding import Patient

__all__ = ["check"]

_LOST = frozenset({"overlay", "tmpfs", "ramfs"})  # their files end with the container
_LEASE = 15.0  # seconds, lease.py: with a larger difference of clocks a living leader counts as dead
_ROOM = 10 << 30  # bytes; with less free space a download gets a warning


def check(patient: Patient) -> Iterator[Finding]:
    """The findings about each directory."""
    yield from _store(patient)
    yield from _state(patient)
    yield from _cache(patient)


def _store(patient: Patient) -> Iterator[Finding]:
    from nemotron_exec.resolution.defaults import store_root
    from nemotron_exec.shared_directory.file_system import LOCAL_KINDS, file_system

    try:
        root = store_root(patient.chosen, patient.environ)
    except LaunchError as homeless:
        yield Finding(Level.FAULT, "store", homeless.found, homeless.remedy)
        return
    if "://" in root:
        yield _remote(root)
        return
    error = _cannot_write(root)
    if error:
        remedy = "Name one that this user may write to with --store or NEMO_ARTIFACT_ROOT"
        yield Finding(Level.FAULT, "store", f"{root}: {error}", remedy)
        return
    kind = file_system(_existing(root))
    remedy = "Name a directory that is mounted from outside, with --store or NEMO_ARTIFACT_ROOT"
    if kind in _LOST:
        yield Finding(Level.FAULT, "store", f"{root} is on {kind}, and ends with this container", remedy)
    elif patient.place.several_nodes and kind in LOCAL_KINDS:
        yield _judge_shared(patient, "store", root, kind, remedy)
    else:
        yield Finding(Level.OK, "store", f"{root} ({kind or 'unknown file system'}) is writable")


def _judge_shared(patient: Patient, subject: str, path: str, kind: str | None, remedy: str) -> Finding:
    """Whether other nodes see a directory on a local file system: the doctor of each node puts a file there."""
    from nemotron_exec.doctor.place import identity_of
    from nemotron_exec.doctor.seen import seen_by

    identity = identity_of(patient)
    timeout = patient.chosen.timeout if identity.shared else 0
    job = f"{identity.id} {patient.place.attempt}"
    try:
        (other,) = seen_by([_existing(path)], job, patient.place.count, timeout)
    except OSError as error:
        return Finding(Level.FAULT, subject, f"{path}: {(error.strerror or str(error)).lower()}", remedy)
    if other is not None:
        return Finding(Level.OK, subject, f"{path} ({kind}) is writable, and {other} sees it, too")
    found = f"{path} is on {kind}, a local file system, and no --doctor of another node was seen in it"
    return Finding(Level.FAULT, subject, found, f"{remedy}. To try it, start --doctor on all nodes at once")


def _remote(root: str) -> Finding:
    """The finding about an fsspec root: a file is written there and removed."""
    import fsspec

    name = f"{root.rstrip('/')}/.doctor-{secrets.token_hex(8)}"
    try:
        files, path = fsspec.core.url_to_fs(name)
        files.pipe_file(path, b"")
        files.rm_file(path)
    except Exception as error:  # noqa: BLE001  # each file system raises other errors
        text = str(error).strip().splitlines() or [""]
        remedy = (
            "Check address and credentials, and that the package of this file system is installed with the launcher"
        )
        return Finding(Level.FAULT, "store", f"{root}: {type(error).__name__}: {text[0]}", remedy)
    return Finding(Level.OK, "store", f"{root} is writable")


def _state(patient: Patient) -> Iterator[Finding]:
    from nemotron_exec.place.state_directory import state_directory
    from nemotron_exec.shared_directory.file_system import LOCAL_KINDS

    messages = Kept()
    try:
        state = state_directory(
            patient.chosen.state_dir,
            patient.environ,
            patient.place,
            messages=messages,
            rendezvous=patient.chosen.rendezvous,
        )
    except LaunchError as error:
        # A command without a config needs no state directory.
        level = Level.WARNING if patient.words and not patient.command.configs else Level.FAULT
        yield Finding(level, "state", f"{error.wanted}: {error.found}", error.remedy)
        return
    if patient.place.several_nodes and patient.chosen.rendezvous != "c10d" and state.kind in LOCAL_KINDS:
        # The launcher only warns of a local file system. The doctors find out whether the nodes share it.
        yield _judge_shared(
            patient, "state", state.path, state.kind, "Name one that all nodes see with --state-dir DIR"
        )
        messages.kept.clear()
    for warning in messages.kept:
        yield Finding(Level.WARNING, "state", warning)
    probe = os.path.join(state.path, f"doctor-{secrets.token_hex(8)}")
    try:
        skew = _clock_skew(probe)
        linked = _links(probe)
    except OSError as error:
        yield Finding(Level.FAULT, "state", f"{state.path}: {error.strerror}", "Give another with --state-dir DIR")
        return
    finally:
        for path in (probe, probe + ".link"):
            if os.path.lexists(path):
                os.unlink(path)
    shared = "shared" if state.shared else "of this machine alone"
    yield Finding(Level.OK, "state", f"{state.path} ({state.source}, {state.kind or 'unknown'}) is writable, {shared}")
    if not linked and patient.place.several_nodes and patient.chosen.rendezvous != "c10d":
        remedy = "Use --rendezvous c10d, or another --state-dir"
        yield Finding(Level.FAULT, "state", f"{state.kind} refuses hard links, by which launchers agree", remedy)
    yield _judge_skew(skew, several=patient.place.several_nodes)


def _judge_skew(skew: float, *, several: bool) -> Finding:
    text = f"the clock of the state directory's server is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) < 2:
        return Finding(Level.OK, "clock", "agrees with that of the state directory", detail=True)
    level = Level.FAULT if several and abs(skew) >= _LEASE else Level.WARNING
    return Finding(level, "clock", text, "Synchronise the clocks of the nodes and of the file server (NTP, chrony)")


def _clock_skew(path: str) -> float:
    """Seconds by which the file system's clock is ahead of this machine's; 0 within the error of the measurement."""
    before = time.time()
    with open(path, "x"):
        pass
    after = time.time()
    stamp = os.stat(path).st_mtime
    # A file system with whole seconds may give a time up to 1 s too early.
    if stamp > after:
        return stamp - after
    return min(0.0, stamp - before + 1.0)


def _links(path: str) -> bool:
    try:
        os.link(path, path + ".link")
    except OSError:
        return False
    return True


def _cache(patient: Patient) -> Iterator[Finding]:
    """The finding about the cache for downloads, if the store is W&B."""
    from nemotron_exec.doctor.server import backend
    from nemotron_exec.environment import default_cache

    if backend(patient)[0] != "wandb":
        return
    path = patient.chosen.cache_dir or default_cache(patient.environ)
    if path is None:
        yield Finding(
            Level.FAULT, "cache", "HOME is not set: there is no place for it", "Name one with --cache-dir DIR"
        )
        return
    error = _cannot_write(path)
    if error:
        yield Finding(Level.FAULT, "cache", f"{path}: {error}", "Name another with --cache-dir DIR")
        return
    free = shutil.disk_usage(_existing(path)).free
    text = f"{path} is writable, {free / (1 << 30):.0f} GiB free"
    remedy = "Name a roomier one with --cache-dir DIR" if free < _ROOM else ""
    yield Finding(Level.WARNING if remedy else Level.OK, "cache", text, remedy)


def _existing(path: str) -> str:
    """The path, or the nearest directory above it that exists."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _cannot_write(path: str) -> str:
    """Why no file can be created in the directory; "" if it can.

    For a missing directory the nearest parent that exists is tried.
    """
    directory = _existing(absolute(path))
    below = os.path.relpath(absolute(path), directory).split(os.sep)[0]
    if below != "." and os.path.lexists(os.path.join(directory, below)):
        return f"{os.path.join(directory, below)} is not a directory"
    probe = os.path.join(directory, f".doctor-{secrets.token_hex(8)}")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(probe)
    except OSError as error:
        where = "" if directory == absolute(path) else f" in {directory}"
        return (error.strerror or str(error)).lower() + where
    return ""
