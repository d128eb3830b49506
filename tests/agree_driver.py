"""One launcher of a job, without a command: agrees on an answer and prints it as one line of JSON.

Started by test_rendezvous.py and test_chaos.py as a process of its own: `python agree_driver.py SPEC`, where
SPEC is a JSON object; see `main` for its keys.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time

from nemotron_exec.command import Command
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
    head_start=0.3,
    unshared=3.0,
    error_life=60.0,
    settle=0.4,
    progress=0.05,
    first_line=0.3,
    next_lines=0.5,
    abandon=2.0,
)


def main() -> int:
    spec = json.loads(sys.argv[1])
    environ = spec.get("environ", {})
    command = Command(("python", "train.py"), None, 1, (), ())
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

    try:
        job = identify(
            environ, command, here, explicit=spec.get("job"), nemo_run=None, process=ProcessIdentity.current()
        )
        state = state_directory(spec["state"], environ, here, messages=Messages("error"))
        agreement = agree(
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
                "at": time.monotonic(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
