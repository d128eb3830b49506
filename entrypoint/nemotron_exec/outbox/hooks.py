"""Runs hooks of `run.on_checkpoint` that an earlier run has left: before the job, beside it, or by `flush`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.checkpoints import describe, hook_entries, hook_runner, hooks, outbox, process
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from nemotron_exec.message import Messages
    from nemotron_exec.sitecustomize.payload.documents import Entry

__all__ = ["Left", "catch_up", "directories_of", "hand_over", "left_in", "run_left"]

_TELL = 2.0  # seconds between two progress lines


@dataclass(frozen=True)
class Left:
    """A hook that is still to be run for a checkpoint, or has failed.

    Attributes:
        path: Path of its entry.
        entry: Content of the entry.
    """

    path: str
    entry: dict[str, Any]

    @property
    def identity(self) -> str:
        """The name of the hook for people."""
        return str(hook_entries.identity(self.entry))

    @property
    def is_due(self) -> bool:
        """Whether the hook would be run now. While its process runs, that process's runner is responsible for it."""
        state = self.entry["state"]
        if state == hook_entries.HELD:
            return bool(hook_runner.exit_of(os.path.dirname(self.path), self.entry.get("ended")) == 0)
        if process.alive(self.entry.get("process")):
            return False
        return state in (hook_entries.WAITING, hook_entries.RUNNING)

    @property
    def why(self) -> str:
        """Why the hook has not been run."""
        if process.alive(self.entry.get("process")):
            return "its job is still running"
        return str(self.entry.get("why") or "it has not been run yet")


def hand_over(path: str, entry: Entry) -> str | None:
    """Write the entries for the hooks of a registered checkpoint. Return why they cannot be written, else None."""
    if not entry.get("hooks"):
        return None
    try:
        hook_entries.hand_over(entry, path)
    except (OSError, hook_entries.ForeignError, KeyError, TypeError, AttributeError) as error:
        return f"its hooks are not run: {error}"
    return None


def directories_of(places: Iterable[str]) -> list[str]:
    """The directories of hooks that belong to save directories, to parents of these, or to roots of stores."""
    found = []
    for place in places:
        if describe.is_uri(place) or not os.path.isdir(place):
            continue
        # Look beside the save directory, too: its outbox may be gone.
        for one in [hook_entries.of_save_directory(absolute(place)), *map(hook_entries.beside, _boxes(place))]:
            if one not in found and os.path.isdir(one) and not outbox.linked(one):
                found.append(one)
    return found


def _boxes(place: str) -> list[str]:
    return [os.path.join(os.path.dirname(box), "outbox") for box in outbox.find(absolute(place))]


def left_in(directories: Iterable[str]) -> list[Left]:
    """The unfinished entries in directories of hooks, oldest first."""
    return [Left(path, entry) for directory in directories for path, entry in hook_entries.entries(directory)]


def catch_up(
    save_dir: str | None,
    store: str | None,
    *,
    messages: Messages,
    environ: Mapping[str, str],
    seconds: float,
    progress: Callable[[str], object] | None = None,
) -> None:
    """Run the hooks that an earlier run of the job has left: with `catch_up: before` now, else beside the job.

    Args:
        save_dir: The directory of the config's checkpoints, absolute or a URI; None for none.
        store: Root of the manifest store.
        messages: Gets a message for each command that is run, and for each that has failed.
        environ: The launcher's environment.
        seconds: Bound on running commands before the job. A command that is not done goes on beside the job.
        progress: Called now and then, so that the launcher does not count as stuck.
    """
    if save_dir is None:
        return
    directories = directories_of([place for place in (save_dir, store) if place])
    left = [one for one in left_in(directories) if one.entry["checkpoint"].get("save_dir") == save_dir]
    _tell_failed(left, messages)
    for directory in directories:
        for path, why in hook_entries.foreign(directory):
            messages.warning(f"a hook of an earlier run is left alone: {why} ({path})")
    due = [one for one in left if one.is_due]
    before = [one for one in due if one.entry["hook"].get("catch_up") == "before"]
    if before:
        messages.info(f"hooks of an earlier run, before the job: {_names(before)}")
        for directory, some in _by_directory(before):
            _run(directory, some, environ, seconds, progress)
        still = {one.identity for one in left_in(directories)}
        before = [one for one in before if one.identity in still]
        if before:
            messages.warning(f"hooks of an earlier run did not come to their end before the job: {_names(before)}")
    beside = [one for one in due if one.entry["hook"].get("catch_up") != "before" or one in before]
    if not beside:
        return
    messages.info(f"hooks of an earlier run, beside the job: {_names(beside)}")
    for directory, some in _by_directory(beside):
        words = [word for one in some for word in ("--only", one.identity)]
        hooks.start_runner(directory, "--detach", *words, environ=dict(environ), python=sys.executable).wait()


def run_left(
    directories: Sequence[str],
    *,
    timeout: float,
    environ: Mapping[str, str] = os.environ,
    only: Sequence[str] | None = None,
) -> tuple[int, list[Left]]:
    """Run the due hooks in some directories of hooks, here and now.

    Args:
        directories: Directories of hooks.
        timeout: Seconds after which running commands are told to end. Their entries stay.
        environ: The environment from which that of the commands is made.
        only: Identities of the hooks to run; None for all.

    Returns:
        How many hooks have ended well, and the entries that are left.
    """
    due = [one for one in left_in(directories) if one.is_due and (only is None or one.identity in only)]
    deadline = time.monotonic() + timeout
    for directory, some in _by_directory(due):
        _run(directory, some, environ, max(0.0, deadline - time.monotonic()), None)
    left = left_in(directories)
    still = {one.path for one in left}
    return sum(one.path not in still for one in due), left


def _run(
    directory: str,
    some: Sequence[Left],
    environ: Mapping[str, str],
    seconds: float,
    progress: Callable[[str], object] | None,
) -> None:
    words = ["--seconds", f"{seconds:g}", *(word for one in some for word in ("--only", one.identity))]
    # The runner stays in this process's group: Ctrl-C of the terminal reaches it, and it stops its commands.
    runner = subprocess.Popen(
        hooks.command_of(sys.executable, directory, *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env=dict(environ),
    )
    try:
        while runner.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(_TELL)
            if progress is not None:
                progress(f"running hooks of an earlier run: {_names(some)}"[:300])
    finally:
        if runner.poll() is None:
            runner.terminate()
            runner.wait()


def _by_directory(some: Sequence[Left]) -> Iterator[tuple[str, list[Left]]]:
    for directory in dict.fromkeys(os.path.dirname(one.path) for one in some):
        yield directory, [one for one in some if os.path.dirname(one.path) == directory]


def _tell_failed(left: Sequence[Left], messages: Messages) -> None:
    for one in left:
        if one.entry["state"] == hook_entries.FAILED:
            save_dir = one.entry["checkpoint"].get("save_dir")
            messages.warning(
                f"hook {one.identity} of an earlier run has failed {one.entry.get('attempts')} times: {one.why}. Run "
                f"it again with: nemotron-artifact hooks {save_dir} --again {one.identity}"
            )


def _names(some: Sequence[Left]) -> str:
    shown = ", ".join(one.identity for one in some[:5])
    return shown + (f" and {len(some) - 5} more" if len(some) > 5 else "")
