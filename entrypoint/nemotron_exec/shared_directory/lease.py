"""Leadership: filelock's SoftFileLease, told apart from its own clock.

A lease is a hint about who should be working. That two launchers may work at once costs time and nothing else: what
decides is the answer, which is published once (answer.py).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import filelock

from nemotron_exec.errors import LaunchError
from nemotron_exec.shared_directory import files

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Holder", "Lease"]


@dataclass(frozen=True)
class Holder:
    """Who holds the lease, as its marker says. `beat` is the time of the last heartbeat, by the file server's clock."""

    host: str
    pid: int
    beat: float


class Lease:
    """One launcher's claim on the lead of one meeting.

    Args:
        path: The marker.
        now: The file server's time: the clocks of the nodes may differ by more than a lease.
        duration: Seconds without a heartbeat after which others may take the lease. The same in all processes:
            filelock refuses a marker with another number.
        heartbeat: Seconds between two heartbeats.
    """

    def __init__(self, path: str, now: Callable[[], float], *, duration: float, heartbeat: float) -> None:
        self.path = path
        self._duration = duration
        self._now = now
        # The heartbeat thread reports a loss on the claim itself, so the main thread sees it in `held`.
        self._lease = filelock.SoftFileLease(
            path, lease_duration=duration, heartbeat_interval=heartbeat, mode=0o600, thread_local=False
        )

    @property
    def held(self) -> bool:
        """Whether this process leads: it took the lease, and no other process has taken it since."""
        if not self._lease.is_locked or self._lease.compromise is not None:
            return False
        # After a stop (SIGSTOP, a suspended machine) the heartbeat has not noticed yet what the marker says.
        try:
            with open(self.path, "rb") as file:
                return (self._lease.token or "-").encode() in file.read(4096)
        except OSError:
            return False

    def acquire(self) -> bool:
        """Take the lease if it is free, or if its holder is dead or silent. Never waits.

        Raises:
            LaunchError: The marker cannot be written, or belongs to another version's protocol.
        """
        marker = self._marker()
        if marker is None:
            return self._attempt()
        silent = self._now() - marker.beat
        if marker.host != socket.gethostname() and silent < self._duration:
            return False
        # filelock knows at once that a process of this host is dead. The first attempt may only remove its marker.
        if self._attempt() or self._attempt():
            return True
        # This class judges the silence, not filelock. Some of its versions measure it by this node's clock, which may
        # be ahead or behind. Others want to have watched for a whole lease. None looks at a half-written marker.
        if silent >= self._duration and self._marker() == marker:
            self._lease.force_break()
            return self._attempt()
        return False

    def release(self) -> None:
        """Give the lead back and stop the heartbeat. Safe to call twice."""
        if self._lease.is_locked:
            self._lease.release(force=True)

    def holder(self) -> Holder | None:
        """The holder; None if there is none or the marker cannot be read."""
        marker = self._marker()
        return None if marker is None or not marker.host else marker

    def _marker(self) -> Holder | None:
        """What lies where the marker should; without a host if it is none."""
        try:
            data = files.read(self.path, limit=4096)
        except files.UnusableFileError:
            data = b""
        try:
            beat = os.lstat(self.path).st_mtime
        except OSError:
            return None
        fields = dict(line.partition("=")[::2] for line in (data or b"").decode("utf-8", "replace").splitlines())
        if not fields.get("host") or not fields.get("pid", "").isdigit():
            return Holder("", 0, beat)
        return Holder(fields["host"], int(fields["pid"]), beat)

    def _attempt(self) -> bool:
        try:
            self._lease.acquire(blocking=False)
        except filelock.Timeout:
            return False
        except (OSError, filelock.LeaseSettingsMismatch) as error:
            raise LaunchError(
                f"to take the lead of this job ({self.path})",
                str(error),
                "Remove that file if no job uses it, or give another directory with --state-dir DIR",
            ) from None
        except BaseException as error:
            # A signal that arrives here comes out of filelock in a group, with what its own clean-up met.
            members = getattr(error, "exceptions", ())
            signalled = next((member for member in members if not isinstance(member, Exception)), None)
            if signalled is None:
                raise
            raise signalled from None
        return True
