"""Step 3, resolve, where the nodes share no directory: `--rendezvous c10d`.

The job brings an engine with it that its nodes use to find each other: PyTorch's TCPStore. It is started here in the
job's own interpreter, at the job's own address. Node 0 publishes what it has resolved, each node resolves the same
versions for itself, and within a node the launchers agree as everywhere (rendezvous.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec import rendezvous
from nemotron_exec.answer import Failure
from nemotron_exec.errors import LaunchError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.command import Command
    from nemotron_exec.job import JobIdentity
    from nemotron_exec.message import Messages
    from nemotron_exec.rank import Place
    from nemotron_exec.rendezvous import Agreement, Lead
    from nemotron_exec.state import StateDirectory
    from nemotron_exec.timing import Timing

__all__ = ["Endpoint", "agree", "endpoint", "interpreter"]

_PORT = 29500
"""torchrun's default for --master-port."""
_LINGER = 10.0
"""Seconds that node 0 gives readers of an error: the job does not start, nobody has to be waited for."""


@dataclass(frozen=True)
class Endpoint:
    """Where node 0 serves. `source` says what chose the host."""

    host: str
    port: int
    source: str


def agree(
    place: Place,
    job: JobIdentity,
    state: StateDirectory,
    *,
    key: str,
    produce: Callable[[Lead], Mapping[str, object]],
    follow: Callable[[Lead, Mapping[str, Any]], Mapping[str, object]],
    timeout: float,
    stall: float,
    refresh: bool,
    messages: Messages,
    command: Command,
    environ: Mapping[str, str],
    timing: Timing | None = None,
) -> Agreement:
    """As rendezvous.agree, over the network between nodes and over `state` within this one.

    Args:
        place: This launcher; its node must be known.
        job: Whose answer it is.
        state: A directory of this node.
        key: Digest of the question: nodes that ask different ones are told so.
        produce: Resolves, on node 0.
        follow: Resolves on every other node, with node 0's answer.
        timeout: Bound on the whole, seconds.
        stall: Bound on the leader's silence within a node, seconds.
        refresh: Ask again for what an earlier start has pinned.
        messages: For progress lines.
        command: The wrapped command: its interpreter and its master address.
        environ: The environment.
        timing: Constants of the protocol within the node, for tests.

    Raises:
        LaunchError: Node 0's error; no interpreter with torch; no address; an unknown node number.
        TemporaryError: Node 0 cannot be reached, or is gone.
    """
    if place.node is None or place.nodes is None:
        raise LaunchError(
            "to agree over --rendezvous c10d, for which every launcher must know its node and their number",
            f"{place}",
            "Give torchrun a fixed --nnodes and a --node-rank, or use a shared directory with --state-dir DIR",
        )
    python = interpreter(command, environ)
    where = endpoint(command, environ)
    # Within the node nobody else's launcher counts, and every start asks anew: the other nodes may have been replaced.
    here = dataclasses.replace(
        place, index=place.local_index or 0, count=place.local_count or 1, node=0, nodes=1, attempt=0
    )
    local_job = dataclasses.replace(job, id=f"{job.id}-node{place.node}", shared=True, lasting=False, started=None)
    peer = _Peer(python, where, key, place.nodes - 1, timeout, messages)

    def resolve(lead: Lead) -> Mapping[str, object]:
        with contextlib.closing(peer):
            return peer.serve(produce, lead) if place.node == 0 else peer.ask(follow, lead)

    agreement = rendezvous.agree(
        here,
        local_job,
        state,
        key=key,
        produce=resolve,
        timeout=timeout,
        stall=stall if place.node == 0 else timeout,
        refresh=refresh,
        messages=messages,
        timing=timing,
    )
    return dataclasses.replace(agreement, reused=False)


class _Peer:
    """The child process at this node's end of the store."""

    def __init__(
        self, python: str, where: Endpoint, question: str, readers: int, timeout: float, messages: Messages
    ) -> None:
        self._python, self._where, self._question, self._readers = python, where, question, readers
        self._timeout, self._messages = timeout, messages
        self._until = time.monotonic() + timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._reports: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader: threading.Thread | None = None

    # -- node 0 -----------------------------------------------------------------------------------------------------

    def serve(self, produce: Callable[[Lead], Mapping[str, object]], lead: Lead) -> Mapping[str, object]:
        """Resolve, and stay until every other node has read what came of it."""
        self._start("serve")
        lead("starting")
        self._expect("ready", lead)
        try:
            content = produce(rendezvous.Lead(lead.directory, self._tell(lead), made=True))
        except LaunchError as error:
            self._until = min(self._until, time.monotonic() + _LINGER)
            self._say({"answer": {"failure": dataclasses.asdict(Failure.of(error))}})
            with contextlib.suppress(LaunchError):
                self._expect("served", None)
            raise
        self._say({"answer": {"content": dict(content)}})
        served = self._expect("served", lead)["served"]
        if served < self._readers:
            self._messages.warning(
                f"{self._readers - served} of {self._readers} other nodes have not asked for the answer at "
                f"{self._where.host}:{self._where.port} in {self._timeout:g} s (--timeout): they cannot start"
            )
        return content

    def _tell(self, lead: Lead) -> Callable[[str, int, int | None], None]:
        told = [0.0]

        def tell(what: str, done: int, total: int | None) -> None:
            lead(what, done, total)
            if time.monotonic() - told[0] >= 2.0:
                told[0] = time.monotonic()
                amount = f" ({done} of {total} bytes)" if total else f" ({done} bytes)" if done else ""
                self._say({"progress": f"{what}{amount}"})

        return tell

    # -- all others -------------------------------------------------------------------------------------------------

    def ask(
        self, follow: Callable[[Lead, Mapping[str, Any]], Mapping[str, object]], lead: Lead
    ) -> Mapping[str, object]:
        """Wait for node 0's answer, and resolve the same here."""
        self._start("ask")
        lead(f"waiting for node 0 at {self._where.host}:{self._where.port}")
        answer = self._expect("answer", lead)["answer"]
        self.close()
        if not isinstance(answer, dict):
            raise TemporaryError(
                f"node 0's answer from {self._where.host}", "something else", "Is it our job's node 0?"
            )
        if (failure := answer.get("failure")) is not None:
            raise Failure(**failure).exception()
        return follow(lead, answer["content"])

    # -- the child --------------------------------------------------------------------------------------------------

    def _start(self, role: str) -> None:
        with open(os.path.join(os.path.dirname(__file__), "c10d_peer.py"), encoding="utf-8") as file:
            source = file.read()
        reading, writing = os.pipe()
        arguments = {
            "role": role,
            "host": self._where.host,
            "port": self._where.port,
            "question": self._question,
            "readers": self._readers,
            "timeout": max(0.0, self._until - time.monotonic()),
            "reports": writing,
        }
        # Not the environment's business: a variable of torchrun's would make the store believe that it is a worker.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", f"{source}\nimport json\nmain(json.loads({json.dumps(json.dumps(arguments))}))"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(writing,),
                env=environment,
            )
        except OSError as error:
            os.close(reading)
            raise self._no_torch(os.strerror(error.errno or 0).lower()) from None
        finally:
            os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), name="nemotron-exec-c10d", daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    self._reports.put(json.loads(line))
                except ValueError:
                    break
        self._reports.put(None)

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            # The next report says why it is gone.
            return

    def _expect(self, name: str, lead: Lead | None) -> dict[str, Any]:
        """The report called `name`; progress on the way is shown, everything else is an error."""
        began = told = time.monotonic()
        progress = ""
        while True:
            try:
                report = self._reports.get(timeout=1.0)
            except queue.Empty:
                now = time.monotonic()
                if now > self._until + 5:
                    raise self._unreachable("no answer in time") from None
                if lead is not None:
                    lead(f"waiting for {'the other nodes' if name == 'served' else 'node 0'}")
                    if now - told >= (5 if told == began else 30):
                        told = now
                        self._messages.info(
                            f"waiting for {now - began:.0f} s: {progress or 'for a sign'} at "
                            f"{self._where.host}:{self._where.port}"
                        )
                continue
            if report is None:
                raise self._unreachable("its end of the connection is gone")
            if name in report:
                return report
            if "progress" in report:
                progress = f"node 0 leads, busy with {report['progress']}"[:300]
            elif "broken" in report:
                raise self._no_torch(report["broken"])
            elif "different" in report:
                raise LaunchError(
                    "all nodes of the job to be started with the same config, overrides and options",
                    f"node 0 at {self._where.host} has others",
                    "Start the same command on every node",
                )
            else:
                raise self._unreachable(str(report.get("failed") or "no answer in time").splitlines()[0])

    def _unreachable(self, found: str) -> LaunchError:
        return TemporaryError(
            f"node 0's answer at {self._where.host}:{self._where.port} ({self._where.source}) in {self._timeout:g} s",
            found,
            "Look at node 0's output; NEMOTRON_EXEC_RENDEZVOUS_PORT chooses another port, --timeout S gives more time",
        )

    def _no_torch(self, found: str) -> LaunchError:
        return LaunchError(
            f"a TCPStore in the job's own interpreter, {self._python} (--rendezvous c10d)",
            found,
            "Install PyTorch there, or use a shared directory with --state-dir DIR",
        )

    def close(self) -> None:
        """End the child; nothing of it outlives us."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join()
        self._process = None


# -- where and with what --------------------------------------------------------------------------------------------


def endpoint(command: Command, environ: Mapping[str, str]) -> Endpoint:
    """Address of node 0, as the job itself knows it; the port is the next one.

    Raises:
        LaunchError: Nothing names node 0, or a port is no number.
    """
    options: Mapping[str, str] = command.launcher.options if command.launcher is not None else {}
    rendezvous_host, rendezvous_port = _split(options.get("rdzv_endpoint") or environ.get("PET_RDZV_ENDPOINT") or "")
    hosts = (
        (options.get("master_addr"), "--master-addr"),
        (rendezvous_host, "--rdzv-endpoint"),
        (environ.get("PET_MASTER_ADDR"), "PET_MASTER_ADDR"),
        (environ.get("MASTER_ADDR"), "MASTER_ADDR"),
        ((environ.get("SKYPILOT_NODE_IPS") or "").partition("\n")[0].strip(), "SKYPILOT_NODE_IPS"),
        (environ.get("DSTACK_MASTER_NODE_IP"), "DSTACK_MASTER_NODE_IP"),
    )
    host, source = next(((host, source) for host, source in hosts if host), (None, ""))
    if host is None:
        raise LaunchError(
            "the address of node 0, for --rendezvous c10d",
            "neither --master-addr nor --rdzv-endpoint in the command, nor MASTER_ADDR in the environment",
            "Set MASTER_ADDR on every node",
        )
    if own := environ.get("NEMOTRON_EXEC_RENDEZVOUS_PORT"):
        return Endpoint(host, _port(own, "NEMOTRON_EXEC_RENDEZVOUS_PORT"), source)
    ports = (options.get("master_port"), rendezvous_port, environ.get("PET_MASTER_PORT"), environ.get("MASTER_PORT"))
    written = next((port for port in ports if port), str(_PORT))
    return Endpoint(host, _port(written, "the port of the job's rendezvous") + 1, source)


def _split(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]*))(?::(\d+))?", text.strip())
    return ("", "") if match is None else (match[1] or match[2] or "", match[3] or "")


def _port(text: str, source: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65535:
        raise LaunchError(f"{source} to be a port", repr(text), "Give a number from 1 to 65534")
    return int(text)


def interpreter(command: Command, environ: Mapping[str, str]) -> str:
    """The Python that the command runs: named in it, or in the first line of its torchrun, or the first on PATH.

    Raises:
        LaunchError: There is none.
    """
    path = environ.get("PATH", os.defpath)
    for word in command.argv:
        name = os.path.basename(word)
        if re.fullmatch(r"(?:python|pypy)[\d.]*", name) and (found := shutil.which(word, path=path)):
            return found
        if name in ("torchrun", "ft_launcher") and (script := shutil.which(word, path=path)):
            if found := _named_in(script, path):
                return found
            break
    for name in ("python3", "python"):
        if found := shutil.which(name, path=path):
            return found
    raise LaunchError(
        "the job's own Python, for --rendezvous c10d",
        "none in the command or on PATH",
        "Put it on PATH, or use a shared directory with --state-dir DIR",
    )


def _named_in(script: str, path: str) -> str | None:
    """The interpreter of a console script: `#!/python`, `#!/usr/bin/env python`, or sh that execs it."""
    try:
        with open(script, "rb") as file:
            lines = file.read(4096).decode("utf-8", "replace").splitlines()[:3]
    except OSError:
        return None
    words: list[str] = re.findall(r"[^\s'\"#!]+", " ".join(lines))
    for word in words:
        if re.fullmatch(r"(?:python|pypy)[\d.]*", os.path.basename(word)):
            return shutil.which(word, path=path)
    return None
