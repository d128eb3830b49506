"""The commit thread: what a checkpoint still needs after it is durable on disk, away from the training thread.

One daemon thread a process, started with the first checkpoint. It takes deliveries, tries each until it is done or
given up, and lets the interpreter's exit wait for it, within a bound. Nothing here raises into the caller.

Promised: a delivery that is not done when the process ends has left its outbox entry, and one line says so.
Not promised: that W&B has the checkpoint when the process is killed with SIGKILL, or leaves through `os._exit`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time

from . import notice

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
        self._jobs = []
        self._running = 0
        self._open = []
        self._held = None
        self._lost = []
        self._completing = []
        self._expected = None
        self._thread = None
        self._pid = os.getpid()
        self._signal = _Termination(self)

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
            self._open.append(delivery)
            self._start()
            self._changed.notify_all()
        self._signal.arm()

    def hold(self, delivery):
        """Keep a delivery back until the run or the process ends, or a later one takes its place (`checkpoints: last`).

        The one that it takes the place of is delivered without W&B.
        """
        with self._changed:
            self._adopt()
            superseded, self._held = self._held, delivery
            _register_exit(self._pid, self.drain)
        if superseded is not None:
            superseded.leave_out_wandb()
            self.deliver(superseded)

    @contextlib.contextmanager
    def completing(self):
        """While the framework completes a checkpoint and it is recorded: the end of the process waits for that.

        A daemon thread of the framework, which the interpreter would abandon, is waited for like a delivery.
        """
        me = threading.get_ident()
        with self._changed:
            self._adopt()
            self._completing.append(me)
            try:
                self._start()
            except RuntimeError as error:
                notice.debug("the end of the process will not wait: %r" % (error,))  # it has begun: no thread any more
        try:
            yield
        finally:
            with self._changed:
                if me in self._completing:  # unless this is a fork's child
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
        """What is still to be done: deliveries, oldest first."""
        with self._changed:
            return list(self._open)

    def finish(self, seconds):
        """At the end of a W&B run: release what is held back, and wait until everything is done, at most `seconds`."""
        with self._changed:
            held, self._held = self._held, None
        if held is not None and os.getpid() == self._pid:
            self.deliver(held)
        return self.settle(seconds)

    def settle(self, seconds):
        """Wait until everything is done, at most `seconds`. Whether it is."""
        if os.getpid() != self._pid:
            return True
        deadline = time.monotonic() + seconds
        say_at = time.monotonic() + _SAY_AFTER
        said = False
        with self._changed:
            while True:
                # What this thread itself is completing cannot go on while it waits here, in a signal handler.
                completing = set(self._completing) - {threading.get_ident()}
                if not (self._open or self._jobs or self._running or completing):
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None or threading.current_thread() is self._thread:
                    return False
                if not said and time.monotonic() >= say_at and (self._open or completing):
                    said = True
                    notice.info(
                        "waiting for %s to be committed, at most %.0f s (%s)"
                        % (_count(len(self._open) + len(completing)), seconds, DRAIN_VARIABLE)
                    )
                self._changed.wait(min(left, 0.25))

    def drain(self, seconds=None):
        """At the end of the process: wait within the bound, then say what is left. Later calls have nothing to say."""
        if os.getpid() != self._pid:
            return
        bound = drain_seconds() if seconds is None else seconds
        self.finish(bound)
        with self._changed:
            left, self._open = self._open, []
            lost, self._lost = self._lost, []
            self._changed.notify_all()
        for delivery in left:
            unfinished = getattr(delivery, "unfinished", None)
            why = unfinished() if unfinished is not None else None
            lost.append((delivery, why or "not committed within %.0f s" % bound))
        _say_lost(lost)

    # The thread's side

    def _adopt(self):
        # A forked child has the parent's lists and not its thread: what is the parent's stays the parent's.
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._jobs, self._running, self._open, self._held, self._lost, self._thread = [], 0, [], None, [], None
            self._completing, self._expected = [], None
            self._signal = _Termination(self)

    def _start(self):
        if self._thread is not None and self._thread.is_alive():
            _register_exit(self._pid, self.drain)
            return
        self._thread = threading.Thread(target=self._run, name="nemotron-exec-commit", daemon=True)
        self._thread.start()
        _register_exit(self._pid, self.drain)

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
            for function in jobs:
                try:
                    function()
                except Exception as error:
                    notice.debug("background work failed: %r" % (error,))
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


def _count(number):
    return "1 checkpoint" if number == 1 else "%d checkpoints" % number


def _say_lost(lost):
    for delivery, why in lost:
        notice.warning("checkpoint %s: %s" % (delivery, why))


_registered = {"pid": None, "threading": False}


def _register_exit(pid, drain):
    """Have `drain` run before wandb ends the run: at the start of `threading._shutdown`, else as the newest atexit."""
    if _registered["pid"] != pid:
        _registered.update(pid=pid, threading=False)
    register = getattr(threading, "_register_atexit", None)  # Python 3.9 and later
    if register is not None and not _registered["threading"]:
        try:
            register(drain)
            _registered["threading"] = True
        except RuntimeError:
            pass  # the interpreter is on its way out already
    if not _registered["threading"]:
        # atexit runs the newest first, and wandb registers its own at wandb.init: stay in front of it.
        atexit.unregister(drain)
        atexit.register(drain)


class _Termination:
    """SIGTERM while something is pending: drain, then die of the signal as the process would have without us.

    The handler is there only between a checkpoint and its commit, only where SIGTERM has its default action, and only
    if the checkpoint was recorded on the main thread (Python lets no other set a handler). A program with a handler
    of its own keeps it: it ends in its own way, and the exit hook drains.
    """

    def __init__(self, committer):
        self._committer = committer
        self._armed = False
        self._default = None

    def arm(self):
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            current = signal.getsignal(signal.SIGTERM)
            if current == signal.SIG_DFL or current == self._handle:
                signal.signal(signal.SIGTERM, self._handle)
                self._armed = True
        except (ValueError, OSError):
            return

    def disarm(self):
        """Called on the commit thread, when nothing is pending any more.

        While our handler stands, a main thread that is inside a collective does not see SIGTERM before it returns.
        Python would refuse to reset the handler from here, the C library does not.
        """
        if not self._armed:
            return
        self._armed = False
        try:
            import ctypes

            if signal.getsignal(signal.SIGTERM) == self._handle:
                libc = ctypes.CDLL(None)
                libc.signal.restype = ctypes.c_void_p
                libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
                libc.signal(int(signal.SIGTERM), None)  # SIG_DFL is 0
        except Exception as error:
            notice.debug("SIGTERM keeps its handler: %r" % (error,))

    def _handle(self, number, frame):
        del frame
        try:
            self._committer.drain()
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


COMMITTER = Committer()


def _after_fork():
    # Locks that another thread held at the fork stay held for ever in the child: begin anew.
    global COMMITTER
    inherited = COMMITTER
    COMMITTER = Committer()
    try:
        if signal.getsignal(signal.SIGTERM) == inherited._signal._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except (ValueError, OSError, TypeError):
        pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
