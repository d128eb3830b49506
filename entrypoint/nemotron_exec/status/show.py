"""`--status [JOB]`: the report, as text or JSON."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError
from nemotron_exec.place import state_directory
from nemotron_exec.schemas import JOB, JOBS
from nemotron_exec.sitecustomize.payload.notice import redact, redact_text
from nemotron_exec.status.collect import job_at, jobs_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nemotron_exec.options import Options

__all__ = ["report"]

_MOST = 16  # at most so many launchers, processes or checkpoints get a line each
_RUNS = {True: "running", False: "over", None: "on other machines"}


def report(chosen: Options, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the report. Return the exit code, 0.

    Args:
        chosen: The options: `--state-dir`, `--json`, `--log-format`.
        words: The id of a job, or nothing for a list of all jobs.
        environ: The environment.

    Raises:
        LaunchError: There is no state directory, or no such job in it.
    """
    state = state_directory.existing(chosen.state_dir, environ)
    jobs = jobs_in(state)
    as_json = chosen.json or chosen.log_format == "json"
    if words:
        job = job_at(_chosen(words[0], jobs, state)["directory"])
        lines = _json({"schema": JOB, **job}) if as_json else _job(job)
    else:
        lines = _json({"schema": JOBS, "jobs": jobs}) if as_json else _list(jobs, state)
    for line in lines:
        print(redact(line))
    sys.stdout.flush()
    return 0


def _chosen(word: str, jobs: Sequence[dict[str, Any]], state: str) -> dict[str, Any]:
    """The job with the id, or with a part of an id that only one job has."""
    same = [job for job in jobs if word in (job["job"], os.path.basename(job["directory"]))]
    found = same or [job for job in jobs if word in job["job"]]
    if len(found) == 1:
        return found[0]
    wanted = f"to say what is known of job {word} in {state}"
    if found:
        raise LaunchError(wanted, f"{len(found)} jobs have that in their id", f"Name one: {_ids(found)}")
    remedy = "Give the --state-dir or NEMOTRON_EXEC_STATE_DIR that the job was started with"
    raise LaunchError(wanted, f"it has {'the jobs ' + _ids(jobs) if jobs else 'no job'}", remedy)


def _ids(jobs: Sequence[dict[str, Any]]) -> str:
    ids = [job["job"] for job in jobs[-8:]]
    return ", ".join(ids) + (f" and {len(jobs) - 8} more" if len(jobs) > 8 else "")


def _json(found: object) -> list[str]:
    return [json.dumps(found, indent=2, ensure_ascii=False, default=str)]


def _list(jobs: Sequence[dict[str, Any]], state: str) -> Iterator[str]:
    if not jobs:
        yield f"no job in {state}"
    for job in jobs:
        launchers = sum(len(start["launchers"]) for start in job["starts"])
        last = job["starts"][-1] if job["starts"] else {}
        failed = next((one["error"] for one in reversed(last.get("answers", [])) if one["error"]), None)
        resolved = ", ".join(one["qualified_name"] for one in last.get("resolved", []))
        what = f"{_RUNS[job['running']]}  {_at(job['created'])}  {launchers} launchers"
        yield f"{job['job']}  {what}  {failed or resolved}".rstrip()


def _job(job: Mapping[str, Any]) -> Iterator[str]:
    yield f"job {job['job']}: {_RUNS[job['running']]}"
    yield f"  state: {job['directory']}"
    for start in job["starts"]:
        yield ""
        yield from _start(start)


def _start(start: Mapping[str, Any]) -> Iterator[str]:
    over = all(one["alive"] is False for one in start["launchers"])
    unanswered = (
        "a start that ended without an answer: its own output says why" if over else "a start without an answer yet"
    )
    yield f"start of {_at(start['created'])}" if start["created"] else unanswered
    if start["command"]:
        yield f"  command: {shlex.join(start['command'])}"
        yield f"  directory: {start['cwd']}"
    launchers = start["launchers"]
    alive = sum(one["alive"] is True for one in launchers)
    unseen = sum(one["alive"] is None for one in launchers)
    yield f"  launchers: {len(launchers)} came, {alive} run here, {unseen} on other machines"
    for one in launchers[:_MOST]:
        runs = {True: "runs", False: "has ended", None: "on another machine"}[one["alive"]]
        yield f"    {one['index']} on {one['machine']} (pid {one['pid']}, attempt {one['attempt']}): {runs}"
    yield from _more(launchers)
    for answer in start["answers"]:
        what = answer["error"] or "resolved"
        yield f"  answer {answer['round']} at {_at(answer['created'])} by {answer['leader']}: {what}"
    for one in start["resolved"]:
        yield f"  {one['key']}: {one['reference']} is {one['qualified_name']} at {one['path']}"
    if start["store"]:
        yield f"  store: {start['store']} ({start['backend']})"
    yield from _processes(start["processes"])
    yield from _checkpoints(start["checkpoints"])
    yield from _hooks(start["hooks"])


def _processes(processes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not processes:
        yield "  processes: none has noted anything (no framework imported yet, or they do not see the state directory)"
    for one in processes[:_MOST]:
        runs = {True: "runs", False: "has ended", None: "on another machine"}[one["alive"]]
        rank = f", rank {one['rank']}" if one["rank"] else ""
        yield f"  process {one['pid']} on {one['host']}{rank}: {runs}; {one['command']}"
        for patch in one["patches"]:
            yield f"    patch {patch['patch']}: {patch['state']}{': ' + patch['reason'] if patch['reason'] else ''}"
        yield f"    patches that wait: {', '.join(one['waiting_for']) or 'none'}"
        for line in one["inputs"]:
            names = ", ".join(map(str, line.get("names") or ()))
            yield f"    inputs recorded in W&B run {line.get('run')}{_where(line)}: {names}"
    yield from _more(processes)


def _where(line: Mapping[str, Any]) -> str:
    return f", {line['where']}" if line.get("where") else ""


def _checkpoints(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    delivered = {one.get("path"): ", ".join(map(str, one.get("to") or ())) for one in found["delivered"]}
    counts = (len(found["recorded"]), len(delivered), len(found["waiting"]))
    yield "  checkpoints: {} recorded, {} delivered, {} waiting".format(*counts)
    for one in found["recorded"][-_MOST:]:
        where = delivered.get(one.get("path"))
        yield f"    {one.get('name')}: {one.get('path')}{': in ' + where if where else ''}"
    for one in found["waiting"][:_MOST]:
        yield f"    waiting: {one['path']} ({one['name']}): {one['why']}; nemotron-artifact flush {one['entry']}"
    yield from _more(found["waiting"])


def _hooks(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    for one in found["given"]:
        yield f"  on_checkpoint: {one['name']} ({one['when']}): {redact_text(one['command'])}"
    states = [one["state"] for one in found["runs"]]
    if states:
        yield "  hooks: " + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    left = [one for one in found["runs"] if one["state"] != "done"]
    for one in left[:_MOST]:
        why = f": {one['why']}" if one["why"] else ""
        yield f"    {one['state']}: {one['id']} for {one['checkpoint']}{why} ({one['log']})"
    yield from _more(left)


def _more(found: Sequence[object]) -> Iterator[str]:
    if len(found) > _MOST:
        yield f"    and {len(found) - _MOST} more; --json names all"


def _at(seconds: float | None) -> str:
    if not seconds:
        return "-"
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")
