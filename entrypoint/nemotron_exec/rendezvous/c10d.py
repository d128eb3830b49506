"""Step 3, resolve, where the nodes share no directory: `--rendezvous c10d`.

The nodes of a PyTorch job find each other through PyTorch's TCPStore. It is started here in the job's own interpreter,
at the job's own address. Node 0 publishes its answer, and each node resolves the same versions for itself. Within a
node the launchers agree by a directory (agree.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec import frozen
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.rendezvous.agree import agree as agree_here
from nemotron_exec.rendezvous.answer import Failure, Lead
from nemotron_exec.rendezvous.endpoint import Probe, endpoint, interpreter
from nemotron_exec.rendezvous.question import Question, differences, read_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.command.words import Command
    from nemotron_exec.message import Messages
    from nemotron_exec.place.job import JobIdentity
    from nemotron_exec.place.rank import Place
    from nemotron_exec.place.state_directory import StateDirectory
    from nemotron_exec.rendezvous.answer import Agreement
    from nemotron_exec.rendezvous.endpoint import Endpoint
    from nemotron_exec.rendezvous.timing import Timing

__all__ = ["agree", "within_node"]

_SILENT = 60.0
"""Seconds without a sign of the connection after which its other end counts as dead."""
_BEAT = 1.0
"""Seconds between two looks at the time, the silence and the next line, while no report comes."""
_FIRST_LINE = 5.0
"""Seconds until a line tells what this node waits for, or that node 0 has given a first sign."""
_NEXT_LINE = 30.0
"""Seconds between two such lines while nothing changes."""
_ENDED = "its launcher was there, and has ended without an answer"
_LINGER = 10.0
"""Seconds for which node 0 serves an error. The job does not start, so it need not wait for every reader."""


def agree(
    place: Place,
    job: JobIdentity,
    state: StateDirectory,
    *,
    question: Question,
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
    """Agree like agree.agree: over the network between nodes, and over `state` within this node.

    Args:
        place: The place of this launcher; its node must be known.
        job: The job to which the answer belongs.
        state: A directory of this node.
        question: The question to resolve. A node with another question gets an error.
        produce: Resolves, on node 0.
        follow: Resolves on every other node, with node 0's answer.
        timeout: Seconds for all steps together.
        stall: Seconds for which the leader within a node may show no progress.
        refresh: Look up again the versions that an earlier start has pinned.
        messages: For progress lines.
        command: The wrapped command, for its interpreter and its master address.
        environ: The environment.
        timing: Constants of the protocol within the node, for tests.

    Raises:
        LaunchError: Node 0 failed, no interpreter has torch, no address is known, or the number of the node is unknown.
        TemporaryError: Node 0 cannot be reached, or has ended.
    """
    if place.node is None or place.nodes is None:
        raise LaunchError(
            "to agree over --rendezvous c10d, for which every launcher must know its node and their number",
            f"{place}",
            "Give torchrun a fixed --nnodes and a --node-rank, or use a shared directory with --state-dir DIR",
        )
    python = interpreter(command, environ)
    where = endpoint(command, environ)
    # Within this node only its own launchers count. Every start asks anew, because the other nodes may have been
    # replaced.
    here = frozen.replace(place, index=place.local_index or 0, count=place.local_count or 1, node=0, nodes=1, attempt=0)
    local_job = within_node(job, place)
    peer = _Peer(python, where, question, place.nodes - 1, timeout, messages)

    def resolve(lead: Lead) -> Mapping[str, object]:
        with contextlib.closing(peer):
            return peer.serve(produce, lead) if place.node == 0 else peer.ask(follow, lead)

    agreement = agree_here(
        here,
        local_job,
        state,
        question=question,
        produce=resolve,
        # Node 0 serves until the time is over, and then starts its command. So the bound within the node must be later.
        timeout=timeout + _LINGER,
        stall=stall if place.node == 0 else timeout + _LINGER,
        refresh=refresh,
        messages=messages,
        timing=timing,
    )
    return frozen.replace(agreement, reused=False)


def within_node(job: JobIdentity, place: Place) -> JobIdentity:
    """The identity under which the launchers of one node agree. Every start asks anew."""
    return frozen.replace(
        job,
        id=f"{job.job}-node{place.node}.{job.step}" if job.step else f"{job.id}-node{place.node}",
        shared=True,
        lasting=False,
        started=None,
    )


class _Lines:
    """The lines that a waiting node prints, and their times."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()
        self._pause, self._progress = _FIRST_LINE, ""

    def heard(self, progress: str) -> None:
        """Note what node 0 is busy with."""
        if not self._progress:
            # A line without progress of node 0 is out of date now. A line with progress may stand for a while.
            self._pause = _FIRST_LINE
        self._progress = progress

    def due(self) -> str:
        """The text after "waiting for" of the next line, if one is due; else ""."""
        now = time.monotonic()
        if now - self._told < self._pause:
            return ""
        self._told, self._pause = now, _NEXT_LINE
        return f"{now - self._began:.0f} s: {self._progress or 'for a sign'}"


class _Peer:
    """The child process with this node's end of the store."""

    def __init__(
        self, python: str, where: Endpoint, question: Question, readers: int, timeout: float, messages: Messages
    ) -> None:
        self._python, self._where, self._question, self._readers = python, where, question, readers
        self._timeout, self._messages = timeout, messages
        self._until = time.monotonic() + timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._reports: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._readers_of: list[threading.Thread] = []
        self._complaint = ""
        self._probe = Probe(where)

    # -- node 0 -----------------------------------------------------------------------------------------------------

    def serve(self, produce: Callable[[Lead], Mapping[str, object]], lead: Lead) -> Mapping[str, object]:
        """Resolve, and stay until every other node has read the answer or the error."""
        self._start("serve")
        lead("starting")
        self._expect("ready", lead)
        try:
            content = produce(Lead(lead.directory, self._tell(lead), made=True))
        except LaunchError as error:
            self._until = min(self._until, time.monotonic() + _LINGER)
            self._say({"answer": {"failure": frozen.asdict(Failure.of(error))}})
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
        """Wait for the answer of node 0, and resolve the same versions here."""
        self._start("ask")
        lead(f"waiting for node 0 at {self._where.host}:{self._where.port}")
        answer = self._expect("answer", lead)["answer"]
        self.close()
        if not isinstance(answer, dict):
            raise TemporaryError(
                f"node 0's answer from {self._where.host}",
                "an answer of another program",
                "Check MASTER_ADDR and the port: another job may listen there",
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
            "question": self._question.key,
            "parts": dict(self._question.parts),
            "readers": self._readers,
            "timeout": max(0.0, self._until - time.monotonic()),
            "reports": writing,
        }
        # Hide torchrun's variables: with one of them the store would take this process for a worker.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", f"{source}\nimport json\nmain(json.loads({json.dumps(json.dumps(arguments))}))"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
                env=environment,
            )
        except OSError as error:
            os.close(reading)
            raise _no_torch(self._python, os.strerror(error.errno or 0).lower()) from None
        finally:
            os.close(writing)
        for target, argument in ((self._read, reading), (self._listen, self._process)):
            thread = threading.Thread(target=target, args=(argument,), name="nemotron-exec-c10d", daemon=True)
            self._readers_of.append(thread)
            thread.start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        # PyTorch prints a C++ stack for each connection that ends. The last line of a Python that dies tells the cause.
        assert process.stderr is not None
        for line in process.stderr:
            if text := line.decode("utf-8", "replace").strip():
                self._complaint = text[:300]

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
            # The child has ended; its next report tells why.
            return

    def _expect(self, name: str, lead: Lead | None) -> dict[str, Any]:
        """Return the report called `name`. Show progress until then; any other report is an error."""
        heard = beaten = time.monotonic()
        lines = _Lines()
        connected = False
        while True:
            report = self._next()
            now = time.monotonic()
            if name in report:
                return report
            if report:
                heard = now
                if "progress" in report:
                    lines.heard(f"node 0 leads, busy with {report['progress']}"[:300])
                elif "connected" not in report:
                    if "different" in report:
                        raise _different(self._question, self._where, report["different"])
                    if "broken" in report:
                        raise _no_torch(self._python, report["broken"])
                    found = str(report.get("failed") or "no answer in time").splitlines()[0]
                    raise self._gone(_ENDED if connected and "failed" in report else found)
                connected = True
            elif name == "answer" and (self._probe.gone() if not connected else now - heard > _SILENT):
                raise self._gone(_ENDED)
            if now > self._until + 5:
                raise self._gone("no answer in time")
            # Compare times: while a connection is new, its reports come more often than once a second.
            if lead is None or now - beaten < _BEAT:
                continue
            beaten = now
            lead(f"waiting for {'the other nodes' if name == 'served' else 'node 0'}")
            if line := lines.due():
                self._messages.info(f"waiting for {line} at {self._where.host}:{self._where.port}")

    def _next(self) -> dict[str, Any]:
        """The next report of the child; empty if none comes within a beat."""
        try:
            report = self._reports.get(timeout=_BEAT)
        except queue.Empty:
            return {}
        if report is None:
            raise self._gone(f"this node's end of the connection is gone {self._complaint}".rstrip())
        return report

    def _gone(self, found: str) -> LaunchError:
        return _unreachable(self._where, self._timeout, found)

    def close(self) -> None:
        """End the child and its threads."""
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
        for thread in self._readers_of:
            thread.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None


def _different(question: Question, where: Endpoint, parts: str) -> LaunchError:
    return LaunchError(
        "all nodes of the job to be started with the same config, run.* overrides and options",
        differences(question.parts, read_parts(parts.encode()), f"node 0 at {where.host}"),
        "Start the same command on every node",
    )


def _unreachable(where: Endpoint, timeout: float, found: str) -> LaunchError:
    return TemporaryError(
        f"node 0's answer at {where.host}:{where.port} ({where.source}) in {timeout:g} s",
        found,
        "Look at node 0's output; NEMOTRON_EXEC_RENDEZVOUS_PORT chooses another port, --timeout S gives more time",
    )


def _no_torch(python: str, found: str) -> LaunchError:
    return LaunchError(
        f"a TCPStore in the job's own interpreter, {python} (--rendezvous c10d)",
        found,
        "Install PyTorch there, or use a shared directory with --state-dir DIR",
    )
