"""Nodes that share no directory agree through the TCPStore of the job's own PyTorch."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import time

import pytest

from agree_launchers import worker
from nemotron_exec.command.read import read
from nemotron_exec.errors import LaunchError
from nemotron_exec.rendezvous.endpoint import endpoint, interpreter


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def nodes(launchers, tmp_path):
    """Start launcher `index` of `count` on a node that shares only the network with the others."""
    port = str(free_port())

    def start(index: int, count: int, environ=None, **spec):
        command = f"torchrun --nnodes {count} --node-rank {index} --master-addr 127.0.0.1 train.py"
        environ = {"NEMOTRON_EXEC_RENDEZVOUS_PORT": port, "PATH": sys.exec_prefix + "/bin", **(environ or {})}
        state = tmp_path / f"node{environ.get('GROUP_RANK', index)}"
        spec = {"command": command, "job": "j", "rendezvous": "c10d", "timeout": 250.0, "stall": 250.0, **spec}
        return launchers.start(index, count, environ, state=str(state), **spec)

    return start


@pytest.mark.torch
def test_each_node_resolves_what_node_0_has_resolved(nodes, launchers):
    processes = [nodes(index, 3, value=f"v{index}", work=0.5) for index in range(3)]
    results = [launchers.result(process) for process in processes]

    assert [result["code"] for result in results] == [0, 0, 0], results
    assert {result["answer"]["value"] for result in results} == {"v0"}
    assert len({result["answer"]["config"] for result in results}) == 3
    assert {result["config"] for result in results} == {"half: done\n"}
    assert [result["threads"] for result in results] == [1, 1, 1]


@pytest.mark.ci
@pytest.mark.torch
def test_the_workers_of_a_node_ask_once_and_every_start_asks_anew(nodes, launchers):
    def start(value: str):
        environ = [{**worker(index, 2, 2), "MASTER_ADDR": "127.0.0.1"} for index in range(4)]
        started = [nodes(index, 4, environ[index], command="python train.py", value=value) for index in range(4)]
        return [launchers.result(process) for process in started]

    first, again = start("v1"), start("v2")

    assert {result["code"] for result in first + again} == {0}, first + again
    assert {result["answer"]["value"] for result in first} == {"v1"}
    assert {result["answer"]["value"] for result in again} == {"v2"}
    assert len({result["answer"]["config"] for result in first}) == 2


@pytest.mark.torch
def test_node_0s_error_is_everybodys(nodes, launchers):
    processes = [nodes(index, 2, fail=125) for index in range(2)]
    results = [launchers.result(process) for process in processes]

    assert {result["code"] for result in results} == {125}
    assert len({result["error"] for result in results}) == 1


@pytest.mark.ci
@pytest.mark.torch
def test_nodes_with_different_configs_are_told_so(nodes, launchers):
    leader = nodes(0, 2, key="one")
    other = launchers.result(nodes(1, 2, key="two"))

    assert other["code"] == 125
    assert "same config" in other["error"]
    assert launchers.result(leader)["code"] == 0


@pytest.mark.torch
@pytest.mark.parametrize(
    "when", [pytest.param("before the other one has connected", marks=pytest.mark.ci), "afterwards"]
)
def test_a_dead_node_0_is_noticed_at_once(nodes, launchers, when, tmp_path):
    hour = {"timeout": 3600.0, "stall": 3600.0}
    leader = nodes(0, 2, until="/never", **hour)
    if when == "afterwards":
        other = nodes(1, 2, **hour)
        launchers.leader()
        # The first sign of node 0 is reported within seconds. Later lines come every half minute.
        began = time.monotonic()
        next(line for line in other.stderr if "busy with data" in line)
        assert time.monotonic() - began < 25
    else:
        launchers.leader()
        # This node sees a listener at node 0, but its own Python never gets to import PyTorch.
        slow = tmp_path / "slow" / "python"
        slow.parent.mkdir()
        slow.write_text("#!/bin/sh\nexec cat\n")
        slow.chmod(0o755)
        run = "-m torch.distributed.run --nnodes 2 --node-rank 1 --master-addr 127.0.0.1 train.py"
        other = nodes(1, 2, command=f"{slow} {run}", **hour)
        next(line for line in other.stderr if "for a sign" in line)
    leader.kill()
    died = time.monotonic()
    result = launchers.result(other)

    # It takes a second or two. Without the closed connection, node 1 would notice it after a minute.
    assert time.monotonic() - died < 25
    assert result["code"] == 75
    assert "127.0.0.1" in result["error"]
    assert "has ended without an answer" in result["error"]
    assert "Exception raised" not in result["stderr"]
    assert "Traceback" not in result["stderr"]


@pytest.mark.ci
@pytest.mark.torch
def test_a_node_0_that_never_comes_ends_with_the_timeout(nodes, launchers):
    result = launchers.result(nodes(1, 2, timeout=3.0))

    assert result["code"] == 75
    assert "node 0" in result["error"]


def test_an_interpreter_without_torch_is_named(nodes, launchers, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    environ = {**worker(0, 2, 1), "MASTER_ADDR": "127.0.0.1"}
    result = launchers.result(nodes(0, 2, environ, command=f"{python} train.py"))

    assert result["code"] == 125
    assert python in result["error"]
    assert "torch" in result["error"]


def test_a_launcher_that_does_not_know_its_node_is_an_error(nodes, launchers):
    result = launchers.result(nodes(0, 2, command="torchrun --nnodes 1:2 --rdzv-endpoint 127.0.0.1:1 train.py"))

    assert result["code"] == 125
    assert "--node-rank" in result["error"]


@pytest.mark.parametrize(
    ("command", "environ", "expected"),
    [
        ("torchrun --master-addr a --master-port 7 t.py", {}, ("a", 8)),
        ("torchrun --rdzv-endpoint h:29400 t.py", {}, ("h", 29401)),
        ("torchrun --rdzv-endpoint [::1]:29400 t.py", {}, ("::1", 29401)),
        ("torchrun --rdzv-endpoint h t.py", {}, ("h", 29501)),
        ("torchrun t.py", {"PET_MASTER_ADDR": "p", "PET_MASTER_PORT": "29400"}, ("p", 29401)),
        ("python t.py", {"MASTER_ADDR": "m", "MASTER_PORT": "29500"}, ("m", 29501)),
        ("python t.py", {"MASTER_ADDR": "m", "NEMOTRON_EXEC_RENDEZVOUS_PORT": "40000"}, ("m", 40000)),
        ("python t.py", {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}, ("10.0.0.1", 29501)),
        ("python t.py", {"DSTACK_MASTER_NODE_IP": "10.0.0.1"}, ("10.0.0.1", 29501)),
    ],
)
def test_endpoint(command, environ, expected):
    found = endpoint(read(shlex.split(command)), environ)

    assert (found.host, found.port) == expected


@pytest.mark.parametrize(
    "environ", [{}, {"MASTER_ADDR": "m", "MASTER_PORT": "x"}, {"MASTER_ADDR": "m", "MASTER_PORT": "70000"}]
)
def test_an_endpoint_that_nobody_names_is_an_error(environ):
    with pytest.raises(LaunchError):
        endpoint(read(["python", "t.py"]), environ)


@pytest.mark.parametrize(
    "first",
    [
        "#!{python}",
        "#!/usr/bin/env python3",
        "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"",
        '#!/bin/sh\nexec {python} -m torch.distributed.run "$@"',
    ],
)
def test_the_interpreter_is_that_of_the_torchrun_on_path(tmp_path, first):
    for name in ("python3", "torchrun"):
        (tmp_path / name).write_text(first.format(python=tmp_path / "python3") + "\n")
        (tmp_path / name).chmod(0o755)

    found = interpreter(read(["torchrun", "--nnodes", "2", "t.py"]), {"PATH": str(tmp_path)})

    assert found == str(tmp_path / "python3")


def test_no_interpreter_is_an_error(tmp_path):
    with pytest.raises(LaunchError, match="Python"):
        interpreter(read(["./train.sh"]), {"PATH": str(tmp_path)})
