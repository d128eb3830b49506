"""Checkpoints that the framework has deleted: their versions are marked, so that `latest` passes over them.

The commit thread looks after each new checkpoint, after each clean-up of the framework and once at the end of the
process. Megatron-Bridge deletes (`most_recent_k`) on another rank than the recording one, and after the last checkpoint
is recorded: the directory itself is the only witness.
"""

from __future__ import annotations

import os
import threading

from .. import job, notice
from ..manifest import register
from ..paths.absolute import absolute
from . import commit

_LAST_LOOK_SECONDS = 5.0  # what the end of the process waits for the last look, where the store is slow


class _Alive:
    """Save directory: {(store, name): {version: local path of the checkpoint}}."""

    def __init__(self):
        self.lock = threading.Lock()
        self.versions: dict[str, dict[tuple[str, str], dict[int, str]]] = {}

    def inherit(self, parents):
        """A forked child may be the process that saves from then on."""
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
    """Look for deleted checkpoints of a save directory, on the commit thread."""
    commit.committer().job(lambda: look(absolute(save_dir)))


def look_at_end():
    """Look once more, for what the framework has deleted since its last checkpoint."""
    alive = job.part(_Alive)
    with alive.lock:
        save_dirs = list(alive.versions)
    try:
        for save_dir in save_dirs:
            look_soon(save_dir)
        commit.committer().settle(_LAST_LOOK_SECONDS)
    except RuntimeError as error:
        notice.debug("no last look for deleted checkpoints: %r" % (error,))  # no thread starts any more


def look(save_dir):
    """Mark every remembered version whose checkpoint is gone, or has been replaced by a later version's."""
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
