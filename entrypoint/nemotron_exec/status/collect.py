"""Reads what launchers and injectors of a job have left in the state directory and beside its checkpoints.

Nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from nemotron_exec.outbox import flush, hooks
from nemotron_exec.patches import PATCHES
from nemotron_exec.rendezvous import answer as answers
from nemotron_exec.rendezvous.meeting import machine_name, signed_in
from nemotron_exec.shared_directory import files
from nemotron_exec.sitecustomize.payload import noted
from nemotron_exec.sitecustomize.payload.checkpoints import hook_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nemotron_exec.rendezvous.answer import Answer

__all__ = ["job_at", "jobs_in"]

_SKEW = 60.0  # seconds by which the file server's clock may be behind
_NOTES = 8 << 20  # bytes; a process writes 1,000 lines at most


def jobs_in(state: str) -> list[dict[str, Any]]:
    """All jobs of a state directory, the latest last, without the facts that are shown for a single job only."""
    found = [job_at(path, whole=False) for path in _directories(os.path.join(state, "jobs"))]
    return sorted(found, key=lambda job: job["created"] or 0.0)


def job_at(path: str, *, whole: bool = True) -> dict[str, Any]:
    """The known facts of the job whose directory is `path`.

    Args:
        path: The directory of the job.
        whole: Whether to read the notes of its processes and its outbox, too.
    """
    starts = [_start(meeting, whole) for meeting in _directories(path)]
    starts.sort(key=lambda start: start["created"] or 0.0)
    created = [start["created"] for start in starts if start["created"]]
    name = next((start["job"] for start in reversed(starts) if start["job"]), None)
    alive = {launcher["alive"] for start in starts for launcher in start["launchers"]}
    return {
        "job": name or os.path.basename(path).rpartition("-")[0],
        "directory": path,
        "created": max(created, default=None),
        "running": True if True in alive else None if None in alive else False,
        "starts": starts,
    }


def _start(meeting: str, whole: bool) -> dict[str, Any]:
    """One start or one step of the job: launchers with the same question."""
    rounds = sorted(answers.all_of(meeting, owner=os.geteuid()), key=lambda answer: answer.round)
    good = next((answer for answer in reversed(rounds) if answer.content is not None), None)
    content: Mapping[str, Any] = (good.content or {}) if good is not None else {}
    launched = _json(os.path.join(meeting, good.files, "run.json")) if good is not None and good.files else {}
    start = {
        "job": rounds[-1].job if rounds else None,
        "directory": meeting,
        "created": rounds[-1].created if rounds else None,
        "launchers": _launchers(meeting),
        "answers": [_answer(answer) for answer in rounds],
        "command": launched.get("command"),
        "cwd": launched.get("cwd"),
        "store": content.get("store"),
        "backend": content.get("backend"),
        "resolved": [
            {key: artifact.get(key) for key in ("key", "reference", "qualified_name", "path")}
            for artifact in content.get("artifacts") or ()
        ],
        "configs": content.get("configs") or [],
    }
    if whole:
        start["processes"] = _processes(os.path.dirname(content["handoff"])) if content.get("handoff") else []
        start["checkpoints"] = _checkpoints(start, content.get("save_directory"))
        start["hooks"] = _hooks(start, content)
    return start


def _launchers(meeting: str) -> list[dict[str, Any]]:
    found = []
    for entry, came in signed_in(meeting):
        found.append(
            {
                "index": entry.index,
                "node": entry.node,
                "machine": entry.machine,
                "pid": entry.pid,
                "attempt": entry.attempt,
                "came": came,
                "alive": _alive(entry.pid, came) if entry.machine == machine_name() else None,
            }
        )
    return sorted(found, key=lambda one: (one["came"], one["index"]))


def _answer(answer: Answer) -> dict[str, Any]:
    failure = answer.failure
    said = None if failure is None else f"{failure.wanted}: {failure.found}. {failure.remedy}"
    return {
        "round": answer.round,
        "attempt": answer.attempt,
        "leader": answer.leader,
        "created": answer.created,
        "error": said,
        "exit_code": None if failure is None else failure.exit_code,
    }


def _processes(directory: str) -> list[dict[str, Any]]:
    """The notes of the job's processes, each with the patches whose modules it has not imported."""
    found = []
    for name in sorted(_names(os.path.join(directory, noted.DIRECTORY))):
        host, _, rest = name.removesuffix(".jsonl").rpartition(".")
        if not rest.isdecimal():
            continue
        lines = list(_lines(os.path.join(directory, noted.DIRECTORY, name)))
        patches = {line["patch"]: line for line in lines if line["kind"] == "patch" and "patch" in line}
        about = next((line for line in lines if line["kind"] == "process"), {})
        here = host == socket.gethostname()
        found.append(
            {
                "host": host,
                "pid": int(rest),
                "alive": _alive(int(rest), float(about.get("at") or 0.0)) if here else None,
                "rank": about.get("rank"),
                "command": about.get("command"),
                "patches": [
                    {"patch": name, "state": line.get("state"), "reason": line.get("reason")}
                    for name, line in patches.items()
                ],
                "waiting_for": [name for name in PATCHES if name not in patches],
                "inputs": [line for line in lines if line["kind"] == "inputs"],
                "checkpoints": [line for line in lines if line["kind"] in ("checkpoint", "delivered", "waiting")],
            }
        )
    return found


def _checkpoints(start: Mapping[str, Any], save_directory: str | None) -> dict[str, list[dict[str, Any]]]:
    lines = [line for process in start["processes"] for line in process["checkpoints"]]
    why = {line.get("path"): line.get("why") for line in lines if line["kind"] == "waiting"}
    directory = os.path.join(start["cwd"] or "", save_directory) if save_directory else None
    waiting = []
    for path, entry in flush.pending([directory]) if directory else ():
        reason = why.get(entry.get("checkpoint_path")) or "W&B has not confirmed it yet"
        waiting.append({"name": entry.get("name"), "path": entry.get("checkpoint_path"), "entry": path, "why": reason})
    return {
        "recorded": [line for line in lines if line["kind"] == "checkpoint"],
        "delivered": [line for line in lines if line["kind"] == "delivered"],
        "waiting": waiting,
    }


def _hooks(start: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The hooks of `run.on_checkpoint`, and their runs in the job's save directory."""
    saved = content.get("save_directory")
    places = [os.path.join(start["cwd"] or "", saved)] if saved else []
    # A script may save elsewhere than the config names. Its recorded checkpoints show where.
    places += [os.path.dirname(str(one.get("path"))) for one in start["checkpoints"]["recorded"]]
    runs = []
    for directory in hooks.directories_of(dict.fromkeys(places)):
        for _, entry in [*hook_entries.finished(directory), *hook_entries.entries(directory)]:
            told = entry["checkpoint"]
            runs.append(
                {
                    "id": hook_entries.identity(entry),
                    "state": entry["state"],
                    "checkpoint": told.get("path"),
                    "attempts": entry.get("attempts"),
                    "why": entry.get("why"),
                    "log": entry.get("log"),
                }
            )
    given = [{key: hook.get(key) for key in ("name", "when", "command")} for hook in content.get("on_checkpoint") or ()]
    return {"given": given, "runs": runs}


def _alive(pid: int, since: float) -> bool:
    """Whether a process of this number is alive, and is not younger than its notes."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + _SKEW)
    return False


def _lines(path: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(files.UnusableFileError):
        for line in (files.read(path, limit=_NOTES, owner=os.geteuid()) or b"").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(line)
                if isinstance(found, dict) and isinstance(found.get("kind"), str):
                    yield found


def _json(path: str) -> dict[str, Any]:
    with contextlib.suppress(files.UnusableFileError, ValueError, RecursionError):
        found = json.loads(files.read(path, owner=os.geteuid()) or b"{}")
        return found if isinstance(found, dict) else {}
    return {}


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _directories(path: str) -> list[str]:
    paths = [os.path.join(path, name) for name in sorted(_names(path)) if not name.startswith(".")]
    return [one for one in paths if os.path.isdir(one) and not os.path.islink(one)]
