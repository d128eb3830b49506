"""The process that talks to the Hugging Face hub. HuggingFaceStore starts it, and it ends before the job begins.

It uses the real huggingface_hub, whose threads neither a signal nor a time-out can interrupt. It reads one request as a
JSON line on stdin. It writes progress, results or one error on stdout. When stdin closes, the launcher has ended, and
this process ends, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.huggingface.cache import HubCache
from nemotron_exec.stores.huggingface.faults import first_line
from nemotron_exec.stores.huggingface.fetch import Fetch, Wanted
from nemotron_exec.stores.huggingface.patience import Patience, UnreachableError, XetError
from nemotron_exec.stores.room import Room

if TYPE_CHECKING:
    from typing import NoReturn, TextIO

__all__ = ["main"]

_LOCK = 3  # seconds of waiting for a lock after which a line tells about it
_TICK = 0.5  # seconds between two looks at the number of bytes that have arrived


class _Child:
    """Serves one request.

    Args:
        request: The request: `references`, `cache`, `timeout`, `stall`.
        output: The stream for messages, a JSON object a line.
        began: `time.monotonic()` at the start of the process.
    """

    def __init__(self, request: dict[str, Any], output: TextIO, began: float) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._request = request
        self._deadline = began + request["timeout"]
        self._changed = threading.Event()
        self._errors: list[BaseException] = []
        self._left: dict[int, Fetch] = {}
        self._arrived: dict[int, tuple[int, float]] = {}  # bytes, and since when they have not grown

    def say(self, kind: str, **what: Any) -> None:
        """Send one message to the launcher."""
        line = json.dumps({"say": kind, **what}, default=str)
        with self._lock, contextlib.suppress(OSError):
            self._output.write(line + "\n")
            self._output.flush()

    def run(self) -> None:
        """Fetch every reference in a thread of its own. The first error ends the run."""
        items = [Wanted(**item) for item in self._request["references"]]
        hub = _import_hub(items[0].wanted)

        def tell(text: str) -> None:
            self.say("line", what=text)

        patience = Patience(self._deadline, tell)
        patience.listen()
        cache, room = HubCache(self._request["cache"]), Room(self._request["cache"])
        api, token = hub.HfApi(library_name="nemotron-exec"), False
        with contextlib.suppress(Exception):  # a token file that cannot be read counts as no token
            token = bool(hub.get_token())
        for item in items:
            self._left[item.index] = Fetch(
                item, hub=hub, api=api, cache=cache, patience=patience, room=room, token=token, tell=tell
            )
        _keep_lock_of_tqdm()
        for fetch in list(self._left.values()):
            threading.Thread(target=self._fetch, args=(fetch,), daemon=True).start()
        while self._left and not self._errors:
            self._changed.wait(_TICK)
            self._changed.clear()
            self._show(patience)
            if time.monotonic() > self._deadline:
                raise self._late(patience)
        if self._errors:
            raise self._errors[0]

    def _late(self, patience: Patience) -> TemporaryError:
        wanted = next(iter(self._left.values())).item.wanted
        if patience.lock is not None and os.path.exists(patience.lock):
            remedy = f"Remove {patience.lock} if no program downloads to this cache, on this or another machine"
            return TemporaryError(
                wanted, "the time limit (--timeout) has passed, and another program holds the lock of a file", remedy
            )
        remedy = "Give it more time with --timeout; downloaded files stay in the cache"
        return TemporaryError(wanted, "the time limit (--timeout) has passed", remedy)

    def _fetch(self, fetch: Fetch) -> None:
        index = fetch.item.index
        try:
            commit, record = fetch.run()
            self.say("fetched", index=index, commit=commit, record=record.to_json())
        except UnreachableError as error:
            self.say("unreachable", index=index, found=str(error))
        except BaseException as error:  # noqa: BLE001  (the main thread raises it)
            self._errors.append(error)
        self._left.pop(index)
        self._changed.set()

    def _show(self, patience: Patience) -> None:
        if waiting := patience.waiting:
            self.say("busy", what=waiting)
        for fetch in list(self._left.values()):
            if fetch.busy is not None:
                self.say("busy", what=fetch.busy)
            elif progress := fetch.progress():
                self.say("progress", what=fetch.item.text, done=progress[0], total=progress[1])
                if not patience.waiting:
                    self._refuse_silent_xet(fetch.item.index, progress[0])

    def _refuse_silent_xet(self, index: int, done: int) -> None:
        """Give up Xet storage that sends nothing. Behind a firewall hf_xet tries for many minutes, uninterruptible."""
        now = time.monotonic()
        before, since = self._arrived.get(index, (-1, now))
        self._arrived[index] = (done, now if done != before else since)
        if "hf_xet" in sys.modules and now - self._arrived[index][1] > self._request["stall"]:
            self._errors.append(XetError(f"nothing came for {self._request['stall']:.0f} s"))


def _import_hub(wanted: str) -> Any:
    try:
        import huggingface_hub

        huggingface_hub.snapshot_download  # noqa: B018  (the attribute is imported on first use)
        huggingface_hub.constants.FILELOCK_LOG_EVERY_SECONDS = _LOCK
    except ImportError as error:
        found = f"the package huggingface_hub cannot be imported ({first_line(error)})"
        remedy = f"Install it beside the launcher: {sys.executable} -m pip install 'huggingface_hub>=0.26'"
        raise LaunchError(wanted, found, remedy) from None
    return huggingface_hub


def _keep_lock_of_tqdm() -> None:
    """Create the lock of tqdm beforehand: tqdm.contrib.concurrent would create and delete it in each `thread_map`."""
    with contextlib.suppress(ImportError):
        from tqdm.auto import tqdm

        tqdm.get_lock()


def _end(code: int) -> NoReturn:
    """Exit without exit hooks, because threads of the client may be in the middle of a download."""
    os._exit(code)


def _end_with_launcher() -> None:
    sys.stdin.read()
    _end(1)


def main() -> NoReturn:
    """Serve one request, and exit."""
    began = time.monotonic()
    # Redirect stdout: output of libraries must not mix with the messages.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.set_inheritable(output.fileno(), False)
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(1))
    child = _Child(json.loads(sys.stdin.readline()), output, began)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        child.run()
    except XetError as error:
        child.say("xet", found=str(error))
    except LaunchError as error:
        child.say("error", wanted=error.wanted, found=error.found, remedy=error.remedy, exit_code=error.exit_code)
    except BaseException as error:  # noqa: BLE001  (the launcher must get a message about any fault)
        import traceback

        traceback.print_exc()
        child.say("crash", found=first_line(error))
    child.say("done")
    _end(0)


if __name__ == "__main__":
    main()
