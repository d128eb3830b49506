"""Measures downloads from a local nginx against curl and md5sum: one large file, many small files, slow connections.

Needs `nginx` and `curl` (Debian: nginx-light, curl).
"""

from __future__ import annotations

import base64
import hashlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.row import Row, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 2 << 30
SMALL, COUNT = 64 << 10, 2000
RATE = 100 << 20  # bytes a second for each connection of /slow/
RUNS = 5

NGINX = """
daemon off; pid {root}/pid; error_log {root}/errors; {user}
worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{
    listen 127.0.0.1:{port}; root {root}/www;
    location /slow/ {{ alias {root}/www/; limit_rate {rate}; }}
  }}
}}
"""

# Runs the launcher's downloader alone, and prints its wall time and its processor time. The process that downloads for
# the launcher has `requests` already: W&B's client imports it.
OURS = """
import json, os, requests, resource, sys, time
from nemotron_exec.stores.wandb.download import Downloader, RemoteFile
base, into, files = json.loads(sys.stdin.read())
files = [RemoteFile(*file) for file in files]
began = time.monotonic()
Downloader(began + 600).fetch(
    files, into, wanted="to fetch", url=lambda name, _: base + name, progress=lambda _: None)
wall = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_SELF)
print(wall, used.ru_utime + used.ru_stime)
os._exit(0)
"""


def main() -> None:
    """Measure each run of the launcher's downloader next to a run of curl and md5sum."""
    for program in ("nginx", "curl", "md5sum"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
            sys.exit(f"benchmarks download needs {program} (Debian: apt install nginx-light curl)")
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        digests = list(write_files(root))
        base, server = serve(root)
        try:
            large = [["large", LARGE, digests[-1]]]
            small = [[f"small/{i}", SMALL, digests[i]] for i in range(COUNT)]
            one_file(root, base, large)
            many_files(root, base, small)
            slow_server(root, base, large)
        finally:
            server.terminate()
            server.wait()


def write_files(root: str) -> Iterator[str]:
    """Write all files; yields the digests of the small ones, then the digest of the large one."""
    os.makedirs(f"{root}/www/small")
    for i in range(COUNT):
        data = os.urandom(SMALL)
        with open(f"{root}/www/small/{i}", "wb") as file:
            file.write(data)
        yield base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    digest, block = hashlib.md5(usedforsecurity=False), os.urandom(1 << 24)
    with open(f"{root}/www/large", "wb") as file:
        for i in range(LARGE >> 24):
            data = i.to_bytes(8, "big") + block[8:]
            file.write(data)
            digest.update(data)
    yield base64.b64encode(digest.digest()).decode()


def serve(root: str) -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(f"{root}/nginx.conf", "w", encoding="utf-8") as file:
        file.write(NGINX.format(root=root, port=port, rate=RATE, user="user root;" if os.geteuid() == 0 else ""))
    path = os.environ["PATH"] + ":/usr/sbin"
    server = subprocess.Popen([shutil.which("nginx", path=path) or "nginx", "-c", f"{root}/nginx.conf"])
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}/", server
        time.sleep(0.05)


def measured(root: str, run: Callable[[str], None]) -> tuple[float, float]:
    """Wall and processor time of a program that writes into an empty directory."""
    into = f"{root}/into"
    shutil.rmtree(into, ignore_errors=True)
    os.makedirs(f"{into}/small")
    touch_memory(f"{into}/touched")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run(into)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def touch_memory(path: str) -> None:
    """Fill and empty the page cache, so that each program finds the same memory.

    A virtual machine gives memory that is free for two seconds back to its host. The next program that writes a file
    pays for getting it again: 2 GiB in pieces of 256 KiB took 0.9 s of processor time with this call, and up to 4.8 s
    without it, depending on what ran before.
    """
    block = bytes(1 << 18)
    with open(path, "wb", buffering=0) as file:
        for _ in range(LARGE * 5 // 4 // len(block)):
            file.write(block)
    os.unlink(path)


def ours(root: str, base: str, files: list[list[object]]) -> tuple[float, float]:
    """Wall and processor time of the launcher's downloader, without the start of its process."""
    import json

    said: list[str] = []

    def run(into: str) -> None:
        given = json.dumps([base, into, files])
        done = subprocess.run([sys.executable, "-c", OURS], input=given, stdout=subprocess.PIPE, text=True, check=True)
        said.append(done.stdout)

    measured(root, run)
    wall, used = said[0].split()
    return float(wall), float(used)


def curl(root: str, *words: str) -> tuple[float, float]:
    return measured(root, lambda into: void(["curl", "--silent", *[word.replace("INTO", into) for word in words]]))


def void(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def one_file(root: str, base: str, large: list[list[object]]) -> None:
    """One file is received and hashed at the same time, so the wall time should be near the slower of the two."""
    walls, others = [], []
    for _ in range(RUNS):
        walls.append(ours(root, base, large)[0])
        received = curl(root, "-o", "INTO/large", base + "large")[0]
        hashed = measured(root, lambda _: void(["md5sum", f"{root}/www/large"]))[0]
        others.append(max(received, hashed))
    mine, slower = statistics.median(walls), statistics.median(others)
    emit(
        Row(
            "one file of 2 GiB, received and checked",
            "s",
            mine,
            slower,
            bar="at most 1.2 times",
            met=mine <= 1.2 * slower,
            against="the slower of curl and md5sum",
            pairs=RUNS,
        )
    )


def many_files(root: str, base: str, small: list[list[object]]) -> None:
    """Processor time for many files. The launcher's downloader also syncs and checks each file."""
    used, others = [], []
    for _ in range(RUNS):
        used.append(ours(root, base, small)[1])
        words = ("--parallel", "--parallel-max", "16", f"{base}small/[0-{COUNT - 1}]", "-o", "INTO/small/#1")
        others.append(curl(root, *words)[1])
    mine, theirs = statistics.median(used), statistics.median(others)
    emit(
        Row(
            f"{COUNT} files of 64 KiB, processor time",
            "s",
            mine,
            theirs,
            bar="at most 3 times",
            met=mine <= 3 * theirs,
            against="curl --parallel, unchecked",
            pairs=RUNS,
        )
    )


def slow_server(root: str, base: str, large: list[list[object]]) -> None:
    """The server gives each connection 100 MB/s. Eight connections should give the sum, within this machine's limit."""
    walls, alone, free = [], [], []
    for _ in range(2):
        walls.append(ours(root, base + "slow/", large)[0])
        alone.append(curl(root, "-o", "INTO/large", base + "slow/large")[0])
        free.append(ours(root, base, large)[0])
    mine, one = min(walls), min(alone)
    best = max(one / 8, min(free))
    emit(
        Row(
            "one file of 2 GiB, 100 MB/s a connection",
            "s",
            mine,
            one,
            bar="1.4 times one eighth of it, or of our time without the limit",
            met=mine <= 1.4 * best,
            against="curl, by one connection",
            pairs=2,
        )
    )


if __name__ == "__main__":
    main()
