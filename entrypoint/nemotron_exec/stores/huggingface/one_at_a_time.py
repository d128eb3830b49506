"""One launcher completes a repository of the cache, and the others wait for it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.huggingface.faults import FullError, classify, is_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nemotron_exec.stores.huggingface.cache import HubCache
    from nemotron_exec.stores.huggingface.faults import Subject

__all__ = ["turn"]

_POLL = 0.5  # seconds
_LEASE, _HEARTBEAT = 15.0, 5.0  # seconds; all launchers that use the cache must agree on them


@contextlib.contextmanager
def turn(
    cache: HubCache, kind: str, name: str, subject: Subject, lacking: Callable[[], object], waiting: Callable[[], None]
) -> Iterator[bool]:
    """Take the turn to complete this repository. The value is False once another launcher has completed it.

    The locks of huggingface_hub itself are flock(2), which some shared file systems do not share between nodes.

    Args:
        cache: The cache of the repository.
        kind: "model" or "dataset".
        name: `org/name`.
        subject: For messages.
        lacking: Returns the missing files of the repository; called while another launcher has the turn.
        waiting: Called while another launcher has the turn.

    Raises:
        FullError: The cache has no room.
        LaunchError: The cache cannot be written.
    """
    from nemotron_exec.shared_directory.clock import Clock
    from nemotron_exec.shared_directory.lease import Lease

    directory = os.path.join(cache.root, ".locks", "nemotron-exec")
    try:
        os.makedirs(directory, exist_ok=True)
        now = Clock(os.path.join(directory, f"clock-{os.getpid()}-{os.urandom(4).hex()}.tmp")).now
        now()
    except OSError as error:
        if is_full(error):
            raise FullError from None
        answer = classify(error, subject)
        if isinstance(answer, LaunchError):
            raise answer from None
        raise TemporaryError(subject.wanted, f"{error.strerror} ({directory})", "Start the job again") from None
    path = os.path.join(directory, os.path.basename(cache.repository(kind, name)) + ".lease")
    lease: Lease | None = Lease(path, now, duration=_LEASE, heartbeat=_HEARTBEAT)
    held = False
    while lease is not None and not held:
        try:
            held = lease.acquire()
        except LaunchError:
            lease = None  # the file system has no lease, or it is another user's: download beside the others
            break
        if not held:
            if not lacking():
                yield False
                return
            waiting()
            time.sleep(_POLL)
    try:
        yield True
    finally:
        if lease is not None:
            lease.release()
