"""The pipe between launcher and W&B child: requests in; results, progress and errors out."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn, TextIO

__all__ = ["Link", "Progress", "end_process"]


class Link:
    """Both directions of the pipe to the launcher."""

    def __init__(self, output: TextIO, lines: Iterable[str]) -> None:
        self._output = output
        self._lines = lines
        self._lock = threading.Lock()
        self._questions: dict[int, queue.SimpleQueue[str]] = {}
        self._numbers = itertools.count()

    def say(self, kind: str, **what: Any) -> None:
        """Send the launcher one message. Nothing happens if the launcher has ended."""
        line = json.dumps({"say": kind, **what}, default=str)
        with self._lock, contextlib.suppress(OSError):
            self._output.write(line + "\n")
            self._output.flush()

    def fail(self, error: LaunchError) -> None:
        """Send the error, which is the last message."""
        self.say("error", wanted=error.wanted, found=error.found, remedy=error.remedy, exit_code=error.exit_code)
        self.say("done")

    def localise(self, path: str) -> str:
        """Ask the launcher for the path here of a path that was recorded elsewhere."""
        number = next(self._numbers)
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._questions[number] = answer
        self.say("localise", id=number, path=path)
        return answer.get()

    def listen(self) -> None:
        """Pass each answer to the thread that waits for it. End the process when the launcher has ended."""
        for line in self._lines:
            answer = json.loads(line)
            self._questions.pop(answer["id"]).put(answer["path"])
        end_process(1)


class Progress:
    """Adds up the bytes of one artifact, and reports them at most ten times a second."""

    def __init__(self, link: Link, what: str, done: int, total: int) -> None:
        self._link = link
        self._what = what
        self._done = done
        self._total = total
        self._lock = threading.Lock()
        self._last = 0.0

    def __call__(self, more: int) -> None:
        """Count `more` bytes, and report them at most ten times a second."""
        with self._lock:
            self._done += more
            now = time.monotonic()
            if now - self._last < 0.1 and self._done < self._total:
                return
            self._last = now
            done = self._done
        self._link.say("progress", what=self._what, done=min(done, self._total), total=self._total)


def end_process(code: int) -> NoReturn:
    """Exit without exit hooks, and kill the client's service process."""
    with contextlib.suppress(Exception):
        import psutil

        children = psutil.Process().children(recursive=True)
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=2)
    os._exit(code)
