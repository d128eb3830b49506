"""The lock by which writers of one name take turns."""

from __future__ import annotations

import contextlib
import json
import os
import time

from .names import StoreError

__all__ = ["writer_lock"]

STALE_LOCK = 10.0  # seconds; the lock is held for the time of three small files

LOCK_WAIT = 60.0  # seconds


@contextlib.contextmanager
def writer_lock(files, path, left=""):
    """Hold a lock file, and yield a function that says whether this process still holds it.

    Args:
        files: The store's file system object.
        path: The lock file.
        left: The work that stays undone without the lock, for the message.
    """
    mine = json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "nonce": os.urandom(16).hex()}).encode()
    patience = getattr(files, "lock_wait", None)
    patience = LOCK_WAIT if patience is None else patience
    deadline = time.monotonic() + patience
    seen = None
    since = time.monotonic()
    while not files.create(path, mine):
        # Clocks of nodes differ. So a lock counts as dead when this process has seen the same content for STALE_LOCK
        # seconds.
        holder = files.read(path)
        now = time.monotonic()
        if holder != seen:
            seen, since = holder, now
        elif holder is not None and now - since > STALE_LOCK:
            files.break_lock(path, holder)
        if now > deadline:
            raise StoreError(
                "to take the lock {}".format(path),
                "other writers have held it for {:g} s{}".format(patience, left),
                "Remove the file if no job writes to this store",
                temporary=True,
            )
        import random

        time.sleep(random.uniform(0.005, 0.05))  # noqa: S311
    taken = time.monotonic()
    # No writer breaks a lock younger than STALE_LOCK. So a bucket, where a read is a round trip, trusts it for a time.
    trust = getattr(files, "lock_trust", 0.0)

    def still_ours():
        return time.monotonic() - taken < trust or files.read(path) == mine

    try:
        yield still_ours
    finally:
        if still_ours():
            files.remove(path)
