"""Runs in the job's own interpreter for c10d.py: one end of a TCPStore, driven by lines of JSON.

It uses the standard library and torch only, in the syntax of Python 3.8. It is started with `-c`, so that sys.path
holds nothing of nemotron-exec. Requests come on stdin. Reports go to the descriptor named in the arguments, because
libraries may print on stdout.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
import time
from typing import Any

_LIMIT = 64 << 20
_STEP = 1.0


def main(arguments: dict[str, Any]) -> None:
    """Serve or ask, until every node has read the answer."""
    reports = os.fdopen(arguments["reports"], "w", encoding="utf-8")

    def report(**fields: object) -> None:
        try:
            reports.write(json.dumps(fields) + "\n")
            reports.flush()
        except OSError:
            os._exit(1)  # the launcher has ended, and nobody else reads this process's reports

    try:
        # Import TCPStore alone: the job itself sets up torch.distributed.
        from torch.distributed import TCPStore  # type: ignore[attr-defined, unused-ignore]
    except Exception as error:  # noqa: BLE001  the report tells why torch cannot be imported
        report(broken=f"{type(error).__name__}: {error}")
        return
    role = _serve if arguments["role"] == "serve" else _ask
    try:
        role(TCPStore, arguments, report)
    except Exception as error:  # noqa: BLE001  the parent words the message
        report(failed=f"{type(error).__name__}: {error}")


def _store(kind: Any, arguments: dict[str, Any], serves: bool) -> Any:
    return kind(
        arguments["host"],
        arguments["port"],
        is_master=serves,
        timeout=datetime.timedelta(seconds=max(arguments["timeout"], 1.0)),
        wait_for_workers=False,
    )


def _serve(kind: Any, arguments: dict[str, Any], report: Any) -> None:
    store = _store(kind, arguments, serves=True)
    store.set("parts", json.dumps(arguments["parts"]))
    store.set("question", arguments["question"])
    report(ready=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "progress" in message:
            store.set("progress", message["progress"])
            continue
        store.set("answer", json.dumps(message["answer"]))
        _see_off(store, arguments, report)
        return
    # The launcher has ended without an answer. Closing the store tells the other nodes at once.


def _see_off(store: Any, arguments: dict[str, Any], report: Any) -> None:
    parent = os.getppid()
    until = time.monotonic() + arguments["timeout"]
    read = 0
    while time.monotonic() < until and os.getppid() == parent:
        read = store.add("read", 0)
        if read >= arguments["readers"]:
            # The reply to the last reader may still be on its way.
            time.sleep(0.2)
            report(served=read)
            return
        time.sleep(0.05)
    report(served=read)


def _ask(kind: Any, arguments: dict[str, Any], report: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    store = _store(kind, arguments, serves=False)
    report(connected=True)
    if store.get("question").decode() != arguments["question"]:
        store.add("read", 1)
        report(different=store.get("parts").decode("utf-8", "replace"))
        return
    until = time.monotonic() + arguments["timeout"]
    said = None
    while time.monotonic() < until:
        if store.check(["answer"]):
            data = store.get("answer")
            if len(data) > _LIMIT:
                raise ValueError(f"an answer of {len(data)} bytes")
            store.add("read", 1)
            report(answer=json.loads(data))
            return
        if store.check(["progress"]) and store.get("progress") != said:
            said = store.get("progress")
            report(progress=said.decode("utf-8", "replace"))
        else:
            report(connected=True)
        time.sleep(min(_STEP, 0.05 + (time.monotonic() - until + arguments["timeout"]) / 40))
    report(late=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
