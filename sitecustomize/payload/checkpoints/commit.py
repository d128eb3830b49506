"""The commit thread: it does the work that remains for a checkpoint once it is durable on disk.

Each process has one daemon thread, started with the first checkpoint. The thread tries each delivery until it is done
or given up. The interpreter's exit waits for the thread, within a bound. Nothing here raises into the caller.

Promised: a delivery that is not done when the process ends leaves its outbox entry, and one line on stderr says so.
Not promised: that W&B has the checkpoint when the process is killed with SIGKILL, or leaves through `os._exit`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time

from .. import job, noted, notice
from . import termination

DRAIN_VARIABLE = "NEMOTRON_EXEC_CHECKPOINT_DRAIN"
DRAIN_SECONDS = 30.0  # what Slurm (KillWait) and torchrun grant after SIGTERM
PATIENCE = 0.5  # seconds for one attempt of one delivery, before the others get their turn
REST = 0.2  # seconds between two rounds in which nothing was delivered
_LOOK_AFTER = 0.5  # seconds between two looks at whether the framework's thread has ended
_SAY_AFTER = 2.0  # seconds of silent waiting at exit


def drain_seconds(environ=os.environ):
    """The bound on waiting at exit, in seconds: `NEMOTRON_EXEC_CHECKPOINT_DRAIN`, 0 for not at all."""
    try:
        return max(0.0, float(environ.get(DRAIN_VARIABLE, "")))
    except ValueError:
        return DRAIN_SECONDS


class GivenUpError(Exception):
    """A delivery that no further attempt of this process would complete; `args[0]` says why."""


class Committer:
    """Runs deliveries on one background thread.

    A delivery is an object with `attempt(patience, turn, register) -> bool` (done or not yet; raises `GivenUpError`, or
    anything else for "try again"), and `str()` for people. A plain job is a callable, run once.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._begin()

    def _begin(self):
        self._jobs, self._running, self._open, self._held, self._lost, self._thread = [], 0, [], {}, [], None
        self._completing, self._expected = [], None
        self._waited = 0.0  # seconds spent waiting at the ends of W&B runs since the last delivery
        self._pid = os.getpid()
        self._signal = termination.Termination(lambda: self.drain(by_signal=True))

    def inherit(self, parents):
        """In a forked child nothing is pending: give SIGTERM back."""
        with contextlib.suppress(ValueError, OSError, TypeError):
            parents._signal.forget()

    # The training thread's side

    def job(self, function):
        """Run `function()` once, soon, before the deliveries."""
        with self._changed:
            self._adopt()
            self._jobs.append(function)
            self._start()
            self._changed.notify_all()

    def deliver(self, delivery):
        """Deliver, in the background."""
        with self._changed:
            self._adopt()
            self._waited = 0.0
            self._open.append(delivery)
            self._start()
            self._changed.notify_all()
        self._signal.arm()

    def hold(self, delivery):
        """Keep a delivery back until the run or the process ends, or a later one takes its place (`checkpoints: last`).

        One delivery is held for each name. A replaced delivery goes to the manifest store only, not to W&B.
        """
        with self._changed:
            self._adopt()
            superseded = self._held.pop(delivery.entry["name"], None)
            self._held[delivery.entry["name"]] = delivery  # re-inserted at the end: `finish` sends in this order
            _register_exit(self.drain)
        if superseded is not None:
            superseded.leave_out_wandb()
            self.deliver(superseded)

    @contextlib.contextmanager
    def completing(self):
        """A context in which the framework completes a checkpoint: the end of the process waits until it is left.

        The framework may do this on a daemon thread, which the interpreter would abandon at its end.
        """
        me = threading.get_ident()
        with self._changed:
            self._adopt()
            self._completing.append(me)
            try:
                self._start()
            except RuntimeError as error:
                notice.debug("the end of the process will not wait: %r" % (error,))  # it can start no thread now
        try:
            yield
        finally:
            with self._changed:
                if me in self._completing:  # a forked child starts with an empty list
                    self._completing.remove(me)
                self._changed.notify_all()

    def expect(self, thread):
        """A thread of the framework will complete a checkpoint: SIGTERM drains from now on, until it has ended.

        Args:
            thread: A `threading.Thread`; None and others are ignored.
        """
        if not isinstance(thread, threading.Thread):
            return
        with self._changed:
            self._adopt()
            self._expected = thread
            self._start()
            self._changed.notify_all()
        self._signal.arm()

    def pending(self):
        """The open deliveries, oldest first."""
        with self._changed:
            return list(self._open)

    def finish(self, seconds):
        """At the end of a W&B run: release the held deliveries, and wait for all of them, at most `seconds`."""
        with self._changed:
            held, self._held = list(self._held.values()), {}
        for delivery in held if os.getpid() == self._pid else ():
            self.deliver(delivery)
        # The end of a run and the end of the process share one bound, unless something came between.
        began = time.monotonic()
        try:
            return self.settle(max(0.0, seconds - self._waited))
        finally:
            self._waited += time.monotonic() - began

    def settle(self, seconds):
        """Wait until everything is done, at most `seconds`. Return whether it is."""
        if os.getpid() != self._pid:
            return True
        deadline = time.monotonic() + seconds
        say_at = time.monotonic() + _SAY_AFTER
        said = False
        with self._changed:
            while True:
                # In a signal handler on this thread, a checkpoint that the thread itself is completing cannot go on.
                completing = set(self._completing) - {threading.get_ident()}
                if not (self._open or self._jobs or self._running or completing):
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None or threading.current_thread() is self._thread:
                    return False
                if not said and time.monotonic() >= say_at and (self._open or completing):
                    said = True
                    _say_waiting(len(self._open) + len(completing), seconds)
                self._changed.wait(min(left, 0.25))

    def drain(self, seconds=None, by_signal=False):
        """At the end of the process: wait within the bound, then report the unfinished deliveries, once."""
        if os.getpid() != self._pid:
            return
        bound = drain_seconds() if seconds is None else seconds
        self.finish(bound)
        with self._changed:
            left, lost, self._open, self._lost = self._open, self._lost, [], []
            self._changed.notify_all()
        _say_lost(lost + [(delivery, _why_left(delivery, bound)) for delivery in left])
        _run_endings(by_signal)

    # The thread's side

    def _adopt(self):
        # A forked child has copies of the parent's lists and no commit thread. The parent delivers its own checkpoints.
        if os.getpid() != self._pid:
            self._begin()

    def _start(self):
        if self._thread is not None and self._thread.is_alive():
            _register_exit(self.drain)
            return
        self._thread = threading.Thread(target=self._run, name="nemotron-exec-commit", daemon=True)
        self._thread.start()
        _register_exit(self.drain)

    def _run(self):
        while True:
            with self._changed:
                while not self._jobs and not self._open:
                    expecting = self._expected is not None and self._expected.is_alive()
                    if not expecting:
                        self._expected = None
                        self._signal.disarm()
                    self._changed.wait(_LOOK_AFTER if expecting else None)
                jobs, self._jobs = self._jobs, []
                self._running = len(jobs)
                round_ = list(self._open)
            _run_once(jobs)
            progress = bool(jobs)
            turn = register = True
            for delivery in round_:
                progress = self._attempt(delivery, turn, register) or progress
                turn = turn and not delivery.for_wandb
                register = register and delivery.register is None
            with self._changed:
                self._running = 0
                self._changed.notify_all()
                if not progress and self._open and not self._jobs:
                    self._changed.wait(REST)

    def _attempt(self, delivery, turn, register):
        try:
            done = delivery.attempt(PATIENCE, turn, register)
        except GivenUpError as error:
            done = True
            with self._changed:
                self._lost.append((delivery, str(error)))
        except Exception as error:
            notice.debug("%s: %r, trying again" % (delivery, error))
            done = False
        if done:
            with self._changed:
                if delivery in self._open:
                    self._open.remove(delivery)
        return done


def _run_once(jobs):
    for function in jobs:
        try:
            function()
        except Exception as error:
            notice.debug("background work failed: %r" % (error,))


def _say_waiting(number, seconds):
    count = "1 checkpoint" if number == 1 else "%d checkpoints" % number
    notice.info("waiting for %s to be committed, at most %.0f s (%s)" % (count, seconds, DRAIN_VARIABLE))


def _why_left(delivery, bound):
    unfinished = getattr(delivery, "unfinished", None)
    why = unfinished() if unfinished is not None else None
    return why or "not committed within %.0f s" % bound


def _say_lost(lost):
    for delivery, why in lost:
        noted.note("waiting", path=getattr(delivery, "entry", {}).get("checkpoint_path"), why=why)
        notice.warning("checkpoint %s: %s" % (delivery, why))


class _Exit:
    """The work at the end of this process.

    Attributes:
        registered: Whether the drain is registered with `threading._shutdown`.
        endings: Functions to call after the drain.
    """

    def __init__(self):
        self.registered = False
        self.endings = []


def at_end(function):
    """Call `function()` after the drain, unless a signal ends the process."""
    endings = job.part(_Exit).endings
    if function not in endings:
        endings.append(function)


def _run_endings(by_signal):
    endings = job.part(_Exit).endings
    while endings and not by_signal:
        endings.pop()()


def _register_exit(drain):
    """Have `drain` run before wandb ends the run: at the start of `threading._shutdown`, else as the newest atexit."""
    hook = job.part(_Exit)
    register = getattr(threading, "_register_atexit", None)  # Python 3.9 and later
    if register is not None and not hook.registered:
        try:
            register(drain)
            hook.registered = True
        except RuntimeError:
            pass  # the interpreter is shutting down already
    if not hook.registered:
        # atexit runs the newest function first, and wandb.init registers one. Register anew, so that the drain runs
        # before it.
        atexit.unregister(drain)
        atexit.register(drain)


def committer():
    """This process's `Committer`."""
    return job.part(Committer)
