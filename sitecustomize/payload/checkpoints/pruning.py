"""Marks the versions of checkpoints that the framework has deleted, so that `latest` passes over them.

The commit thread looks for them after each new checkpoint, after each clean-up of the framework and once at the end of
the process. Megatron-Bridge deletes (`most_recent_k`) on another rank than the recording one, and also after the last
checkpoint is recorded. So only the directory itself shows it.
"""

from __future__ import annotations

import os
import threading

from .. import job, notice
from ..manifest import register
from ..paths.absolute import absolute
from . import commit

_LAST_LOOK_SECONDS = 5.0  # seconds for which the end of the process waits for the last look in a slow store


class _Alive:
    """Save directory: {(store, name): {version: local path of the checkpoint}}."""

    def __init__(self):
        self.lock = threading.Lock()
        self.versions: dict[str, dict[tuple[str, str], dict[int, str]]] = {}

    def inherit(self, parents):
        """A forked child may save from now on, so it gets the versions that its parent watches."""
        self.versions = parents.versions


def remember(entry, number):
    """Watch a version that this process has registered.

    Args:
        entry: Its outbox entry.
        number: N of `vN`.
    """
    commit.at_end(look_at_end)
    alive = job.part(_Alive)
    with alive.lock:
        of_directory = alive.versions.setdefault(entry["save_dir"], {})
        of_directory.setdefault((entry["store"], entry["name"]), {})[number] = entry["local_path"]


def look_soon(save_dir):
    """Have the commit thread look for deleted checkpoints of a save directory."""
    commit.committer().job(lambda: look(absolute(save_dir)))


def look_at_end():
    """Look once more for checkpoints that the framework has deleted since its last save."""
    alive = job.part(_Alive)
    with alive.lock:
        save_dirs = list(alive.versions)
    try:
        for save_dir in save_dirs:
            look_soon(save_dir)
        commit.committer().settle(_LAST_LOOK_SECONDS)
    except RuntimeError as error:
        # The process is ending, and can start no thread.
        notice.debug("no last look for deleted checkpoints: %r" % (error,))


def look(save_dir):
    """Mark every watched version whose checkpoint is deleted, or overwritten by a later version."""
    alive = job.part(_Alive)
    with alive.lock:
        remembered = [(key, dict(versions)) for key, versions in alive.versions.get(save_dir, {}).items()]
    for (store, name), versions in remembered:
        newest = {}
        for number, path in sorted(versions.items()):
            newest[path] = number
        for number, path in sorted(versions.items()):
            if newest[path] == number and os.path.exists(path):
                continue
            try:
                register.mark_pruned(store, name, number)
            except Exception as error:
                notice.debug("%s:v%d is not marked as pruned: %r" % (name, number, error))
                continue
            with alive.lock:
                alive.versions[save_dir][(store, name)].pop(number, None)
