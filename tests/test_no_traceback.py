"""Bad input to every part gives one message of docs/errors.md, and a traceback only under -v, in the real programs.

The tests of each part check the texts. These tests run all cases as a person meets them.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pytest

import pages
import test_bad_input
from nemotron_exec.sitecustomize.payload.manifest import register
from places import ROOT
from wandb_backend import API_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from wandb_backend import Backend


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


test_config_bad_input = _load(ROOT / "tests/config/test_config_bad_input.py")


@functools.cache
def patterns():
    """The patterns of all errors; reading them out of the code takes seconds."""
    return pages.tool("catalogue").patterns()


# root may read and write every file, unless it gives up these capabilities.
GIVE_UP = "-dac_override,-dac_read_search"
AS_ANYBODY = (
    [shutil.which("setpriv") or "setpriv", f"--bounding-set={GIVE_UP}", f"--inh-caps={GIVE_UP}"]
    if os.geteuid() == 0
    else []
)
EXEC = [*AS_ANYBODY, sys.executable, "-m", "nemotron_exec"]
ARTIFACT = [*AS_ANYBODY, sys.executable, "-c", "from nemotron_exec.artifact_cli.main import main; main()"]


def is_one_known_message(command: list[str], verbose: list[str], code: int, **where: object) -> None:
    """Check that `command` fails with one line of the catalogue, and that `verbose` adds only a traceback."""
    for words in filter(None, (command, verbose)):
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False, **where)
        assert done.returncode == code, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if ": error: " in line and line.startswith("nemotron-")]
        message = line.partition(": error: ")[2]
        assert any(pattern.fullmatch(message) for pattern in patterns()), f"not in docs/errors.md: {message}"
        assert ("Traceback" in done.stderr) == (words is verbose), done.stderr
        assert done.stdout == ""
        assert API_KEY not in done.stderr


# ---------------------------------------------------------------------- the config and the store (issues 2 and 3)

BLEND = "run: {data: 'blend:v1'}\n"
CONFIGS: dict[str, str | Callable[[], str] | None] = {
    **{name: text for name, (text, _) in test_bad_input.TABLE.items()},
    **{name: test_config_bad_input.RUN.replace("D:v1", "blend:v1").replace("M:v1", "blend:v1") + text
       for name, (text, _, _) in test_config_bad_input.TABLE.items()},
    **{f"a config that is {name}": text for name, text in test_config_bad_input.HUGE.items()
       if name not in ("a string times a billion", "a chain of 3000 interpolations")},
    "defaults of a missing file": "defaults: gone.yaml\n" + BLEND,
    "defaults that leave the file system": "defaults: ../../../../../../../../../etc/gone.yaml\n" + BLEND,
    "defaults of an unset variable": "defaults: '${oc.env:NOWHERE}.yaml'\n" + BLEND,
    "defaults in a circle": "defaults: cfg.yaml\n" + BLEND,
}  # fmt: skip
# The metadata of these configs would need artifacts of their own.
del CONFIGS["a value that means missing"], CONFIGS["half a surrogate pair"], CONFIGS["a resolver that raises"]
CONFIGS["a resolver that raises"] = BLEND + "b: ${div:${art:data,pack_size},0}\n"


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = tmp_path / "store"
    (tmp_path / "data").mkdir()
    register.register(str(root), "blend", type="dataset", path=str(tmp_path / "data"), metadata={"pack_size": 1})
    monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(root))
    return root


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_config_is_one_message(tmp_path, store, name):
    text = CONFIGS[name]
    if text is not None:
        (tmp_path / "cfg.yaml").write_text(text() if callable(text) else text)
    # The command itself refuses a missing file in its words, but the launcher refuses a missing file of -c.
    command = ["true", "--config", "cfg.yaml"] if text is not None else ["-c", "cfg.yaml", "true"]
    is_one_known_message([*EXEC, *command], [*EXEC, "-v", *command], 125, cwd=tmp_path)


@pytest.mark.parametrize("name", test_bad_input.STORES)
def test_a_bad_manifest_is_one_message(tmp_path, store, name):
    file, text, _ = test_bad_input.STORES[name]
    (store / "blend" / file).write_text(text)
    (tmp_path / "cfg.yaml").write_text(test_bad_input.CONFIG)
    is_one_known_message([*EXEC, "true", "cfg.yaml"], [*EXEC, "-v", "true", "cfg.yaml"], 125, cwd=tmp_path)
    show = ["show", "blend:v1"]
    is_one_known_message([*ARTIFACT, *show], [*ARTIFACT, "-v", *show], 125, cwd=tmp_path)


@pytest.mark.parametrize("mode", [0o000, 0o555], ids=["not readable", "not writable"])
def test_a_store_without_permission_is_one_message(tmp_path, store, mode):
    (tmp_path / "cfg.yaml").write_text(test_bad_input.CONFIG)
    for directory in (store, store / "blend"):
        directory.chmod(mode if directory == store or mode else 0o755)
    try:
        add = ["add", "blend", "data"]
        is_one_known_message([*ARTIFACT, *add], [*ARTIFACT, "-v", *add], 125, cwd=tmp_path)
        if not mode:
            is_one_known_message([*EXEC, "true", "cfg.yaml"], [*EXEC, "-v", "true", "cfg.yaml"], 125, cwd=tmp_path)
    finally:
        store.chmod(0o755)
        (store / "blend").chmod(0o755)


def test_a_command_that_does_not_start_is_one_message(tmp_path):
    (tmp_path / "file").write_text("#!/bin/sh\n")
    for word, code in (("no-such-command-here", 127), ("./gone", 127), ("./file", 126), (str(tmp_path), 126)):
        is_one_known_message([*EXEC, word], [*EXEC, "-v", word], code, cwd=tmp_path)


@pytest.mark.parametrize(
    "words",
    [["--no-such-option"], ["--timeout", "soon", "true"], ["--backend", "mlflow", "true"], ["-o", "x.yaml", "true"]],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_message(tmp_path, words):
    is_one_known_message([*EXEC, *words], [], 2, cwd=tmp_path)


# ---------------------------------------------------------------------- W&B (issue 4)


class Fault(NamedTuple):
    """A failure of W&B: the change of the server, the launcher's settings, and the exit code."""

    code: int
    environ: Mapping[str, str] = MappingProxyType({})
    reference: str = "data:latest"
    server: Callable[[Backend], object] = lambda server: None
    before: Callable[[Path], object] = lambda cache: None
    timeout: int = 60


def _no_room(server: Backend) -> None:
    (version,) = server.model.find_collection("team", "nemotron", "data").versions
    version.manifest["contents"]["a"]["size"] = 10**18


def _not_ours(cache: Path) -> None:
    cache.mkdir()
    (cache / "wandb").symlink_to("/tmp")


FAULTS = {
    "no key": Fault(125, {"WANDB_API_KEY": ""}),
    "a bad key": Fault(125, {"WANDB_API_KEY": "0" * 40}),
    "a malformed key": Fault(125, {"WANDB_API_KEY": "x"}),
    "no access": Fault(125, server=lambda server: server.fail("Artifact*ByName", status=403, times=None)),
    "unknown entity": Fault(125, reference="taem/nemotron/data:latest"),
    "unknown project": Fault(125, reference="nemotrom/data:latest"),
    "unknown artifact": Fault(125, reference="dta:latest"),
    "unknown version": Fault(125, reference="data:v9"),
    "API down": Fault(75, server=lambda server: server.close(), timeout=5),
    "errors without end": Fault(75, server=lambda server: server.fail("graphql", status=503, times=None), timeout=5),
    "API slow": Fault(75, server=lambda server: server.fail("Artifact*ByName", delay=600, times=None), timeout=8),
    "DNS": Fault(75, {"WANDB_BASE_URL": "http://wandb.invalid"}, timeout=5),
    "no address": Fault(125, {"WANDB_BASE_URL": "wandb"}),
    "a stalled download": Fault(75, server=lambda server: server.fail("GET data/a", stall=10, times=None), timeout=8),
    "a cut download": Fault(75, server=lambda server: server.fail("GET data/a", cut=10, times=None), timeout=8),
    "a wrong checksum": Fault(75, server=lambda server: server.fail("GET data/a", corrupt=True, times=None)),
    "a full disk": Fault(75, server=_no_room),
    "a cache that is not ours": Fault(125, before=_not_ours),
}


@pytest.mark.ci
@pytest.mark.parametrize("name", FAULTS)
def test_a_failure_of_wandb_is_one_message(wandb_backend, wandb_environ, tmp_path, name):
    fault = FAULTS[name]
    wandb_backend.seed("team/nemotron/data", files={"a": bytes(1000)})
    fault.server(wandb_backend)
    fault.before(tmp_path / "cache")
    (tmp_path / "cfg.yaml").write_text(
        f"run: {{data: '{fault.reference}', wandb: {{project: nemotron}}}}\npath: ${{art:data,path}}\n"
    )
    options = ["--backend", "wandb", "--cache-dir", str(tmp_path / "cache"), "--timeout", str(fault.timeout)]
    command = [*options, "true", "cfg.yaml"]
    environ = {**os.environ, **wandb_environ, **fault.environ}
    is_one_known_message([*EXEC, *command], [*EXEC, "-v", *command], fault.code, cwd=tmp_path, env=environ)


@pytest.mark.parametrize("words", ["--help", "--version", "--doctor true", "--resolve-only true cfg.yaml"])
def test_a_reader_that_goes_away_is_no_failure_to_speak_of(tmp_path, store, words, bare_path):
    (tmp_path / "cfg.yaml").write_text(test_bad_input.CONFIG)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*EXEC, "-q", *words.split()],
            cwd=tmp_path,
            env={**os.environ, "PATH": str(bare_path)},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (-signal.SIGPIPE, 1)  # rich handles SIGPIPE itself
