"""One launcher of a job, without a command: agrees on an answer and prints it as one line of JSON.

Started by test_rendezvous.py and test_chaos.py as a process of its own: `python agree_driver.py SPEC`, where
SPEC is a JSON object; see `main` for its keys.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import shlex
import signal
import socket
import sys
import time

from nemotron_exec import c10d
from nemotron_exec.command import read
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.job import ProcessIdentity, identify
from nemotron_exec.message import Messages
from nemotron_exec.rank import place
from nemotron_exec.rendezvous import agree
from nemotron_exec.state import state_directory
from nemotron_exec.timing import Timing

QUICK = Timing(
    lease=1.2,
    heartbeat=0.3,
    retry=0.3,
    head_start=1.0,
    unshared=20.0,
    error_life=60.0,
    settle=0.4,
    progress=0.05,
    first_line=0.3,
    next_lines=0.5,
    abandon=2.0,
)


def be_on_another_host(name: str) -> None:
    """Launchers of one host see each other's processes; those of two hosts have only the directory in common."""
    kernel = os.uname()
    # filelock asks the one, we the other.
    socket.gethostname = lambda: name
    os.uname = lambda: os.uname_result((kernel.sysname, name, *kernel[2:]))


def see_late(seconds: float, inside: str) -> None:
    """Let this process see directories as they were some seconds ago: files that are younger are missing.

    As an NFS client does that trusts what it has read of a directory. What it creates itself it sees, and exclusive
    creation and link() ask the server.
    """
    open_, listdir, mine = os.open, os.listdir, set()

    def hidden(path):
        try:
            return path not in mine and time.time() - os.lstat(path).st_ctime < seconds
        except OSError:
            return False

    def late_open(path, flags, *rest, **more):
        path = os.fspath(path)
        if path.startswith(inside):
            if flags & os.O_CREAT:
                mine.add(path)
            elif not os.path.isdir(path) and os.path.basename(path) != "lease" and hidden(path):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return open_(path, flags, *rest, **more)

    def late_listdir(path="."):
        names = listdir(path)
        return [name for name in names if not (str(path).startswith(inside) and hidden(os.path.join(path, name)))]

    os.open, os.listdir = late_open, late_listdir


def refuse_links(number: int) -> None:
    def refuse(source, target, **_more):
        raise OSError(number, os.strerror(number), source)

    os.link = refuse


def count_opens(inside: str) -> list[int]:
    open_, count = os.open, [0]

    def counting(path, *rest, **more):
        path = os.fspath(path)
        count[0] += path.startswith(inside) and "answer." in path
        return open_(path, *rest, **more)

    os.open = counting
    return count


def main() -> int:
    spec = json.loads(sys.argv[1])
    if "host" in spec:
        be_on_another_host(spec["host"])
    if "late" in spec:
        see_late(spec["late"], spec["state"])
    if "refuse_links" in spec:
        refuse_links(spec["refuse_links"])
    opens = count_opens(spec["state"])
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    environ = spec.get("environ", {})
    command = read(shlex.split(spec.get("command", "python train.py")))
    here = place(environ, command)
    messages = Messages(spec.get("threshold", "info"))
    timing = dataclasses.replace(QUICK, **spec.get("timing", {}))

    def produce(lead):
        with open(spec["log"], "a") as log:
            log.write(f"{os.getpid()} {here.index}\n")
        lead("data", 0, 1000)
        path = os.path.join(lead.directory, "cfg.yaml")
        with open(path, "w") as file:
            file.write("half: ")
            file.flush()
            steps = spec.get("steps", 1)
            for step in range(steps):
                time.sleep(spec.get("work", 0.0) / steps)
                if spec.get("hang"):
                    time.sleep(3600)
                lead("data", 1000 * (step + 1) // steps, 1000)
            file.write("done\n")
        if spec.get("fail"):
            error = TemporaryError if spec["fail"] == 75 else LaunchError
            raise error("a reference to be found", f"nothing, says launcher {here.index}", "Look again")
        if spec.get("crash"):
            raise ZeroDivisionError("a bug")
        return {"made_by": os.getpid(), "config": path, "value": spec.get("value", "v1")}

    def follow(lead, leaders):
        return {**leaders, "config": produce(lead)["config"], "followed_by": os.getpid()}

    try:
        job = identify(
            environ, command, here, explicit=spec.get("job"), nemo_run=None, process=ProcessIdentity.current()
        )
        way = spec.get("rendezvous", "auto")
        state = state_directory(spec["state"], environ, here, messages=Messages("error"), rendezvous=way)
        if "local" in spec:
            state = dataclasses.replace(state, local=spec["local"])
        together = agree
        if way == "c10d":
            together = functools.partial(c10d.agree, follow=follow, command=command, environ=environ)
        agreement = together(
            here,
            job,
            state,
            key=spec.get("key", "k"),
            produce=produce,
            timeout=spec.get("timeout", 60.0),
            stall=spec.get("stall", 60.0),
            refresh=spec.get("refresh", False),
            messages=messages,
            timing=timing,
        )
    except LaunchError as error:
        messages.error(str(error))
        print(json.dumps({"error": str(error), "code": error.exit_code}))
        return error.exit_code
    with open(agreement.answer["config"]) as file:
        config = file.read()
    print(
        json.dumps(
            {
                "answer": agreement.answer,
                "config": config,
                "led": agreement.led,
                "reused": agreement.reused,
                "threads": len(os.listdir("/proc/self/task")),
                "filelock": "filelock" in sys.modules,
                "looks": opens[0],
                "at": time.monotonic(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
