"""Where the nodes of a job find node 0, and the job's Python, read from the command and the environment."""

from __future__ import annotations

import os
import re
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nemotron_exec.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nemotron_exec.command.words import Command

__all__ = ["Endpoint", "Probe", "endpoint", "interpreter"]

_PORT = 29500
"""torchrun's default for --master-port."""


@dataclass(frozen=True)
class Endpoint:
    """The address where node 0 serves. `source` names the source of the host."""

    host: str
    port: int
    source: str


class Probe:
    """Watches the port of node 0 while this node's own end is still starting, which takes seconds."""

    def __init__(self, where: Endpoint) -> None:
        self._where = where
        self._seen = False
        self._refused = 0

    def gone(self) -> bool:
        """Try to connect. Return whether a server has listened there before, and has ended."""
        try:
            with socket.create_connection((self._where.host, self._where.port), timeout=1.0):
                self._seen, self._refused = True, 0
        except ConnectionRefusedError:
            self._refused += 1
        except OSError:
            return False
        return self._seen and self._refused >= 2


def endpoint(command: Command, environ: Mapping[str, str]) -> Endpoint:
    """Address of node 0, from the options and variables of the job. The port is the one after the job's.

    Raises:
        LaunchError: No option or variable names node 0, or a port is no number.
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
    """The Python of the command: named in it, or in the first line of its torchrun, or the first on PATH.

    Raises:
        LaunchError: There is no Python.
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
    """The interpreter of a console script: `#!/python`, `#!/usr/bin/env python`, or a sh script that execs it."""
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
