"""`run.on_checkpoint` in the process that saves: hooks get their entries, and a runner of their own runs them.

Everything here runs on the commit thread. The runner is a process in a session of its own, with this process's Python
and none of its packages. It inherits no pipe and no descriptor of the job.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time

from .. import job, noted, notice
from ..paths.absolute import absolute
from . import commit, hook_entries, hook_runner, outbox, process

__all__ = []

DRAIN_VARIABLE = "NEMOTRON_EXEC_HOOK_DRAIN"
DRAIN_SECONDS = 5.0  # enough for a short command (sbatch); in a Slurm step no command outlives the process
_BOOT = """import importlib.util as util, sys
spec = util.spec_from_file_location("_nemotron_exec", sys.argv[1] + "/__init__.py",
                                    submodule_search_locations=[sys.argv[1]])
sys.modules["_nemotron_exec"] = package = util.module_from_spec(spec)
spec.loader.exec_module(package)
from _nemotron_exec.checkpoints import hook_runner
sys.exit(hook_runner.main(sys.argv[2:]))
"""
_PAYLOAD = os.path.dirname(os.path.dirname(absolute(__file__)))


class _Started:
    """The runner and the entries of this process for one directory of hooks."""

    def __init__(self):
        self.runner = None
        self.process = {}
        self.paths = []
        self.told = set()

    def runs(self):
        """Whether the runner runs.

        A killed runner is a zombie at once, but `poll` sees its end only when its last thread has ended. So /proc is
        asked, too.
        """
        if self.runner is None or self.runner.poll() is not None:
            return False
        return self.process.get("start") is None or process.alive(self.process)


class _Hooks:
    """The hooks of this process, by directory, and the file by which it will report its end.

    Attributes:
        started: Runner and entries of each directory.
        end_file: Name of the file that will have its exit code; None before its first checkpoint with hooks.
    """

    def __init__(self):
        self.started: dict[str, _Started] = {}
        self.end_file: str | None = None


def mark(entry, config, completed):
    """Note in a new outbox entry its hooks and the facts that they need."""
    if not config.hooks:
        return
    entry["hooks"] = config.hooks
    entry["best"] = completed.best
    hooks = job.part(_Hooks)
    hooks.end_file = hooks.end_file or "ended-" + outbox.new_event()[:16]
    entry["end_file"] = hooks.end_file
    entry["looked_up_in_wandb"] = config.backend == "wandb"


def fire(entry, path):
    """Give the hooks of a registered checkpoint their entries, and start a runner unless one runs.

    Args:
        entry: The outbox entry.
        path: The entry's file; None where it could not be written.

    Raises:
        OSError: The entries could not be written. The caller tries again.
    """
    if not entry.get("hooks"):
        return
    if path is None:
        notice.warning("run.on_checkpoint: nothing is run for %s: there is no outbox" % entry["checkpoint_path"])
        entry.pop("hooks")
        return
    try:
        made = hook_entries.hand_over(entry, path)
    except hook_entries.ForeignError as error:
        notice.warning("run.on_checkpoint: nothing is run for %s: %s" % (entry["checkpoint_path"], error))
        return
    watch(hook_entries.beside(os.path.dirname(path)), made)


def watch(directory, made=()):
    """Start this process's runner for a directory of hooks unless it runs, and report hooks that have failed."""
    started = job.part(_Hooks).started
    one = started.get(directory)
    if one is None:
        one = started[directory] = _Started()
        commit.at_end(at_end)
        atexit.register(_write_exit_code, os.getpid(), directory)
    one.paths += made
    _say_failed(directory, one)
    open_ = [entry for _, entry in hook_entries.entries(directory) if entry["state"] != hook_entries.FAILED]
    if open_ and not one.runs():
        here = process.here()
        owner = [here["host"], str(here["pid"]), str(here["start"]), job.part(_Hooks).end_file or "ended-"]
        # A Python that needs the job's variables (PYTHONHOME) does not start with -I. Use the launcher's Python then.
        failed = one.runner is not None and (one.runner.returncode or 0) > 0
        python = os.environ.get("NEMOTRON_EXEC_PYTHON") if failed else None
        one.runner = start_runner(directory, "--owner", *owner, python=python)
        one.process = dict(here, pid=one.runner.pid, start=process.start_time(one.runner.pid))


def start_runner(directory, *words, **options):
    """Start a runner, in a session of its own.

    Args:
        directory: The directory of hooks.
        words: Arguments of `hook_runner.main`.
        options: `environ`, else this process's; `python`, else this process's.

    Returns:
        The `subprocess.Popen`.
    """
    python = options.get("python") or sys.executable or os.environ.get("NEMOTRON_EXEC_PYTHON")
    return subprocess.Popen(
        command_of(python, directory, *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=options.get("environ"),
        start_new_session=True,
    )


def command_of(python, directory, *words):
    """The command line of a runner: an interpreter without the job's packages, which loads this payload."""
    return [python, "-I", "-S", "-c", _BOOT, _PAYLOAD, directory, *words]


def at_end():
    """When the process ends by itself: tell the runner, and give short commands the time to finish."""
    for directory, one in job.part(_Hooks).started.items():
        try:
            _at_end(directory, one)
        except Exception as error:
            notice.warning("run.on_checkpoint: the hooks of %s: %r" % (directory, error))


def _at_end(directory, one):
    watch(directory)
    _append(directory, hook_runner.REGULAR, os.O_CREAT | os.O_EXCL)
    deadline = time.monotonic() + _drain_seconds()
    while time.monotonic() < deadline and _first_attempts(one):
        time.sleep(0.05)
    watch(directory)  # the runner may have been killed meanwhile
    left = _first_attempts(one)
    if left:
        names = ", ".join(hook_entries.identity(entry) for entry in left)
        notice.info(
            "hooks that are not over: %s. They go on without the job where the machine lets them, and else with its "
            "next start, or `nemotron-artifact flush %s`" % (names, left[0]["checkpoint"]["save_dir"])
        )
    if one.runner is not None and one.runner.poll() is None:
        one.runner.returncode = 0  # the runner outlives this process; without this Popen warns


def _first_attempts(one):
    """The entries of this process whose command waits for its first attempt, or runs."""
    found = []
    for path in one.paths:
        try:
            entry = hook_entries.read(path)
        except (OSError, ValueError, hook_entries.ForeignError):
            continue  # done
        first = entry["state"] == hook_entries.WAITING and not entry["attempts"]
        if first or entry["state"] == hook_entries.RUNNING:
            found.append(entry)
    return found


def _say_failed(directory, one):
    for path, entry in hook_entries.entries(directory):
        if entry["state"] == hook_entries.FAILED and path not in one.told:
            one.told.add(path)
            who = hook_entries.identity(entry)
            noted.note("hook", hook=who, state="failed", why=entry.get("why"))
            notice.warning(
                "hook %s has failed %d times: %s. Its output is in %s; run it again with `nemotron-artifact hooks %s "
                "--again %s`"
                % (who, entry["attempts"], entry.get("why"), entry.get("log"), entry["checkpoint"]["save_dir"], who)
            )


def _write_exit_code(pid, directory):
    """Runs at the interpreter's exit, and has the C library append the process's exit code to the file."""
    if os.getpid() != pid:
        return
    from .outputs import write_exit_code

    try:
        write_exit_code(os.path.join(directory, job.part(_Hooks).end_file), os.O_APPEND)
    except Exception as error:
        notice.debug("the exit code is not to be had: %r" % (error,))


def _append(directory, data, flags):
    path = os.path.join(directory, job.part(_Hooks).end_file or "ended-")
    try:
        descriptor = os.open(path, os.O_WRONLY | flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return  # another call has written the file
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _drain_seconds():
    try:
        return max(0.0, float(os.environ.get(DRAIN_VARIABLE, "")))
    except ValueError:
        return DRAIN_SECONDS
