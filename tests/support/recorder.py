"""Records a process's file operations in order, lets one of them fail, and rebuilds the trees after a power cut.

Kernel and file system promise little: a file's content is on the disk after an fsync of the file, a name after an fsync
of its directory. After a power cut every other name may exist or be missing, independently. A file whose content was
not synced may have its length and hold zeros (delayed allocation of ext4 and XFS).

    with recorder.watch(root) as seen:
        save()
    seen.story              ["make v1/", "sync v1/metadata.json", "rename v1/metadata.json", "sync v1/", ...]
    seen.power_cuts()       every tree that a power cut between and after those steps can leave

A step that fails has no effect: `recorder.watch(root, fail=3)` raises EIO instead of the fourth step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_NAMING = ("link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "symlink")
_VERBS = {"replace": "rename", "remove": "unlink", "mkdir": "make", "rmdir": "unlink"}


@dataclass
class Step:
    """One call. `path` is the name that is made, removed or synced, relative to the root; `source` is the old name."""

    verb: str
    path: str
    source: str = ""


@dataclass
class Seen:
    """The recorded steps in one directory."""

    root: Path
    steps: list[Step] = field(default_factory=list)
    failed: Step | None = None
    cuts: list[dict[str, bytes | None]] = field(default_factory=list)
    promised: bool = True

    @property
    def story(self):
        """The steps as sentences. A file that is first written under another name appears under its final name."""
        later = {step.source: step.path for step in reversed(self.steps) if step.source}
        return [
            f"{step.verb} {later.get(step.path, step.path) if step.verb == 'sync' else step.path}"
            for step in self.steps
        ]

    def assert_order(self, *sentences):
        """Check that each sentence is a step, and that the steps come in this order."""
        rest = iter(self.story)
        for sentence in sentences:
            assert any(step == sentence for step in rest), f"no {sentence!r} in its place in\n" + "\n".join(self.story)

    def acknowledged(self):
        """Mark the point from which data must survive: `power_cuts` begins here."""
        self.cuts.clear()
        self.promised = True

    def power_cuts(self):
        """Replace the root by each tree that a power cut can leave, one after the other."""
        for number, tree in enumerate(self.cuts):
            shutil.rmtree(self.root)
            self.root.mkdir()
            for name, content in tree.items():
                path = self.root / name
                if content is None:
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            yield number


class _Disk:
    """The part of a directory that is on the disk, by inode. Open descriptors keep the kernel from reusing numbers."""

    def __init__(self, root):
        self.root = os.fspath(root)
        self.content = {}
        self.names = {}
        self._dropped = {}
        self._known = set()
        self._kept = []
        for directory, _, files in os.walk(self.root):
            self.sync(directory)
            for name in files:
                self.sync(os.path.join(directory, name))

    def close(self):
        for descriptor in self._kept:
            os.close(descriptor)

    def sync(self, path):
        """Act as an fsync."""
        found = self._know(path)
        if self._dropped.get(found.st_ino) == found.st_mtime_ns:
            return
        if stat.S_ISDIR(found.st_mode):
            with os.scandir(path) as entries:
                self.names[found.st_ino] = {one.name: one.inode() for one in entries}
        else:
            with open(path, "rb") as file:
                self.content[found.st_ino] = file.read()

    def fail(self, path):
        """Act as a failed fsync: Linux counts the pages as clean, and syncs only data that is written again."""
        found = self._know(path)
        if stat.S_ISREG(found.st_mode):
            self._dropped[found.st_ino] = found.st_mtime_ns

    def _know(self, path):
        found = os.stat(path)
        if found.st_ino not in self._known:
            self._known.add(found.st_ino)
            self._kept.append(os.open(path, os.O_PATH))
        return found

    def trees(self):
        """The trees in which all unsynced names are lost, all exist, or all but one exist."""
        everything, loose = self._kernels("", {})
        return [self._lost(os.lstat(self.root).st_ino, "", {}), everything] + [
            {name: content for name, content in everything.items() if not (name + "/").startswith(one + "/")}
            for one in loose
        ]

    def _kernels(self, prefix, tree):
        loose = []
        here = os.path.join(self.root, prefix)
        known = self.names.get(os.lstat(here).st_ino, {})
        with os.scandir(here) as entries:
            listed = sorted(entries, key=lambda one: one.name)
        for one in listed:
            name = os.path.join(prefix, one.name)
            if known.get(one.name) != one.inode():
                loose.append(name)
            if one.is_dir(follow_symlinks=False):
                tree[name] = None
                loose += self._kernels(name, tree)[1]
            elif one.is_file(follow_symlinks=False):
                tree[name] = self.content.get(one.inode(), bytes(one.stat().st_size))
        return tree, loose

    def _lost(self, inode, prefix, tree):
        for name, number in self.names.get(inode, {}).items():
            path = os.path.join(prefix, name)
            if number in self.content:
                tree[path] = self.content[number]
            elif number in self.names or os.path.isdir(os.path.join(self.root, path)):
                tree[path] = None
                self._lost(number, path, tree)
            else:
                tree[path] = b""
        return tree


class Recorder:
    """The fixture: see the module."""

    def __init__(self):
        self._lock = threading.RLock()
        self.seen = None
        self._disk = None
        self._fail = None
        self._errno = errno.EIO
        self._busy = False

    @contextlib.contextmanager
    def watch(self, root, fail=None, number=errno.EIO, cuts=True, promised=True):
        """Record the operations below `root`.

        Args:
            root: An existing directory; its content counts as being on the disk.
            fail: Number of the step that raises and is not done, from 0.
            number: The errno to raise.
            cuts: Whether to record the trees after a power cut.
            promised: False to record them only from `acknowledged` on.
        """
        seen = Seen(Path(root), promised=promised)
        self._fail, self._errno = fail, number
        self._disk = _Disk(root) if cuts else None
        self.seen = seen
        try:
            yield seen
            if cuts:
                self._snapshot()
        finally:
            self.seen = None
            if self._disk is not None:
                self._disk.close()

    def wrapped(self, function, verb):
        """`function` of os, recorded."""

        def call(*args, **kwargs):
            with self._lock:
                step = None if self.seen is None or self._busy else self._step(verb, args, kwargs)
                if step is None:
                    return function(*args, **kwargs)
                self._busy = True
                try:
                    return self._do(step, function, args, kwargs)
                finally:
                    self._busy = False

        return call

    def _do(self, step, function, args, kwargs):
        seen = self.seen
        if self._disk is not None:
            self._snapshot()
        if self._fail is not None and len(seen.steps) == self._fail and seen.failed is None:
            seen.failed = step
            if step.verb == "sync" and self._disk is not None:
                self._disk.fail(f"/proc/self/fd/{_number(args[0])}")
            raise OSError(self._errno, os.strerror(self._errno), step.path)
        result = function(*args, **kwargs)
        seen.steps.append(step)
        if step.verb == "sync" and self._disk is not None:
            self._disk.sync(f"/proc/self/fd/{_number(args[0])}")
        return result

    def _snapshot(self):
        if not self.seen.promised:
            return
        for tree in self._disk.trees():
            if tree not in self.seen.cuts:
                self.seen.cuts.append(tree)

    def _step(self, verb, args, kwargs):
        if verb == "sync":
            path = os.readlink(f"/proc/self/fd/{_number(args[0])}").removesuffix(" (deleted)")
            inside = self._inside(path)
            return None if inside is None else Step(verb, inside + "/" if os.path.isdir(path) else inside)
        two = verb in ("link", "rename")
        path = self._inside(_absolute(args[1] if two else args[-1] if verb == "symlink" else args[0], kwargs))
        source = self._inside(_absolute(args[0], kwargs)) if two else ""
        if path is None:
            return None
        return Step(verb, path + "/" if verb == "make" else path, source or "")

    def _inside(self, path):
        root = os.fspath(self.seen.root)
        if path == root:
            return "."
        return path[len(root) + 1 :] if path.startswith(root + "/") else None


def _number(file):
    return file if isinstance(file, int) else file.fileno()


def _absolute(path, kwargs):
    path = os.fsdecode(path)
    if kwargs.get("dir_fd") is not None:
        path = os.path.join(os.readlink(f"/proc/self/fd/{kwargs['dir_fd']}"), path)
    return os.path.abspath(path)


@pytest.fixture
def recorder(monkeypatch):
    """See the module."""
    one = Recorder()
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, one.wrapped(getattr(os, name), "sync"))
    for name in _NAMING:
        monkeypatch.setattr(os, name, one.wrapped(getattr(os, name), _VERBS.get(name, name)))
    return one
