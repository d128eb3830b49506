"""Leadership by filelock's SoftFileLease, with silence measured by the file server's clock.

A lease is only a hint about who should work. If two launchers work at once, they lose time and nothing else. The answer
decides, and it is published once (answer.py).
"""

from __future__ import annotations

import os

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.shared_directory import files
from nemotron_exec.sitecustomize.payload.checkpoints import process

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    import filelock

__all__ = ["Holder", "Lease"]


@dataclass(frozen=True)
class Holder:
    """The holder of the lease, read from its marker. `beat` is the last heartbeat by the file server's clock."""

    host: str
    pid: int
    beat: float


class Lease:
    """One launcher's claim on the lead of one meeting.

    Args:
        path: Path of the marker.
        now: Returns the file server's time. The clocks of the nodes may differ by more than a lease.
        duration: Seconds without a heartbeat after which another launcher may take the lease. All processes must use
            the same number: filelock refuses a marker with another one.
        heartbeat: Seconds between two heartbeats.
    """

    def __init__(self, path: str, now: Callable[[], float], *, duration: float, heartbeat: float) -> None:
        self.path = path
        self._now = now
        self._duration, self._heartbeat = duration, heartbeat
        self._claim: filelock.SoftFileLease | None = None

    @property
    def held(self) -> bool:
        """Whether this process leads: it has taken the lease, and no other process has taken it since."""
        claim = self._claim
        if claim is None or not claim.is_locked or claim.compromise is not None:
            return False
        # Read the marker: after a stop (SIGSTOP, a suspended machine) the heartbeat has not noticed a loss yet.
        try:
            with open(self.path, "rb") as file:
                return (claim.token or "-").encode() in file.read(4096)
        except OSError:
            return False

    def acquire(self) -> bool:
        """Take the lease if it is free, or if its holder is dead or silent. It never waits.

        Raises:
            LaunchError: The marker cannot be written, or belongs to another version's protocol.
        """
        marker = self._marker()
        if marker is None:
            return self._attempt()
        silent = self._now() - marker.beat
        # A live holder of this host is found without filelock, whose import costs each of 64 waiters 20 ms.
        if silent < self._duration and (marker.host != os.uname().nodename or process.runs(marker.pid)):
            return False
        # filelock knows at once that a process of this host is dead. The first attempt may only remove its marker.
        if self._attempt() or self._attempt():
            return True
        # This class judges the silence, not filelock. Some of its versions measure it by this node's clock, which may
        # be ahead or behind. Others want to have watched for a whole lease. None looks at a half-written marker.
        if silent >= self._duration and self._marker() == marker:
            self._filelock().force_break()
            return self._attempt()
        return False

    def release(self) -> None:
        """Release the lease and stop the heartbeat. It may be called twice."""
        if self._claim is not None and self._claim.is_locked:
            self._claim.release(force=True)

    def holder(self) -> Holder | None:
        """The holder; None if there is none or the marker cannot be read."""
        marker = self._marker()
        return None if marker is None or not marker.host else marker

    def _marker(self) -> Holder | None:
        """The marker's content; without a host if the file is no marker, None if there is no file."""
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

    def _filelock(self) -> filelock.SoftFileLease:
        if self._claim is None:
            import filelock

            # The heartbeat thread reports a loss on the claim itself, so the main thread sees it in `held`.
            self._claim = filelock.SoftFileLease(
                self.path,
                lease_duration=self._duration,
                heartbeat_interval=self._heartbeat,
                mode=0o600,
                thread_local=False,
            )
        return self._claim

    def _attempt(self) -> bool:
        import filelock

        try:
            self._filelock().acquire(blocking=False)
        except filelock.Timeout:
            return False
        except (OSError, filelock.LeaseSettingsMismatch) as error:
            raise LaunchError(
                f"to take the lead of this job ({self.path})",
                str(error),
                "Remove that file if no job uses it, or give another directory with --state-dir DIR",
            ) from None
        except BaseException as error:
            # filelock raises a signal that arrives here in a group, together with the errors of its clean-up.
            members = getattr(error, "exceptions", ())
            signalled = next((member for member in members if not isinstance(member, Exception)), None)
            if signalled is None:
                raise
            raise signalled from None
        return True
