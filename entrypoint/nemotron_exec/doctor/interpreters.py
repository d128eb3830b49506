"""Starts every Python that a job might use here, and asks whether the injector runs in it."""

from __future__ import annotations

import concurrent.futures
import glob
import json
import os
import re
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nemotron_exec.doctor.command_line import obstacles
from nemotron_exec.doctor.finding import Finding, Level
from nemotron_exec.doctor.own_interpreter import is_the_launchers, start_of
from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nemotron_exec.doctor.finding import Patient

__all__ = ["check"]

_NAME = re.compile(r"python(?:\d(?:\.\d+)?)?\Z")
# Environments of images that are not on PATH: NeMo-RL makes one for each kind of worker under /opt/ray_venvs.
_ELSEWHERE = ("/opt/*/bin/python", "/opt/ray_venvs/*/bin/python", "/opt/conda/envs/*/bin/python")
_SECONDS = 30.0
# Titles for patches that belong to no framework.
_TITLES = {"lineage": "wandb", "resolvers": "OmegaConf", "kit": "NVIDIA's kit", "ray": "Ray"}
_SILENT = frozenset({"resolvers", "kit", "ray"})  # no job needs these patches, so they are details
# The code runs under any Python from 2.7 on. It writes one line to stdout, where a site module of the image may write,
# too.
_PROBE = """
import json, sys
names = {}
try:
    from importlib import metadata
    for name in ("wandb", FRAMEWORKS, "ddtrace", "newrelic", "opentelemetry-distro"):
        try: names[name] = metadata.version(name)
        except Exception: pass
except ImportError: pass
jobs = []
try:
    from importlib.util import find_spec
    for name in ("torch", "numpy", "jax", "tensorflow", "transformers", "megatron", "nemo_rl", "lightning"):
        try:
            if find_spec(name): jobs.append(name)
        except Exception: pass
except ImportError: jobs.append("unknown")
print("\\nDOCTOR" + json.dumps({
    "version": sys.version.split()[0],
    "prefix": sys.prefix,
    "injected": any(getattr(finder, "nemotron_exec", False) for finder in sys.meta_path),
    "packages": names,
    "job": jobs,
}))
"""


_PROBE = _PROBE.replace("FRAMEWORKS", ", ".join(f'"{row.distribution}"' for row in FRAMEWORKS))


@dataclass(frozen=True)
class _Answer:
    """The answer of an interpreter; `said` is None if it could not be started."""

    path: str
    said: Mapping[str, Any] | None
    error: str = ""


def check(patient: Patient) -> Iterator[Finding]:
    """The findings about each interpreter, and about the sitecustomize of other programs on PYTHONPATH."""
    from nemotron_exec.environment import job_environment

    yield from _others(patient.environ)
    environ = job_environment(patient.environ)
    paths = list(_found(patient))
    if patient.words:
        yield from _own(patient, environ)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda path: _ask([path, "-c"], environ), paths))
    if not any(answer.said for answer in answers):
        yield Finding(Level.WARNING, "python", "no Python was found on PATH", "A command without Python needs none")
    first = True
    seen = set()
    for answer in answers:
        if answer.said is None:
            # Ignore a Python on PATH that the command does not name: it may be an unused shim of a version manager.
            if answer.path in patient.words:
                yield Finding(Level.FAULT, "python", f"{answer.path} does not start: {answer.error}", "Name another")
            continue
        key = (answer.said["prefix"], answer.said["version"])
        if key not in seen:
            judged = _judge(answer, answer.said, first=first)
            # The command starts the first one. A finding that another one is well is a detail.
            yield replace(judged, detail=not first and judged.level is Level.OK)
        if first and answer.said["injected"]:
            yield from _patches(answer.path, environ)
        seen.add(key)
        first = False


def _own(patient: Patient, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The finding about the command's own interpreter, started through its wrapper, its first line or its pex."""
    start = start_of(patient.words, environ)
    if start.words is None:
        said = f"which Python {start.what} runs is unknown, and so whether the injector runs in it"
        yield Finding(Level.OK, "python", said)
        return
    answer = _ask(start.words, {**environ, **start.variables})
    if answer.said is None:
        remedy = "Start it by hand with `import sys; print(sys.meta_path)` as its code"
        said = f"{start.what} does not say whether the injector runs in it: {answer.error}"
        yield Finding(Level.WARNING, "python", said, remedy)
        return
    if is_the_launchers(answer.said["prefix"], answer.said["job"]):
        yield Finding(
            Level.FAULT,
            "python",
            f"{start.what} is the launcher's own Python ({answer.said['prefix']}), which has none of a job's packages",
            "Name the job's interpreter by its path, or put its directory first on PATH",
        )
    if not answer.said["injected"] and not obstacles(patient.words, patient.environ):
        yield _judge(_Answer(start.what, answer.said), answer.said, first=True)


def _judge(answer: _Answer, said: Mapping[str, Any], *, first: bool) -> Finding:
    about = f"{answer.path} ({said['version']}"
    about += "".join(f", {name} {version}" for name, version in said["packages"].items()) + ")"
    if said["injected"]:
        return Finding(Level.OK, "python", f"{about}: the injector runs")
    if tuple(int(part) for part in said["version"].split(".")[:2]) < (3, 8):
        return Finding(
            Level.FAULT if first else Level.WARNING,
            "python",
            f"{about}: too old for the injector",
            "Train with Python 3.8 or later; artifacts are resolved all the same",
        )
    return Finding(
        Level.FAULT if first else Level.WARNING,
        "python",
        f"{about}: the injector does not run",
        "Look for a sitecustomize or .pth file that exits, and for PYTHONPATH being set by a wrapper",
    )


# Imports each module that a patch hooks, as the job will, and asks the injector for the state of the patch.
_PATCH_PROBE = """
import importlib, json, os, sys
said = {}
for name, modules in json.loads(sys.argv[1]).items():
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
            if missing and (module + ".").startswith(missing + "."):
                continue  # not installed, or a version without this module
            said[name] = ["broken", "%s: %s: %s" % (module, type(error).__name__, error)]
            break
        applied = sys.modules.get("_nemotron_exec.apply")
        status = applied and applied.STATUS.get(name)
        said[name] = [status.state, status.reason] if status else ["switched off", ""]
        break
with open(sys.argv[2], "w") as file:
    json.dump(said, file)
os._exit(0)
"""


def _patches(path: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The state of each patch in the command's own interpreter."""
    import tempfile

    from nemotron_exec.patches import PATCHES

    with tempfile.TemporaryDirectory() as scratch:
        answer = os.path.join(scratch, "patches.json")
        try:
            subprocess.run(
                [path, "-c", _PATCH_PROBE, json.dumps(PATCHES), answer],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environ),
                timeout=4 * _SECONDS, check=False,
            )  # fmt: skip
            with open(answer, encoding="utf-8") as file:
                said = json.load(file)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            yield Finding(Level.WARNING, "patches", f"not known: {error}", "Import the frameworks by hand to see why")
            return
    if absent := [_title(name) for name in PATCHES if name not in said]:
        yield Finding(Level.ABSENT, "patch", f"not installed: {', '.join(absent)}")
    for name, (state, reason) in said.items():
        if state == "broken":
            remedy = f"Import it by hand, and install what is missing: `{path} -c 'import {reason.partition(':')[0]}'`"
            yield Finding(Level.WARNING, "patch", f"{name}: installed, and cannot be imported: {reason}", remedy)
            continue
        # The patches of OmegaConf and of NVIDIA's kit only serve scripts that are started without the launcher.
        warns = state == "stood down" and name not in ("resolvers", "kit")
        remedy = "Its framework has changed; look for a newer nemotron-exec" if warns else ""
        row = named(name)
        if state == "installed" and row is not None and row.unseen:
            reason = f"not recorded: {row.unseen}; call record_checkpoint after them" + (
                f"; {reason}" if reason else ""
            )
        found = f"{name} {state}: {reason}" if reason else f"{name} {state}"
        yield Finding(
            Level.WARNING if warns else Level.OK, "patch", found, remedy, detail=name in _SILENT and not warns
        )


def _title(name: str) -> str:
    row = named(name)
    return row.title if row is not None else _TITLES[name]


def _found(patient: Patient) -> Iterator[str]:
    """The paths of interpreters: the command's own first, then those on PATH, then those of other environments."""
    import shutil

    search = patient.environ.get("PATH", os.defpath)
    candidates = [word for word in patient.words if _NAME.match(os.path.basename(word))][:1]
    candidates += ["python", "python3"]
    paths = [path for path in (shutil.which(name, path=search) for name in candidates) if path]
    for folder in search.split(os.pathsep):
        paths += sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "python*")) if _is_python(path))
    for pattern in _ELSEWHERE:
        paths += sorted(glob.glob(pattern))
    ours = "/opt/nemotron-exec/"
    seen = set()
    for path in paths:
        # The python of a virtual environment is a link to another python, so the link's directory distinguishes the
        # two.
        key = (os.path.realpath(os.path.dirname(path)), os.path.realpath(path))
        if key not in seen and not path.startswith(ours):
            seen.add(key)
            yield path


def _is_python(path: str) -> bool:
    return bool(_NAME.match(os.path.basename(path))) and os.access(path, os.X_OK)


def _ask(start: Sequence[str], environ: Mapping[str, str]) -> _Answer:
    path = start[0]
    try:
        done = subprocess.run(
            [*start, _PROBE], capture_output=True, text=True, env=dict(environ), timeout=_SECONDS, errors="replace",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Answer(path, None, str(error))
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("DOCTOR"):
            return _Answer(path, json.loads(line[len("DOCTOR") :]))
    return _Answer(path, None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


def _others(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The sitecustomize of other programs on PYTHONPATH. The injector runs first, and then runs the others."""
    from nemotron_exec.environment import injector_directory

    for entry in environ.get("PYTHONPATH", "").split(os.pathsep):
        if not entry or os.path.realpath(entry) == os.path.realpath(injector_directory()):
            continue
        if any(glob.glob(os.path.join(glob.escape(entry), name)) for name in ("sitecustomize.py*", "sitecustomize/")):
            yield Finding(
                Level.OK, "python", f"{entry} on PYTHONPATH has a sitecustomize, which runs after nemotron-exec's"
            )
