"""One launcher of a job, without a command: agrees on an answer and prints it as one line of JSON.

Started by test_rendezvous.py and test_chaos.py as a process of its own: `python agree_driver.py SPEC`, where
SPEC is a JSON object; see `main` for its keys.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shlex
import signal
import socket
import sys
import threading
import time

from nemotron_exec import frozen
from nemotron_exec.command.read import read
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.place.job import ProcessIdentity, identify
from nemotron_exec.place.rank import place
from nemotron_exec.place.state_directory import state_directory
from nemotron_exec.rendezvous import c10d, leading
from nemotron_exec.rendezvous.agree import agree
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.rendezvous.timing import Timing

QUICK = Timing(
    lease=1.2,
    heartbeat=0.3,
    retry=0.3,
    head_start=1.0,
    unshared=20.0,
    error_life=60.0,
    gather=0.3,
    settle=0.4,
    progress=0.05,
    first_line=0.3,
    next_lines=0.5,
    abandon=2.0,
)


def be_on_another_host(name: str) -> None:
    """Act as a launcher on another host, which shares only the directory: it cannot see the others' processes."""
    kernel = os.uname()
    # filelock reads the first name, nemotron-exec the second.
    socket.gethostname = lambda: name
    os.uname = lambda: os.uname_result((kernel.sysname, name, *kernel[2:]))


def see_late(seconds: float, inside: str) -> None:
    """Show this process directories as they were some seconds ago: younger files are missing.

    An NFS client does this when it trusts its cache of a directory. It sees the files that it creates itself, and it
    asks the server for exclusive creation and link().
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


def see_only_what_was_there(inside: str) -> None:
    """Show this process a directory as it was at the process's last change in it, or at its first look.

    An NFS client with actimeo=3600 does this.
    """
    open_, listdir, unlink, mine, known = os.open, os.listdir, os.unlink, set(), {}

    def hidden(path):
        told = known.setdefault(os.path.dirname(path), time.time())
        try:
            return path not in mine and os.lstat(path).st_ctime > told
        except OSError:
            return False

    def stale_open(path, flags, *rest, **more):
        path = os.fspath(path)
        known_file = path.startswith(inside) and os.path.basename(path) != "lease" and not os.path.isdir(path)
        if known_file and not flags & os.O_CREAT and hidden(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        descriptor = open_(path, flags, *rest, **more)
        if flags & os.O_CREAT:
            mine.add(path)
            known[os.path.dirname(path)] = time.time()
        return descriptor

    def stale_listdir(path="."):
        names = listdir(path)
        return [name for name in names if not (str(path).startswith(inside) and hidden(os.path.join(path, name)))]

    def telling_unlink(path, **more):
        unlink(path, **more)
        known[os.path.dirname(os.fspath(path))] = time.time()

    os.open, os.listdir, os.unlink = stale_open, stale_listdir, telling_unlink


def repeat_links() -> None:
    """Make each link(2) of the protocol succeed and still return "exists".

    An NFS client sees this when the server's first answer is lost. filelock's own links are not changed.
    """
    link = os.link

    def repeated(source, target, **more):
        link(source, target, **more)
        if "lease" in os.path.basename(target):
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)

    os.link = repeated


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


def threads() -> int:
    """How many threads this process has. A joined thread has left Python; the kernel ends it a moment later."""
    until = time.monotonic() + 60
    while (count := len(os.listdir("/proc/self/task"))) > 1 and time.monotonic() < until:
        if threading.active_count() > 1:
            break
        time.sleep(0.01)
    return count


def main() -> int:
    spec = json.loads(sys.argv[1])
    if "host" in spec:
        be_on_another_host(spec["host"])
    if "late" in spec:
        see_late(spec["late"], spec["state"])
    if spec.get("stale"):
        see_only_what_was_there(spec["state"])
    if spec.get("dies") == "published":
        leading.sweep = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    if spec.get("repeat_links"):
        repeat_links()
    if "refuse_links" in spec:
        refuse_links(spec["refuse_links"])
    opens = count_opens(spec["state"])
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    environ = spec.get("environ", {})
    command = read(shlex.split(spec.get("command", "python train.py")))
    here = place(environ, command)
    messages = Messages(spec.get("threshold", "info"))
    timing = frozen.replace(QUICK, **spec.get("timing", {}))

    def produce(lead):
        with open(spec["log"], "a") as log:
            log.write(f"{os.getpid()} {here.index}\n")
        lead("data", 0, 1000)
        path = os.path.join(lead.directory, "cfg.yaml")
        with open(path, "w") as file:
            file.write("half: ")
            file.flush()
            steps, done = spec.get("steps", 1), 0
            for step in range(steps):
                time.sleep(spec.get("work", 0.0) / steps)
                while "until" in spec and not os.path.exists(spec["until"]):
                    done += 1
                    lead("data", done, 1000)
                    time.sleep(0.05)
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
            state = frozen.replace(state, local=spec["local"])
        together = agree
        if way == "c10d":
            together = functools.partial(c10d.agree, follow=follow, command=command, environ=environ)
        agreement = together(
            here,
            job,
            state,
            question=Question(spec.get("key", "k"), spec.get("program", "-"), spec.get("parts", {})),
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
                "threads": threads(),
                "filelock": "filelock" in sys.modules,
                "looks": opens[0],
                "at": time.monotonic(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
