"""A program that reports its input: `train.py CONFIG [KEY=VALUE...]`. It does not use nemotron-exec.

It writes $OUT/<attempt>.<host>.<rank>.<pid>.json, and then follows its overrides:

    hold=FILE     waits until that file is there
    exit=N        exits with N
    fail=FILE     rank 0 exits with 1 in its first run; the others wait for its second one
    save=DIR      completes a checkpoint in DIR, as far as a resumed job can tell
"""

import json
import os
import signal
import socket
import sys
import time

RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


def main(config, *overrides):
    out = os.environ["OUT"]
    asked = dict(word.split("=", 1) for word in overrides if "=" in word)
    with open(config) as file:
        lines = [line.partition(": ") for line in file.read().splitlines() if ": " in line and line[0] not in "# "]
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
    seen = {
        "host": socket.gethostname(),
        "rank": int(rank),
        "attempt": int(attempt),
        "world": os.environ.get("WORLD_SIZE"),
        "config": config,
        "values": {key: value for key, _, value in lines},
        "arguments": list(overrides),
        "handoff": os.environ.get("NEMOTRON_EXEC_HANDOFF"),
        "injected": "_nemotron_exec" in sys.modules or "sitecustomize" in sys.modules,
    }
    signal.signal(signal.SIGUSR1, lambda *_: _write(out, "signalled", {"signal": "USR1", **seen}))
    _write(out, f"{attempt}.{seen['host']}.{rank}.{os.getpid()}", seen)
    if "save" in asked:
        os.makedirs(asked["save"], exist_ok=True)
        with open(os.path.join(asked["save"], "latest_checkpointed_iteration.txt"), "w") as file:
            file.write("10")
    while "hold" in asked and not os.path.exists(asked["hold"]):
        time.sleep(0.05)
    if "fail" in asked:
        again = asked["fail"] + ".again"
        if rank == "0":
            first = not os.path.exists(asked["fail"])
            open(asked["fail"] if first else again, "w").close()
            if first:
                sys.exit(1)
        while not os.path.exists(again):
            time.sleep(0.05)
    sys.exit(int(asked.get("exit", 0)))


def _write(out, name, seen):
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, name + ".json")
    with open(path + ".new", "w") as file:
        json.dump(seen, file)
    os.rename(path + ".new", path)


if __name__ == "__main__":
    main(*sys.argv[1:])
