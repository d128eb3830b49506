"""On SIGTERM, delivers open checkpoints, and then lets the process die of the signal as without the injector."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading

from .. import notice

__all__ = ["Termination"]

_PROMPT = 1.0  # seconds; a main thread that has not run the handler by then is blocked in a call


class Termination:
    """The handler of SIGTERM.

    The handler is set only between a checkpoint and its commit, and only where SIGTERM has its default action. It also
    needs a checkpoint that the main thread recorded, because Python lets no other thread set a handler. A program with
    a handler of its own keeps it, and the exit hook drains.

    Python runs a handler when its main thread comes back from a call. Inside a collective whose other ranks are gone,
    it never comes back, although without the injector the process would die at once. So Python's C handler writes the
    signal's number to a pipe. A thread reads the pipe, and ends the process if the main thread does not.

    Args:
        drain: Called before the process dies. It must return within a bound.
    """

    def __init__(self, drain):
        self._drain = drain
        self._armed = False
        self._pid = os.getpid()
        self._handling = threading.Event()
        self._writing = None

    def arm(self):
        """Set the handler. The training thread calls this with each delivery."""
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            current = signal.getsignal(signal.SIGTERM)
            if current == signal.SIG_DFL or current == self.handle:
                signal.signal(signal.SIGTERM, self.handle)
                self._armed = True
                self._listen()
        except (ValueError, OSError):
            return

    def disarm(self):
        """Remove the handler. The commit thread calls this when no delivery is pending.

        Python refuses to reset a handler on that thread, so the C library does it.
        """
        if not self._armed:
            return
        self._armed = False
        try:
            if signal.getsignal(signal.SIGTERM) == self.handle:
                _default(signal.SIGTERM)
        except Exception as error:
            notice.debug("SIGTERM keeps its handler: %r" % (error,))

    def forget(self):
        """In the child of a fork: leave the pipe to the parent, and give SIGTERM its default action back."""
        if self._writing is not None:
            now = signal.set_wakeup_fd(-1)
            if now not in (-1, self._writing):
                signal.set_wakeup_fd(now)  # another library has replaced the descriptor: restore that one
        if signal.getsignal(signal.SIGTERM) == self.handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def handle(self, number, frame):
        """The handler, on the main thread."""
        del frame
        self._handling.set()
        try:
            self._drain()
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _listen(self):
        if self._writing is not None:
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if before != -1:  # asyncio or the program uses the descriptor already
            signal.set_wakeup_fd(before)
            os.close(reading)
            os.close(writing)
            return
        self._writing = writing
        threading.Thread(target=self._watch, args=(reading,), name="nemotron-exec-sigterm", daemon=True).start()

    def _watch(self, reading):
        while True:
            try:
                numbers = os.read(reading, 64)
            except OSError:
                return
            if not numbers:
                return
            if int(signal.SIGTERM) not in numbers or not self._armed or self._handling.wait(_PROMPT):
                continue
            with contextlib.suppress(Exception):
                self._drain()
            if not self._handling.is_set() and os.getpid() == self._pid:
                _default(signal.SIGTERM)
                os.kill(self._pid, signal.SIGTERM)


def _default(number):
    """Give a signal its default action, from any thread."""
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(int(number), None)  # SIG_DFL is 0
