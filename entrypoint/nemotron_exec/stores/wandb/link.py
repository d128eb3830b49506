"""The pipe between launcher and W&B child: requests in, results, progress and errors out."""

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
        """Send the launcher one message; nothing happens where it is gone."""
        line = json.dumps({"say": kind, **what}, default=str)
        with self._lock, contextlib.suppress(OSError):
            self._output.write(line + "\n")
            self._output.flush()

    def fail(self, error: LaunchError) -> None:
        """The last thing to be said."""
        self.say("error", wanted=error.wanted, found=error.found, remedy=error.remedy, exit_code=error.exit_code)
        self.say("done")

    def localise(self, path: str) -> str:
        """Ask the launcher where a path that was recorded elsewhere lies here."""
        number = next(self._numbers)
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._questions[number] = answer
        self.say("localise", id=number, path=path)
        return answer.get()

    def listen(self) -> None:
        """Hand answers to those who wait for them; end the process when the launcher is gone."""
        for line in self._lines:
            answer = json.loads(line)
            self._questions.pop(answer["id"]).put(answer["path"])
        end_process(1)


class Progress:
    """Adds up the bytes of one artifact, and tells at most ten times a second."""

    def __init__(self, link: Link, what: str, done: int, total: int) -> None:
        self._link = link
        self._what = what
        self._done = done
        self._total = total
        self._lock = threading.Lock()
        self._last = 0.0

    def __call__(self, more: int) -> None:
        """Count `more` bytes, and tell the launcher at most ten times a second."""
        with self._lock:
            self._done += more
            now = time.monotonic()
            if now - self._last < 0.1 and self._done < self._total:
                return
            self._last = now
            done = self._done
        self._link.say("progress", what=self._what, done=min(done, self._total), total=self._total)


def end_process(code: int) -> NoReturn:
    """Leave without exit hooks, and take the client's service process along."""
    with contextlib.suppress(Exception):
        import psutil

        children = psutil.Process().children(recursive=True)
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=2)
    os._exit(code)
