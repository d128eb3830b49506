"""Checkpoints that the framework has deleted: their versions are marked, so that `latest` passes over them.

Looked for on the commit thread, after each new checkpoint and after each clean-up of the framework: Megatron-Bridge
deletes (`most_recent_k`) on another rank than the one that records, so the directory itself is the only witness.
"""

from __future__ import annotations

import os
import threading

from . import commit, manifest, notice

_lock = threading.Lock()
_alive: dict[
    str, dict[tuple[str, str], dict[int, str]]
] = {}  # save directory: {(store, name): {version: local path of the checkpoint}}


def remember(entry, number):
    """Have an eye on a version that this process has registered.

    Args:
        entry: Its outbox entry.
        number: N of `vN`.
    """
    with _lock:
        _alive.setdefault(entry["save_dir"], {}).setdefault((entry["store"], entry["name"]), {})[number] = entry[
            "local_path"
        ]


def look_soon(save_dir):
    """Look for deleted checkpoints of a save directory, on the commit thread."""
    commit.COMMITTER.job(lambda: look(os.path.abspath(save_dir)))


def look(save_dir):
    """Mark every remembered version whose checkpoint is gone, or has been replaced by a later version's."""
    with _lock:
        alive = [(key, dict(versions)) for key, versions in _alive.get(save_dir, {}).items()]
    for (store, name), versions in alive:
        newest = {}
        for number, path in sorted(versions.items()):
            newest[path] = number
        for number, path in sorted(versions.items()):
            if newest[path] == number and os.path.isdir(path):
                continue
            try:
                manifest.mark_pruned(store, name, number)
            except Exception as error:
                notice.debug("%s:v%d is not marked as pruned: %r" % (name, number, error))
                continue
            with _lock:
                _alive[save_dir][(store, name)].pop(number, None)
